"""A model folder names its damage: every changed bit, every missing file, every edited value."""

import json
import random
import re
import shutil

import numpy as np
import pytest
from tiny_models import LABELS, make_ensemble, make_model

import jaxclf
from jaxclf.errors import DataError
from jaxclf.exporters.hf import to_hf
from jaxclf.model.storage.sealing import CARD

FLIPS = 65
FILES = ["config.json", "tokenizer.json", "model.safetensors", "head.safetensors", "jaxclf.json"]


@pytest.fixture(scope="module")
def saved(tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    models = [make_model(folder / name, tiny_encoder, seed=seed) for seed, name in enumerate("ab")]
    make_ensemble(folder / "ensemble", models)
    return folder


@pytest.fixture
def model(saved, tmp_path):
    """A copy of a model's folder."""
    return shutil.copytree(saved / "a", tmp_path / "model")


def edit(folder, name, change):
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))


def set_threshold(meta):
    meta["thresholds"][LABELS[0]]["value"] = 0.9


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_named(model, name):
    content, rng = (model / name).read_bytes(), random.Random(0)
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (model / name).write_bytes(flipped)
        with pytest.raises(DataError, match=re.escape(str(model / name))):
            jaxclf.load(model)
    (model / name).write_bytes(content)
    jaxclf.load(model)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [b"", b"\0" * 4096, None])
def test_a_missing_cut_or_zeroed_file_is_named(model, name, damage):
    if damage is None:
        (model / name).unlink()
    else:
        (model / name).write_bytes(damage)
    with pytest.raises(DataError, match=re.escape(str(model / name))):
        jaxclf.load(model)


def test_strays_and_an_edited_card_are_no_damage(model):
    (model / CARD).write_text("mine")
    for name in (".DS_Store", "flax_model.msgpack", "vocab.txt", "pytorch_model.bin"):
        (model / name).write_bytes(b"\0")
    (model / "dead").symlink_to("nowhere")
    jaxclf.load(model)


def test_a_sealed_file_must_name_all_that_is_read(model):
    edit(model, "jaxclf.json", lambda meta: meta["files"].pop("tokenizer.json"))
    with pytest.raises(DataError, match=r"no SHA-256 of tokenizer\.json"):
        jaxclf.load(model, verify=False)


@pytest.mark.parametrize("depth", [300, 600, 900, 3000])
def test_values_nested_deeply_are_no_traceback(model, depth):
    content = (model / "jaxclf.json").read_text()
    deep = "[" * depth + "]" * depth
    (model / "jaxclf.json").write_text(content.replace("{", f'{{"x": {deep},', 1))
    with pytest.raises(DataError, match=r"jaxclf\.json: (damaged|nested)"):
        jaxclf.load(model)
    if depth > 300:
        with pytest.raises(DataError, match="nested too deeply"):
            jaxclf.load(model, verify=False)


def test_what_is_edited_on_purpose_opens_when_asked(model):
    before = jaxclf.load(model)
    edit(model, "jaxclf.json", set_threshold)
    with pytest.raises(DataError, match=r"jaxclf\.json: damaged.*verify=False"):
        jaxclf.load(model)
    after = jaxclf.load(model, verify=False)
    assert (after.thresholds[0], len(after.digest)) == (0.9, 64)
    assert after.digest != before.digest
    assert jaxclf.load(model, verify=False).digest == after.digest


def test_a_model_that_nobody_changed_has_one_digest(saved):
    digests = {jaxclf.load(saved / "a", verify=verify).digest for verify in (True, False)}
    assert len(digests) == 1
    assert jaxclf.load(saved / "b").digest not in digests


@pytest.mark.parametrize("name", ["ensemble.json", "member-0/jaxclf.json", "member-1/config.json"])
def test_a_damaged_ensemble_names_the_file(saved, tmp_path, name):
    folder = shutil.copytree(saved / "ensemble", tmp_path / "ensemble")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"1", b"2", 1))
    with pytest.raises(DataError, match=re.escape(str(folder / name))):
        jaxclf.load(folder)


def test_a_member_of_another_ensemble_is_named(saved, tmp_path):
    """The member is whole, but not the one that the thresholds were fitted for."""
    folder = shutil.copytree(saved / "ensemble", tmp_path / "ensemble")
    shutil.rmtree(folder / "member-0")
    shutil.copytree(saved / "b", folder / "member-0")
    with pytest.raises(DataError, match=r"member-0/jaxclf\.json: .*digest.*ensemble\.json"):
        jaxclf.load(folder)
    edited = jaxclf.load(folder, verify=False)
    assert edited.digest != jaxclf.load(saved / "ensemble").digest


def test_the_card_has_the_digest(saved, tmp_path):
    to_hf(saved / "a", tmp_path / "exported")
    digests = {path: jaxclf.load(path).digest for path in (saved / "a", tmp_path / "exported")}
    cards = {path: (path / CARD).read_text() for path in digests}
    assert f"| digest | `{digests[saved / 'a']}` |" in cards[saved / "a"]
    exported = cards[tmp_path / "exported"]
    assert f"| digest | `{digests[tmp_path / 'exported']}` |" in exported
    assert f"| exported from | `{digests[saved / 'a']}` |" in exported
    assert exported.count("## Origin") == 1
    assert f"| written by | jaxclf {jaxclf.__version__}, 20" in exported
    settings = exported.partition("as `jaxclf train` takes them:")[2]
    for setting in ("seed=0", "pool=attention", "optim.lr=0.0002", "data.max_length=20"):
        assert f" {setting}" in settings
    assert "encoder.name" not in settings
    members = (saved / "ensemble" / CARD).read_text()
    assert f"| member-0 | `{digests[saved / 'a']}` |" in members


def test_an_export_opens_after_others_have_edited_what_is_theirs(saved, tmp_path):
    to_hf(saved / "a", tmp_path / "out")
    (tmp_path / "out" / "tokenizer_config.json").write_text("{}")
    expected = jaxclf.load(saved / "a").predict_proba(["a text"])
    np.testing.assert_array_equal(jaxclf.load(tmp_path / "out").predict_proba(["a text"]), expected)
