"""The scores of a run keep the keys of report.json and thresholds.json."""

import numpy as np
import pytest
from scipy.special import expit, logit

from jaxclf.decisions.calibration import apply_calibration
from jaxclf.decisions.evaluation import (
    calibrate,
    decide_crossfit,
    evaluate_split,
    intervals_record,
    make_rule,
    score_decisions,
    score_run,
    threshold_record,
)
from jaxclf.decisions.intervals import bootstrap
from jaxclf.decisions.metrics import (
    METRICS,
    compute_label_metrics,
    compute_metrics,
    expected_calibration_error,
)
from jaxclf.decisions.provenance import make_provenance
from jaxclf.decisions.thresholds import decide, per_label
from jaxclf.experiment.config import Spec
from jaxclf.files.json_file import read_json, write_json
from jaxclf.types import Predictions

# Keys that readers of report.json depend on.
SPLIT_KEYS = {
    *("macro_f1", "micro_f1", "weighted_f1", "samples_f1", "subset_accuracy", "label_accuracy"),
    *("hamming_loss", "macro_auc", "map", "ece", "intervals", "labels"),
}
LABEL_KEYS = {"precision", "recall", "f1", "auc", "ap", "support", "threshold"}

NAMES = ("stress", "a label with a long name", "joie", "absent", "never")


def predictions(rows: int = 60) -> Predictions:
    """Three predictable labels, a label without positives and a label without known rows."""
    rng = np.random.default_rng(rows)
    labels = (rng.random((rows, 5)) < [0.5, 0.3, 0.2, 0.0, 0.5]).astype(np.float32)
    probs = np.clip(0.4 * labels + 0.6 * rng.random(labels.shape), 0, 1).astype(np.float32)
    labels[:, 4] = np.nan
    return Predictions(np.array([str(row) for row in range(rows)]), probs, labels, "test")


THRESHOLDS = np.array([0.5, 0.4, 0.6, 0.5, 0.5])


def test_a_split_has_every_documented_key():
    part = evaluate_split(predictions(), THRESHOLDS, NAMES)
    assert set(part) >= SPLIT_KEYS
    assert set(part["intervals"]) >= {"macro_f1", "micro_f1"}
    assert tuple(part["labels"]) == NAMES
    assert part["labels_in_macro"] == 3  # one label has no positive, one is unknown
    for row in part["labels"].values():
        assert set(row) >= LABEL_KEYS


def test_a_split_is_scored_with_its_thresholds():
    split = predictions()
    part = evaluate_split(split, THRESHOLDS, NAMES)
    table = split.labels, split.probs, decide(split.probs, THRESHOLDS)
    for name, value in compute_metrics(*table).items():
        np.testing.assert_equal(part[name], value)
    resampled = bootstrap(*table)
    np.testing.assert_equal(part["intervals"], intervals_record(resampled, NAMES))
    assert set(part["intervals"]) == {*resampled.metrics, "labels"}
    assert part["intervals"]["labels"]["stress"] == resampled.f1[0].interval
    rows = compute_label_metrics(*table, NAMES)
    for name, threshold in zip(NAMES, THRESHOLDS, strict=True):
        np.testing.assert_equal(part["labels"][name], {**rows[name], "threshold": threshold})


def test_macro_f1_at_half_is_the_macro_f1_with_all_thresholds_0_5():
    half, high = (evaluate_split(predictions(), np.full(5, value), NAMES) for value in (0.5, 0.9))
    assert half["macro_f1_at_half"] == half["macro_f1"]
    assert high["macro_f1_at_half"] == half["macro_f1"] != high["macro_f1"]


def test_thresholds_are_fitted_by_the_named_rule_with_its_options():
    split = predictions()
    table = split.labels, split.probs
    fitted = make_rule(Spec("per_label"), NAMES)(*table)
    np.testing.assert_array_equal(fitted, per_label(*table))
    assert make_rule(Spec("fixed", value=0.3), NAMES)(*table).tolist() == [0.3] * 5
    targeted = make_rule(Spec("recall_at", target=0.5, labels=(NAMES[0],)), NAMES)(*table)
    assert targeted[0] != fitted[0]
    np.testing.assert_array_equal(targeted[1:], fitted[1:])


