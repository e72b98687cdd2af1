"""What an experiment leaves to the data is chosen once, said, and kept when the run resumes."""

import json

import numpy as np
import pytest

from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.text.tokenizer.tokenize import load_tokenizer
from jaxclf.training import adapt
from jaxclf.training.run import train
from jaxclf.types import Examples

OPEN = {"data.max_length": 0, "train.batch_size": 0, "train.epochs": 0}


def make_examples(texts, positives=(3, 40)):
    count = len(texts)
    labels = np.stack([np.arange(count) < number for number in positives], axis=1)
    return Examples(
        ids=tuple(map(str, range(count))),
        texts=tuple(texts),
        labels=labels.astype(np.float32),
        label_mask=np.ones((count, len(positives)), np.float32),
        names=("rare", "frequent"),
        groups=(),
        source="made",
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_encoder):
    return load_tokenizer(tiny_encoder)


@pytest.fixture
def experiment(tiny_experiment):
    return override(tiny_experiment, OPEN)


@pytest.mark.parametrize(
    ("words", "long", "expected"),
    [(5, 0, 64), (5, 4, 64), (5, 12, 256), (100, 0, 128), (400, 0, 512), (4000, 0, 512)],
)
def test_a_row_holds_nearly_all_texts(experiment, tokenizer, words, long, expected):
    """Of a hundred texts, `long` have 200 words of one token each."""
    texts = ["a " * words] * (100 - long) + ["a " * 200] * long
    chosen = adapt.adapt(experiment, make_examples(texts), tokenizer, 512)
    assert chosen.data.max_length == expected


def test_a_row_is_no_longer_than_the_encoder_reads(experiment, tokenizer):
    texts = ["a " * 400] * 50
    assert adapt.adapt(experiment, make_examples(texts), tokenizer, 130).data.max_length == 128
    assert adapt.adapt(experiment, make_examples(texts), tokenizer, 34).data.max_length == 34


def test_fewer_texts_get_more_epochs_and_smaller_batches(experiment, tokenizer):
    sizes = (60, 1500, 6000, 30_000)
    chosen = [
        adapt.adapt(experiment, make_examples(["a"] * size), tokenizer, 512).train for size in sizes
    ]
    epochs = [train.epochs for train in chosen]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] > epochs[-1]
    assert chosen[0].batch_size < chosen[-1].batch_size


def test_what_is_given_is_not_chosen(tiny_experiment, tokenizer, caplog):
    caplog.set_level("INFO", "jaxclf")
    given = override(tiny_experiment, {"train.epochs": 7})
    assert adapt.adapt(given, make_examples(["a"] * 60), tokenizer, 512) == given
    assert not caplog.records


def test_each_choice_is_said(experiment, tokenizer, caplog):
    caplog.set_level("INFO", "jaxclf")
    chosen = adapt.adapt(experiment, make_examples(["a"] * 60), tokenizer, 512)
    for key, value in (
        ("data.max_length", chosen.data.max_length),
        ("train.batch_size", chosen.train.batch_size),
        ("train.epochs", chosen.train.epochs),
    ):
        assert any(f"{key}={value}" in record.getMessage() for record in caplog.records)


def test_rare_labels_are_named_with_their_count():
    assert "rare (3)" in adapt.describe_rare_labels(make_examples(["a"] * 60))
    assert "frequent" not in adapt.describe_rare_labels(make_examples(["a"] * 60))
    assert adapt.describe_rare_labels(make_examples(["a"] * 60, (30, 40))) == ""


def test_a_run_keeps_what_it_chose(tiny_overrides, tmp_path, monkeypatch):
    """The same command on a later version with other choices resumes with those of the start."""
    monkeypatch.setattr(adapt, "ROW_LENGTHS", (32,))
    monkeypatch.setattr(adapt, "EPOCHS", ((1000, 2),))
    experiment = override(catalog.load("recommended"), {**tiny_overrides, **OPEN})
    train(experiment, tmp_path / "run")
    report = (tmp_path / "run" / "report.json").read_bytes()
    recorded = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert (recorded["data"]["max_length"], recorded["train"]["epochs"]) == (32, 2)
    monkeypatch.setattr(adapt, "EPOCHS", ((1000, 5),))
    train(experiment, tmp_path / "run")
    assert (tmp_path / "run" / "report.json").read_bytes() == report
