"""A run is resumed only with the data and the encoder that it started with."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from jaxclf.decisions.predictions import save_predictions
from jaxclf.decisions.provenance import PROVENANCE, read_provenance, write_provenance
from jaxclf.decisions.row_hashes import ROW_HASHES
from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.training.run import train
from jaxclf.training.run_folder import open_run, settle_provenance
from jaxclf.training.setup import make_setup
from jaxclf.types import Predictions


def change_rows(path, change):
    rows = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(rows)), encoding="utf-8")


def rename(rows):
    """The first label of every row, under another name."""
    first, *others = rows[0]["labels"]
    new = {first: f"{first} now", **{name: name for name in others}}
    return [
        {**row, "labels": {new[name]: value for name, value in row["labels"].items()}}
        for row in rows
    ]


def invert(rows):
    return [{**row, "labels": {k: 1 - v for k, v in row["labels"].items()}} for row in rows]


def change_split(split, change):
    return lambda folder: change_rows(folder / f"{split}.json", change)


def rename_label(folder):
    for split in ("train", "val", "test"):
        change_rows(folder / f"{split}.json", rename)


def change_tensor(name, factor):
    def change(folder):
        path = folder / "encoder" / "model.safetensors"
        tensors = safetensors.numpy.load_file(path)
        safetensors.numpy.save_file({**tensors, name: factor * tensors[name]}, path)

    return change


def change_json(name, change):
    def rewrite(folder):
        path = folder / "encoder" / name
        values = json.loads(path.read_text(encoding="utf-8"))
        change(values)
        path.write_text(json.dumps(values), encoding="utf-8")

    return rewrite


def swap_tokens(tokenizer):
    vocab = tokenizer["model"]["vocab"]
    first, second = list(vocab)[100:102]
    vocab[first], vocab[second] = vocab[second], vocab[first]


def change_soft_labels(folder):
    rows = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    write_soft_labels(folder, [row["id"] for row in rows], len(rows[0]["labels"]), 0.75)


def write_soft_labels(folder, ids, classes, value):
    probs = np.full((len(ids), classes), value, np.float32)
    save_predictions(folder / "soft.npz", Predictions(np.array(ids), probs, probs, "train"))


# Name -> the key that the error names, and the change.
CHANGES = {
    "labels inverted": ("data.train", change_split("train", invert)),
    "rows dropped": ("data.train", change_split("train", lambda rows: rows[3:])),
    "rows shuffled": ("data.train", change_split("train", lambda rows: rows[1:] + rows[:1])),
    "texts reversed": (
        "data.train",
        change_split("train", lambda rows: [{**row, "text": row["text"][::-1]} for row in rows]),
    ),
    "val halved": ("data.val", change_split("val", lambda rows: rows[::2])),
    "test changed": ("data.test", change_split("test", invert)),
    "a label renamed": ("data.train", rename_label),
    "weights": ("encoder", change_tensor("embeddings.word_embeddings.weight", 1.5)),
    "vocabulary": ("encoder", change_json("tokenizer.json", swap_tokens)),
    "activation": ("encoder", change_json("config.json", lambda c: c.update(hidden_act="relu"))),
    "heads": (
        "encoder",
        change_json("config.json", lambda config: config.update(num_attention_heads=2)),
    ),
    "soft labels": ("data.soft_labels", change_soft_labels),
}


@pytest.fixture
def started(tiny_overrides, tiny_encoder, tiny_data, tmp_path):
    """(folder of data and encoder, experiment, run folder with a checkpoint)"""
    for split, path in tiny_data.items():
        shutil.copy(path, tmp_path / f"{split}.json")
    shutil.copytree(tiny_encoder, tmp_path / "encoder")
    rows = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    write_soft_labels(tmp_path, [row["id"] for row in rows], len(rows[0]["labels"]), 0.5)
    places = {f"data.{split}": str(tmp_path / f"{split}.json") for split in tiny_data}
    places |= {"encoder.name": str(tmp_path / "encoder")}
    places |= {"data.soft_labels": str(tmp_path / "soft.npz")}
    experiment = override(catalog.load("baseline"), {**tiny_overrides, **places})
    out = tmp_path / "run"
    setup = make_setup(experiment)
    open_run(out, setup.experiment, "auto")
    write_provenance(out, settle_provenance(out, setup.provenance, ()))
    (out / "checkpoints" / "3").mkdir(parents=True)
    return tmp_path, experiment, out


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_refused_by_name_and_nothing_is_written(started, name):
    folder, experiment, out = started
    key, change = CHANGES[name]
    settle_provenance(out, make_setup(experiment).provenance, ())  # as it was
    change(folder)
    before = content(out)
    with pytest.raises(
        ConfigError, match=rf"(?s)\n  {key}: .*was .*is .*--allow-change {key} "
    ) as caught:
        train(experiment, out)
    assert caught.value.exit_code == 2
    assert content(out) == before


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_record_is_refused_by_name(started, damage):
    _, experiment, out = started
    path = out / PROVENANCE
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:200] if damage == "cut" else text.replace('"rows": 96', '"rows": 95'))
    if damage == "missing":
        path.unlink()
    before = content(out)
    with pytest.raises(
        ConfigError, match=r"(?s)provenance\.json: .*readable.*--allow-change provenance\.json"
    ):
        train(experiment, out)
    assert content(out) == before
    provenance = make_setup(experiment).provenance
    allowed = settle_provenance(out, provenance, [PROVENANCE])
    assert allowed.record["splits"] == provenance.record["splits"]
    assert [change["key"] for change in allowed.record["allowed_changes"]] == [PROVENANCE]


def test_an_allowed_change_is_recorded_and_the_weights_are_fitted_on_both(started):
    folder, experiment, out = started
    before = read_provenance(out)
    for number, key in enumerate(("data.train", "data.val")):
        change_split(key.removeprefix("data."), lambda rows: rows[::2])(folder)
        provenance = make_setup(experiment).provenance
        with pytest.raises(ConfigError, match=key):
            settle_provenance(out, provenance, ["encoder"])
        record = settle_provenance(out, provenance, [key, "encoder"])
        assert [change["key"] for change in record.record["allowed_changes"]][number:] == [key]
        write_provenance(out, record)
        assert settle_provenance(out, provenance, ()).record == record.record
    splits = record.record["splits"]
    assert [splits[name]["rows"] for name in ("train", "train-1", "val", "val-1")] == [
        48,
        96,
        24,
        48,
    ]
    assert splits["train-1"] == before.record["splits"]["train"]
    fitted = {(part["what"], part["split"]) for part in record.record["fitted"]}
    assert {("the weights", name) for name in ("train", "train-1")} < fitted
    assert {("the choice of the epoch", name) for name in ("val", "val-1")} < fitted
    assert ("the thresholds (per_label)", "val-1") not in fitted
    with pytest.raises(ConfigError, match=r"did you mean 'data\.val'"):
        settle_provenance(out, provenance, ["data.vall"])


def test_the_report_of_a_finished_run_is_not_that_of_other_files(started, caplog):
    folder, experiment, out = started
    report = {"val": {}, "test": {"macro_f1": 0.5}}
    (out / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (out / "report.html").write_text("")
    assert train(experiment, out) == report
    change_split("test", invert)(folder)
    before = content(out)
    with pytest.raises(ConfigError, match=r"finished.*changed(?s:.*)data\.test"):
        train(experiment, out)
    assert train(experiment, out, allow_changes=["data.test"]) == report
    assert "data.test" in caplog.text
    assert content(out) == before


def test_a_start_that_was_killed_before_its_record_starts_again(started):
    _, experiment, out = started
    (out / PROVENANCE).unlink()
    shutil.rmtree(out / "checkpoints")
    provenance = make_setup(experiment).provenance
    assert settle_provenance(out, provenance, ()) is provenance
    (out / ROW_HASHES).unlink()
    (out / "config.json").rename(out / "config.json.part")
    open_run(out, experiment, "auto")