def test_a_threshold_record_has_value_interval_split_and_rule_of_every_label(tmp_path):
    values, ends = np.array([0.1, 1 / 3]), np.array([[0.05, 0.2], [0.3, 0.4]])
    record = threshold_record(values, ends, Spec("per_label"), "val", ("stress", "joie"))
    assert record == {
        "stress": {"value": 0.1, "interval": [0.05, 0.2], "split": "val", "rule": "per_label"},
        "joie": {"value": 1 / 3, "interval": [0.3, 0.4], "split": "val", "rule": "per_label"},
    }
    # Every bit is kept in the file: otherwise a decision at the threshold could change.
    write_json(tmp_path / "thresholds.json", record)
    assert read_json(tmp_path / "thresholds.json") == record
    # The options of a rule are beside its name.
    with_option = threshold_record(
        values, ends, Spec("rule", least=0.05), "val", ("stress", "joie")
    )
    assert with_option["stress"]["least"] == 0.05


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_thresholds_must_match(count):
    values, ends = np.full(count, 0.5), np.full((count, 2), 0.5)
    with pytest.raises(ValueError, match="zip"):
        threshold_record(values, ends, Spec("fixed"), "val", ("stress", "joie"))


PROVENANCE = make_provenance(
    {}, {"average": "best", "calibration": "none", "threshold": "per_label"}
)


def test_a_run_is_scored_with_thresholds_of_val_and_the_report_names_the_fitted_parts():
    splits = {"val": predictions(60), "test": predictions(61)}
    report, record = score_run(splits, Spec("per_label"), NAMES, PROVENANCE)
    thresholds = per_label(splits["val"].labels, splits["val"].probs)
    assert [record[name]["value"] for name in NAMES] == thresholds.tolist()
    expected = evaluate_split(splits["test"], thresholds, NAMES)
    np.testing.assert_equal({key: report["test"][key] for key in expected}, expected)
    assert report["test"]["fitted"] == []
    assert report["val"]["fitted"] == ["the choice of the epoch", "the thresholds (per_label)"]
    val = splits["val"]
    decided = decide_crossfit(val.labels, val.probs, make_rule(Spec("per_label"), NAMES))
    honest = score_decisions(val, decided, thresholds, NAMES)
    np.testing.assert_equal({key: report["val"][key] for key in honest}, honest)
    in_sample = compute_metrics(val.labels, val.probs, decide(val.probs, thresholds))
    assert set(report["val"]["crossfit"]) == set(METRICS)
    for name, row in report["val"]["crossfit"].items():
        assert row["in_sample"] == in_sample[name]
        assert row["optimism"] == in_sample[name] - report["val"][name]
    assert report["val"]["crossfit"]["macro_f1"]["optimism"] > 0
    assert report["val"]["crossfit"]["map"]["optimism"] == 0


def test_calibration_of_val_is_out_of_fold():
    rng = np.random.default_rng(0)
    truth = rng.beta(1, 3, (400, 2))
    labels = (rng.random(truth.shape) < truth).astype(np.float32)
    underconfident = expit(0.4 * logit(truth)).astype(np.float32)
    splits = {
        split: Predictions(np.arange(400).astype(str), underconfident, labels, split)
        for split in ("val", "test")
    }
    unchanged, none = calibrate(splits, Spec("none"))
    assert none.kind == "none"
    np.testing.assert_array_equal(unchanged["test"].probs, underconfident)
    after, curves = calibrate(splits, Spec("platt"))
    np.testing.assert_array_equal(after["test"].probs, apply_calibration(curves, underconfident))
    # Both splits are equal, but the curves of val did not see the example.
    assert (after["val"].probs != after["test"].probs).any()
    for split in after.values():
        ece = expected_calibration_error(split.labels, split.probs)
        assert ece < 0.5 * expected_calibration_error(labels, underconfident)
