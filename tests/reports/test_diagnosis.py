"""Every planted problem is found, with its names and numbers; a healthy run has none."""

import json

import numpy as np
import pytest

from jaxclf.decisions.evaluation import evaluate_split
from jaxclf.files.json_file import write_json
from jaxclf.reports.diagnosis import diagnose
from jaxclf.types import Predictions


def epochs(train_loss, log_loss, score):
    """A history as the loop writes it."""
    rows = zip(train_loss, log_loss, score, strict=True)
    keys = ("epoch", "train_loss", "log_loss", "score")
    return [dict(zip(keys, (index, *row), strict=True)) for index, row in enumerate(rows, 1)]


HEALTHY = epochs([0.6, 0.4, 0.3], [0.5, 0.4, 0.39], [0.5, 0.7, 0.705])
GOOD = {"precision": 0.8, "recall": 0.8, "f1": 0.8, "auc": 0.9, "ap": 0.9, "support": 50.0}
ABSENT = {"precision": 0.0, **dict.fromkeys(("recall", "f1", "auc", "ap"), float("nan"))}


def report(val=(), test=()):
    """Two good labels in both splits, and changes to the second by split."""
    return {
        split: {"labels": {"calm": GOOD, "grief": {**GOOD, **dict(changes)}}}
        for split, changes in (("val", val), ("test", test))
    }


# (training loss, log loss, score) of each epoch -> parts of the only problem, if there is one.
FITS = {
    "healthy": (HEALTHY, ()),
    "no epoch": (HEALTHY[:0], ()),
    "too short for a trend": (HEALTHY[:1], ()),
    "overfitting": (
        epochs([0.6, 0.3, 0.1, 0.05], [0.5, 0.4, 0.5, 0.6], [0.5, 0.7, 0.72, 0.71]),
        ("Overfitting:", "lowest after epoch 2 (0.4000)", "0.6000 after epoch 4",
         "best checkpoint (epoch 3)"),
    ),
    "overfitting with a rising score": (
        epochs([0.6, 0.3, 0.1], [0.5, 0.4, 0.6], [0.5, 0.6, 0.7]), ("Overfitting:",)
    ),
    "a wavering loss": (epochs([0.6, 0.3, 0.1], [0.5, 0.4, 0.404], [0.5, 0.7, 0.705]), ()),
    "underfitting": (
        epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [0.3, 0.4, 0.525]), ("Underfitting:", "0.125")
    ),
    "a higher score before": (epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [0.3, 0.6, 0.4]), ()),
    "a higher first score": (epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [0.6, 0.4, 0.5]), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_the_fit_is_judged_by_the_losses_and_the_score(name):
    history, parts = FITS[name]
    sentences = diagnose(history, report())
    assert len(sentences) == bool(parts)
    assert all(sentences[0].startswith(part) for part in parts[:1])
    assert all(part in sentences[0] for part in parts)


@pytest.mark.parametrize(
    ("split", "scores", "parts"),
    [
        *((split, {**ABSENT, "support": 0.0}, (f"No positive example in {split}: grief.",))
          for split in ("val", "test")),
        *((split, {"support": 19.0}, (f"Too rare in {split}", "grief (19)"))
          for split in ("val", "test")),
        ("val", {"support": 20.0}, ()),
        ("test", {"support": 20.0}, ()),
        ("test", {"recall": 0.29}, ("Very low recall on test: grief (0.29).",)),
        ("test", {"recall": 0.3}, ()),
        ("test", {"auc": 0.69}, ("", "AUC below 0.7", "grief")),
        ("test", {"auc": 0.7}, ()),
        # The AUC of a rare label is not judged.
        ("test", {"auc": 0.1, "support": 9.0}, ("Too rare in test",)),
    ],
)  # fmt: skip
def test_a_label_with_a_problem_is_named_with_its_split_and_value(split, scores, parts):
    sentences = diagnose(HEALTHY, report(**{split: scores}))
    assert len(sentences) == bool(parts)
    assert all(sentences[0].startswith(part) for part in parts[:1])
    assert all(part in sentences[0] for part in parts)
    assert "calm" not in " ".join(sentences)


def test_a_risen_training_loss_is_not_called_fallen():
    history = epochs([0.3, 0.5, 0.9], [0.4, 0.5, 0.9], [0.6, 0.5, 0.4])
    assert "training loss fell" not in " ".join(diagnose(history, report()))


def test_every_label_with_a_problem_is_named_and_the_fit_comes_first():
    history = epochs([0.6, 0.3, 0.1], [0.5, 0.4, 0.6], [0.5, 0.7, 0.69])
    bad = {**GOOD, "recall": 0.1, "auc": 0.6}
    problems = report()
    problems["test"]["labels"] |= {"anger": bad, "fear": bad}
    sentences = diagnose(history, problems)
    assert sentences[0].startswith("Overfitting:")
    assert "anger (0.10), fear (0.10)" in sentences[1]
    assert "anger, fear" in sentences[2]
    assert len(sentences) == 3


def test_a_report_read_from_its_file_has_the_same_problems(tmp_path):
    """NaN is null in the file: an absent label has no F1, one without negatives no AUC."""
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 4)) < [0.0, 1.1, 0.1, 0.5]).astype(np.float32)
    probs = np.clip(labels * 0.6 + rng.random(labels.shape) * 0.4, 0, 1).astype(np.float32)
    names = ("absent", "always", "rare", "good")
    results = {
        split: evaluate_split(Predictions(range(80), probs, labels, split), np.full(4, 0.5), names)
        for split in ("val", "test")
    }
    sentences = diagnose(HEALTHY, results)
    assert len(sentences) == 4
    assert all("always" not in sentence and "good" not in sentence for sentence in sentences)
    write_json(tmp_path / "report.json", results)
    read_back = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert diagnose(HEALTHY, read_back) == sentences
