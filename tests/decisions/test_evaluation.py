"""A run's figures keep the contract of report.json and thresholds.json, and read well as text."""

import numpy as np
import pytest
from scipy.special import expit, logit

from jaxclf.decisions.calibration import apply_calibration
from jaxclf.decisions.evaluation import (
    calibrate,
    evaluate_split,
    fit_thresholds,
    intervals_record,
    score_run,
    threshold_record,
)
from jaxclf.decisions.intervals import bootstrap
from jaxclf.decisions.metrics import (
    compute_label_metrics,
    compute_metrics,
    expected_calibration_error,
)
from jaxclf.decisions.provenance import make_provenance
from jaxclf.decisions.thresholds import decide, per_label
from jaxclf.experiment.config import Spec
from jaxclf.files.json_file import read_json, write_json
from jaxclf.types import Predictions

# As DESIGN.md has it.
SPLIT_KEYS = {
    *("macro_f1", "micro_f1", "weighted_f1", "samples_f1", "subset_accuracy", "label_accuracy"),
    *("hamming_loss", "macro_auc", "map", "ece", "intervals", "labels"),
}
LABEL_KEYS = ("precision", "recall", "f1", "auc", "ap", "support", "threshold")

NAMES = ("stress", "a label with a long name", "joie", "absent", "never")
NAN = float("nan")


def predictions(rows: int = 60) -> Predictions:
    """Three labels of some skill, one without positives and one without known rows."""
    rng = np.random.default_rng(rows)
    labels = (rng.random((rows, 5)) < [0.5, 0.3, 0.2, 0.0, 0.5]).astype(np.float32)
    probs = np.clip(0.4 * labels + 0.6 * rng.random(labels.shape), 0, 1).astype(np.float32)
    labels[:, 4] = np.nan
    return Predictions(np.array([str(row) for row in range(rows)]), probs, labels, "test")


THRESHOLDS = np.array([0.5, 0.4, 0.6, 0.5, 0.5])


def test_a_split_has_every_key_of_the_contract():
    part = evaluate_split(predictions(), THRESHOLDS, NAMES)
    assert set(part) >= SPLIT_KEYS
    assert set(part["intervals"]) >= {"macro_f1", "micro_f1"}
    assert tuple(part["labels"]) == NAMES
    for row in part["labels"].values():
        assert set(row) >= set(LABEL_KEYS)


def test_a_splits_figures_are_those_of_the_decisions_under_its_thresholds():
    found = predictions()
    part = evaluate_split(found, THRESHOLDS, NAMES)
    decided = decide(found.probs, THRESHOLDS)
    for name, value in compute_metrics(found.labels, found.probs, decided).items():
        np.testing.assert_equal(part[name], value)
    every = bootstrap(found.labels, found.probs, decided)
    np.testing.assert_equal(part["intervals"], intervals_record(every, NAMES))
    assert set(part["intervals"]) == {*every.metrics, "labels"}
    assert part["intervals"]["labels"]["stress"] == every.f1[0].interval
    rows = compute_label_metrics(found.labels, found.probs, decided, NAMES)
    for name, threshold in zip(NAMES, THRESHOLDS, strict=True):
        np.testing.assert_equal(part["labels"][name], {**rows[name], "threshold": threshold})


def test_macro_f1_at_half_is_the_macro_f1_of_thresholds_of_a_half():
    found = predictions()
    half = evaluate_split(found, np.full(5, 0.5), NAMES)
    assert half["macro_f1_at_half"] == half["macro_f1"]
    other = evaluate_split(found, np.full(5, 0.9), NAMES)
    assert other["macro_f1_at_half"] == half["macro_f1"] != other["macro_f1"]


def test_thresholds_are_fitted_by_the_named_rule_with_its_options():
    found = predictions()
    fitted = fit_thresholds(found, Spec("per_label"), NAMES)
    np.testing.assert_array_equal(fitted, per_label(found.labels, found.probs))
    assert fit_thresholds(found, Spec("fixed", value=0.3), NAMES).tolist() == [0.3] * 5
    only = fit_thresholds(found, Spec("recall_at", target=0.5, labels=(NAMES[0],)), NAMES)
    assert only[0] != fitted[0]
    np.testing.assert_array_equal(only[1:], fitted[1:])


def test_a_threshold_record_says_value_interval_split_and_rule_of_every_label(tmp_path):
    values, ends = np.array([0.1, 1 / 3]), np.array([[0.05, 0.2], [0.3, 0.4]])
    record = threshold_record(values, ends, Spec("per_label"), "val", ("stress", "joie"))
    assert record == {
        "stress": {"value": 0.1, "interval": [0.05, 0.2], "split": "val", "rule": "per_label"},
        "joie": {"value": 1 / 3, "interval": [0.3, 0.4], "split": "val", "rule": "per_label"},
    }
    # Through the file and back every bit is there, or a decision at the threshold could flip.
    write_json(tmp_path / "thresholds.json", record)
    assert read_json(tmp_path / "thresholds.json") == record
    # A rule's options stand beside its name.
    rule = Spec("a_rule", least=0.05)
    other = threshold_record(values[:1], ends[:1], rule, "val", ("stress",))
    assert other["stress"]["least"] == 0.05


@pytest.mark.parametrize("count", [1, 3])
def test_a_threshold_too_many_or_too_few_is_refused(count):
    values, ends = np.full(count, 0.5), np.full((count, 2), 0.5)
    with pytest.raises(ValueError, match="zip"):
        threshold_record(values, ends, Spec("fixed"), "val", ("stress", "joie"))


LEDGER = make_provenance({}, {"average": "best", "calibration": "none", "threshold": "per_label"})


def test_a_run_is_scored_with_thresholds_of_val_and_val_is_said_to_flatter():
    found = {"val": predictions(60), "test": predictions(61)}
    report, record = score_run(found, Spec("per_label"), NAMES, LEDGER)
    thresholds = per_label(found["val"].labels, found["val"].probs)
    assert [record[name]["value"] for name in NAMES] == thresholds.tolist()
    expected = evaluate_split(found["test"], thresholds, NAMES)
    np.testing.assert_equal({key: report["test"][key] for key in expected}, expected)
    assert report["test"]["fitted"] == []
    assert report["val"]["fitted"] == ["the choice of the epoch", "the thresholds (per_label)"]
    honest = report["val"]["crossfit"]["macro_f1"]
    assert honest["score"] + honest["optimism"] == pytest.approx(report["val"]["macro_f1"])


def test_calibration_changes_what_is_said_and_val_is_out_of_fold():
    rng = np.random.default_rng(0)
    truth = rng.beta(1, 3, (400, 2))
    labels = (rng.random(truth.shape) < truth).astype(np.float32)
    timid = expit(0.4 * logit(truth)).astype(np.float32)
    found = {
        split: Predictions(np.arange(400).astype(str), timid, labels, split)
        for split in ("val", "test")
    }
    same, nothing = calibrate(found, Spec("none"))
    assert nothing.kind == "none"
    np.testing.assert_array_equal(same["test"].probs, timid)
    after, curves = calibrate(found, Spec("platt"))
    np.testing.assert_array_equal(after["test"].probs, apply_calibration(curves, timid))
    # The same probabilities and labels, but curves that did not see the example.
    assert (after["val"].probs != after["test"].probs).any()
    for split in after.values():
        ece = expected_calibration_error(split.labels, split.probs)
        assert ece < 0.5 * expected_calibration_error(labels, timid)
