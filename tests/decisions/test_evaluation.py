"""A run's figures keep the contract of report.json and thresholds.json, and read well as text."""

import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from jaxclf.decisions.calibration import calibrated
from jaxclf.decisions.evaluation import (
    calibrate,
    evaluate_split,
    fit_thresholds,
    intervals_of,
    score_run,
    table,
    threshold_record,
    write_json,
)
from jaxclf.decisions.intervals import bootstrap
from jaxclf.decisions.metrics import aggregate, by_label, expected_calibration_error
from jaxclf.decisions.provenance import make_provenance
from jaxclf.decisions.thresholds import decide, per_label
from jaxclf.experiment.config import Spec
from jaxclf.reports.model_card import card
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


def strict(text: str):
    """JSON as any other program reads it: no NaN, no Infinity."""

    def refuse(name: str):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def read(path):
    return strict(path.read_text(encoding="utf-8"))


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
    for name, value in aggregate(found.labels, found.probs, decided).items():
        np.testing.assert_equal(part[name], value)
    every = bootstrap(found.labels, found.probs, decided)
    np.testing.assert_equal(part["intervals"], intervals_of(every, NAMES))
    assert set(part["intervals"]) == {*every.metrics, "labels"}
    assert part["intervals"]["labels"]["stress"] == every.f1[0].interval
    rows = by_label(found.labels, found.probs, decided, NAMES)
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
    assert read(tmp_path / "thresholds.json") == record
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
    assert f"figure above {honest['optimism']:+.3f}" in table(report["val"], "val")
    assert "optimism" not in table(report["test"], "test")


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
    np.testing.assert_array_equal(after["test"].probs, calibrated(curves, timid))
    # The same probabilities and labels, but curves that did not see the example.
    assert (after["val"].probs != after["test"].probs).any()
    for split in after.values():
        ece = expected_calibration_error(split.labels, split.probs)
        assert ece < 0.5 * expected_calibration_error(labels, timid)


