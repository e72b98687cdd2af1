"""Planted wrong labels are listed first; the CSV file has texts only on request."""

import csv

import numpy as np
import pytest
from goemotions_like import draw
from label_tables import DEGENERATE, NAN, column

from jaxclf.decisions.label_issues import (
    confident_labels,
    label_issues,
    label_noise,
    write_label_issues,
)
from jaxclf.types import Predictions

# The issues are rows 2 and 5: the mean probability is 0.6 of positives, 1/3 of negatives.
LABELS = column(1, 1, 1, 0, 0, 0)
PROBS = column(0.9, 0.8, 0.1, 0.2, 0.1, 0.7)


def test_issues_and_noise_by_hand():
    labels, probs = np.append(LABELS, [[NAN]], 0), np.append(PROBS, column(0.9), 0)
    confident = confident_labels(labels, probs)[:, 0]
    np.testing.assert_array_equal(confident, [1, 1, 0, 0, 0, 1, 1])
    assert list(zip(*label_issues(labels, probs), strict=True)) == [(2, 0), (5, 0)]
    (noise,) = label_noise(labels, probs)
    assert (noise.positives, noise.negatives) == (3, 3)
    assert (noise.suspect_positives, noise.suspect_negatives) == (1, 1)
    assert noise.share_of_positives == noise.share_of_negatives == pytest.approx(1 / 3)


def test_if_both_values_are_confident_the_likelier_is_suggested():
    labels, probs = column(1, 1, 0, 0), column(0.1, 0.4, 0.9, 0.8)  # worse than chance
    # The means are 0.25 and 0.15: most examples are above both.
    np.testing.assert_array_equal(confident_labels(labels, probs)[:, 0], [0, 0, 1, 1])


def test_planted_errors_are_listed_first():
    labels, probs = draw(0)
    is_wrong = np.random.default_rng(1).random(labels.shape) < 0.01
    annotated = np.where(is_wrong, 1 - labels, labels)
    rows, columns = label_issues(annotated, probs)
    assert is_wrong[rows[:500], columns[:500]].mean() > 0.9
    likelihood = np.where(annotated == 1, probs, 1 - probs)[rows, columns]
    assert (np.diff(likelihood) >= 0).all()


def test_the_estimated_share_grows_with_the_planted_one():
    labels, probs = draw(0)
    rng = np.random.default_rng(1)
    shares = []
    for rate in (0.0, 0.01, 0.05):
        annotated = np.maximum(labels, rng.random(labels.shape) < rate)
        shares.append([noise.share_of_positives for noise in label_noise(annotated, probs)])
    assert (np.diff(shares, axis=0) > 0).mean(axis=1).min() > 0.9


@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_tables_have_no_issues(kind):
    assert len(label_issues(*DEGENERATE[kind])[0]) == 0
    assert np.isnan([noise.share_of_positives for noise in label_noise(*DEGENERATE[kind])]).all()


def test_unknown_labels_are_ignored():
    labels, probs = draw(3)
    unknown, known = labels.copy(), np.arange(len(labels)) % 7 > 0
    unknown[~known] = NAN
    rows, columns = label_issues(labels[known], probs[known])
    unknown_rows, unknown_columns = label_issues(unknown, probs)
    np.testing.assert_array_equal(unknown_rows, np.flatnonzero(known)[rows])
    np.testing.assert_array_equal(unknown_columns, columns)


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_has_texts_only_on_request(tmp_path):
    predictions = Predictions(np.array(list("abcdef")), PROBS, LABELS, "held_out")
    path = tmp_path / "audit.csv"
    assert write_label_issues(path, predictions, ("x",)) == 2
    rows = read_rows(path)
    assert rows[0] == {
        "id": "c", "label": "x", "given_label": "1", "suggested_label": "0",
        "probability": "0.1000",
    }  # fmt: skip
    texts = {name: f'"{name}",\n' for name in "abcdef"}
    write_label_issues(path, predictions, ("x",), texts)
    rows = read_rows(path)
    assert [row["text"] for row in rows] == [texts["c"], texts["f"]]
    assert list(tmp_path.iterdir()) == [path]
