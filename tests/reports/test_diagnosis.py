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


def test_a_healthy_run_has_no_problem():
    assert diagnose(HEALTHY, report()) == []


@pytest.mark.parametrize("length", [0, 1])
def test_a_run_too_short_for_a_trend_has_no_problem(length):
    assert diagnose(HEALTHY[:length], report()) == []


def test_overfitting_names_the_lowest_loss_the_last_and_the_best_checkpoint():
    history = epochs([0.6, 0.3, 0.1, 0.05], [0.5, 0.4, 0.5, 0.6], [0.5, 0.7, 0.72, 0.71])
    (sentence,) = diagnose(history, report())
    assert sentence.startswith("Overfitting:")
    assert "lowest after epoch 2 (0.4000)" in sentence
    assert "0.6000 after epoch 4" in sentence
    assert "best checkpoint (epoch 3)" in sentence


def test_overfitting_that_still_raises_the_score_is_not_called_underfitting():
    history = epochs([0.6, 0.3, 0.1], [0.5, 0.4, 0.6], [0.5, 0.6, 0.7])
    assert [sentence.split(":")[0] for sentence in diagnose(history, report())] == ["Overfitting"]


def test_a_loss_that_wavers_is_not_overfitting():
    history = epochs([0.6, 0.3, 0.1], [0.5, 0.4, 0.404], [0.5, 0.7, 0.705])
    assert diagnose(history, report()) == []


def test_a_risen_training_loss_is_not_called_fallen():
    history = epochs([0.3, 0.5, 0.9], [0.4, 0.5, 0.9], [0.6, 0.5, 0.4])
    assert "training loss fell" not in " ".join(diagnose(history, report()))


def test_underfitting_names_the_last_rise():
    history = epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], [0.3, 0.4, 0.525])
    (sentence,) = diagnose(history, report())
    assert sentence.startswith("Underfitting:")
    assert "0.125" in sentence


@pytest.mark.parametrize("scores", [[0.3, 0.6, 0.4], [0.6, 0.4, 0.5]])
def test_a_score_that_was_higher_before_is_not_underfitting(scores):
    history = epochs([0.6, 0.5, 0.4], [0.6, 0.5, 0.4], scores)
    assert diagnose(history, report()) == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_absent_label_is_named_with_its_split(split):
    (sentence,) = diagnose(HEALTHY, report(**{split: {**ABSENT, "support": 0.0}}))
    assert sentence.startswith(f"No positive example in {split}: grief.")
    assert "calm" not in sentence


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_rare_label_is_named_with_its_split_and_count(split):
    (sentence,) = diagnose(HEALTHY, report(**{split: {"support": 19.0}}))
    assert sentence.startswith(f"Too rare in {split}")
    assert "grief (19)" in sentence
    assert "calm" not in sentence
    assert diagnose(HEALTHY, report(**{split: {"support": 20.0}})) == []


def test_low_recall_on_test_is_named_with_its_value():
    (sentence,) = diagnose(HEALTHY, report(test={"recall": 0.29}))
    assert sentence.startswith("Very low recall on test: grief (0.29).")
    assert diagnose(HEALTHY, report(test={"recall": 0.3})) == []


def test_a_poorly_separated_label_is_named():
    (sentence,) = diagnose(HEALTHY, report(test={"auc": 0.69}))
    assert "AUC below 0.7" in sentence
    assert "grief" in sentence
    assert diagnose(HEALTHY, report(test={"auc": 0.7})) == []
    # The AUC of a rare label is not judged.
    assert all(
        "AUC" not in sentence
        for sentence in diagnose(HEALTHY, report(test={"auc": 0.1, "support": 9.0}))
    )


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