def cells(line: str, width: int) -> list[str]:
    """A row's columns: the name, then support and six figures at fixed places."""
    ends = [width, width + 9, *(width + 9 + 11 * n for n in range(1, 7))]
    assert len(line) == ends[-1], line
    return [line[a:b].strip() for a, b in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize("split", ["val", "test", "a_labelled_file_with_a_very_long_name"])
@pytest.mark.parametrize("names", [NAMES, tuple("abcde")])
def test_a_table_has_a_row_per_label_under_aligned_columns(split, names):
    part = evaluate_split(predictions(), THRESHOLDS, names)
    head, *lines = table(part, split).splitlines()
    width = head.index("support") - 2
    assert width >= len(split)
    assert cells(head, width) == [split, "support", *LABEL_KEYS[:5], "threshold"]
    for name, line in zip(names, lines, strict=False):
        row = part["labels"][name]
        figures = [row[key] for key in (*LABEL_KEYS[:5], "threshold")]
        said = ["n/a" if math.isnan(value) else f"{value:.3f}" for value in figures]
        assert cells(line, width) == [name, f"{row['support']:.0f}", *said]
    assert lines[len(names)] == ""


def test_a_table_ends_with_the_headline():
    part = evaluate_split(predictions(), THRESHOLDS, NAMES)
    below = " ".join(table(part, "test").split("\n\n")[1].split())
    low, high = part["intervals"]["macro_f1"]
    assert f"macro F1 {part['macro_f1']:.3f} (95 % interval {low:.3f} to {high:.3f};" in below
    said = {
        "fixed threshold of 0.5:": "macro_f1_at_half",
        "micro F1": "micro_f1",
        "weighted F1": "weighted_f1",
        "samples F1": "samples_f1",
        "macro AUC": "macro_auc",
        "mAP": "map",
        "all labels of a text right": "subset_accuracy",
        " labels right": "label_accuracy",
        "Hamming loss": "hamming_loss",
        "ECE": "ece",
    }
    for words, name in said.items():
        assert f"{words} {part[name]:.3f}" in below, name


def test_a_table_says_na_of_what_has_no_figure_and_the_file_gives_the_same_table(tmp_path):
    part = evaluate_split(predictions(), THRESHOLDS, NAMES)
    text = table(part, "test")
    rows = {name: line for name in NAMES for line in text.splitlines() if line.startswith(name)}
    # Of an absent label precision and threshold stand, of one never known the threshold alone.
    assert (rows["absent"].count("n/a"), rows["never"].count("n/a")) == (4, 5)
    assert "n/a" not in rows["stress"]
    assert "nan" not in text.lower()
    write_json(tmp_path / "report.json", {"test": part})
    assert table(read(tmp_path / "report.json")["test"], "test") == text


def test_a_table_of_nothing_known_is_na_throughout():
    nothing = predictions()._replace(labels=np.full((60, 5), np.nan, np.float32))
    text = table(evaluate_split(nothing, THRESHOLDS, NAMES), "test")
    assert text.count("n/a") == 5 * 5 + 13
    assert "nan" not in text.lower()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def null(value):
    """The value with None for NaN."""
    if isinstance(value, dict):
        return {key: null(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [null(inner) for inner in value]
    return None if value != value else value


@settings(deadline=None, max_examples=60)
@given(values=VALUES)
def test_what_is_written_is_strict_json_of_the_same_value_with_null_for_nan(
    tmp_path_factory, values
):
    path = tmp_path_factory.mktemp("json") / "values.json"
    write_json(path, values)
    assert read(path) == null(values)


def test_a_report_is_a_plain_readable_file(tmp_path):
    write_json(tmp_path / "report.json", {"é": NAN, "pair": (0.5, np.float64("nan"))})
    text = (tmp_path / "report.json").read_bytes().decode("utf-8")
    assert text == '{\n  "é": null,\n  "pair": [\n    0.5,\n    null\n  ]\n}\n'


def test_a_reader_of_the_old_file_never_sees_half_of_the_new(tmp_path):
    path, seen = tmp_path / "report.json", tmp_path / "seen.json"
    write_json(path, {"old": 1})
    os.link(path, seen)
    write_json(path, {"new": 2})
    assert (read(seen), read(path)) == ({"old": 1}, {"new": 2})
    assert sorted(tmp_path.iterdir()) == [path, seen]


@pytest.mark.parametrize("value", [float("inf"), object()])
def test_what_json_cannot_say_leaves_the_old_file_alone(tmp_path, value):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"new": 2, "then": value})
    assert read(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


SIZES = {"train": 12345, "val": 60, "test": 61}


def test_a_card_says_what_the_model_is_and_shows_its_test_figures():
    report = {
        "val": evaluate_split(predictions(60), THRESHOLDS, NAMES),
        "test": evaluate_split(predictions(61), THRESHOLDS, NAMES),
    }
    means = {NAMES[0]: "it is\nso | or so"}
    text = card("my-run", "minilm", report, "per_label", "platt", SIZES, means)
    assert text.startswith("# my-run\n")
    assert "`minilm`" in text
    assert "train 12,345, val 60, test 61" in text
    assert "`per_label`, fitted on the validation split" in text
    assert f"\n```\n{table(report['test'], 'test')}\n```\n" in text
    assert "calibrated (`platt`)" in text
    assert f"\n| `{NAMES[0]}` | it is so \\| or so |\n" in text
    assert all(f"\n| `{name}` | not written down" in text for name in NAMES[1:])
    assert 'jaxclf.load("' in text
    assert "A person decides" in text
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_card_does_not_claim_that_a_fixed_threshold_was_fitted():
    report = {"test": evaluate_split(predictions(), np.full(5, 0.5), NAMES)}
    assert "fitted on the validation" not in card(
        "my-run", "minilm", report, "fixed", "none", SIZES, {}
    )
