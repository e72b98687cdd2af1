"""Names of encoders: folders, the built-in alias held to its bytes, and what cannot be had."""

import shutil

import pytest

from jaxclf.errors import ConfigError, DataError, StorageError
from jaxclf.model import pretrained
from jaxclf.model.pretrained import BUILT_IN, CACHE_VARIABLE, resolve, sha256


def refuse(*args, **kwargs):
    raise AssertionError("no process may be started")


def test_a_folder_is_itself(tiny_encoder):
    assert resolve(str(tiny_encoder)) == (tiny_encoder, "")


def test_the_built_in_encoder_has_the_published_bytes():
    folder = resolve("minilm").folder
    assert {path.name: sha256(path) for path in folder.iterdir()} == BUILT_IN["minilm"].files


def test_what_the_cache_has_needs_no_network(monkeypatch):
    resolve("minilm")
    monkeypatch.setattr(pretrained.subprocess, "run", refuse)
    monkeypatch.setattr(pretrained, "_from_hub", refuse)
    assert (resolve("minilm").folder / "model.safetensors").is_file()


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_other_bytes_are_refused(monkeypatch, tmp_path, harm):
    folder = resolve("minilm").folder
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    (tmp_path / "minilm").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copyfile(folder / name, tmp_path / "minilm" / name)
    assert resolve("minilm").folder == tmp_path / "minilm"
    path = tmp_path / "minilm" / "config.json"
    if harm == "changed":
        path.write_text(path.read_text().replace("384", "385"))
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"config.json: not the published bytes"):
        resolve("minilm")


def test_a_download_of_other_bytes_leaves_no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    def forged(name, encoder, scratch, part):
        for file in encoder.files:
            (part / file).write_text("not it")

    monkeypatch.setattr(pretrained, "_get_built_in", forged)
    with pytest.raises(DataError, match="not the published bytes"):
        resolve("minilm")
    assert list(tmp_path.iterdir()) == []


def test_a_hub_id_without_a_hub_says_what_to_do():
    with pytest.raises(StorageError, match="give a local folder or a built-in name") as caught:
        resolve("somebody/some-model")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "a/b/c"])
def test_a_path_that_is_no_model_is_no_hub_id(name):
    with pytest.raises(ConfigError, match=r"no folder with a config\.json"):
        resolve(name)


def test_a_name_that_is_no_name_is_refused():
    with pytest.raises(ConfigError, match="minilm"):
        resolve("mini lm")
