"""Planted wrong labels are found first; the file for review holds no text unasked."""

import csv
import math

import numpy as np
import pytest
from goemotions_like import draw

from jaxclf.decisions.label_issues import (
    confident_labels,
    label_issues,
    label_noise,
    write_label_issues,
)
from jaxclf.types import Predictions

NAN = float("nan")


def test_a_table_one_can_check_by_eye():
    labels = np.array([[1], [1], [1], [0], [0], [0], [NAN]], np.float32)
    probs = np.array([[0.9], [0.8], [0.1], [0.2], [0.1], [0.7], [0.9]], np.float32)
    # Means: 0.6 of the positives' probabilities, 1 - 1/3 of the negatives' complements.
    sure = confident_labels(labels, probs)[:, 0]
    np.testing.assert_array_equal(sure, [1, 1, 0, 0, 0, 1, 1])
    found = label_issues(labels, probs)
    assert list(zip(*found, strict=True)) == [(2, 0), (5, 0)]  # believed 0.1 and 0.3
    (one,) = label_noise(labels, probs)
    assert (one.positives, one.negatives, one.suspect_positives, one.suspect_negatives) == (
        3,
        3,
        1,
        1,
    )
    assert one.share_of_positives == one.share_of_negatives == pytest.approx(1 / 3)


def test_confident_of_both_values_goes_to_the_likelier():
    labels = np.array([[1], [1], [0], [0]], np.float32)
    probs = np.array([[0.1], [0.4], [0.9], [0.8]], np.float32)  # worse than chance
    # Means: 0.25 and 0.15, so that everything but the extremes is above both.
    np.testing.assert_array_equal(confident_labels(labels, probs)[:, 0], [0, 0, 1, 1])


def test_planted_faults_are_found_first():
    """One label in a hundred is turned round: of the 500 least believed nine in ten are."""
    labels, probs = draw(0)
    turned = np.random.default_rng(1).random(labels.shape) < 0.01
    given = np.where(turned, 1 - labels, labels)
    rows, columns = label_issues(given, probs)
    assert turned[rows[:500], columns[:500]].mean() > 0.9
    belief = np.where(given == 1, probs, 1 - probs)[rows, columns]
    assert (np.diff(belief) >= 0).all()


def test_the_estimated_share_grows_with_the_planted_one():
    """Of a rare label's positives most are wrong once one negative in a hundred is turned round."""
    labels, probs = draw(0)
    rng = np.random.default_rng(1)
    shares = []
    for rate in (0.0, 0.01, 0.05):
        given = np.maximum(labels, rng.random(labels.shape) < rate)
        shares.append([one.share_of_positives for one in label_noise(given, probs)])
    clean, some, much = np.array(shares)
    assert (clean < some).mean() > 0.9
    assert (some < much).mean() > 0.9


@pytest.mark.parametrize(
    ("labels", "probs"),
    [
        (np.zeros((5, 2)), np.full((5, 2), 0.3)),
        (np.ones((5, 2)), np.full((5, 2), 0.3)),
        (np.full((5, 2), NAN), np.full((5, 2), 0.3)),
        (np.eye(5)[:, :2], np.full((5, 2), 0.3)),
        (np.ones((1, 2)), np.zeros((1, 2))),
        (np.zeros((0, 2)), np.zeros((0, 2))),
    ],
    ids=["no positives", "only positives", "nothing known", "constant", "one row", "no row"],
)
def test_where_nothing_can_be_said_nothing_is(labels, probs):
    labels, probs = labels.astype(np.float32), probs.astype(np.float32)
    assert len(label_issues(labels, probs).rows) == 0
    found = label_noise(labels, probs)
    assert all(math.isnan(one.share_of_positives) for one in found)


def test_an_unknown_label_is_never_suspect_and_changes_nothing():
    labels, probs = draw(3)
    unknown, known = labels.copy(), np.arange(len(labels)) % 7 > 0
    unknown[~known] = NAN
    inside, columns = label_issues(labels[known], probs[known])
    found = label_issues(unknown, probs)
    np.testing.assert_array_equal(found.rows, np.flatnonzero(known)[inside])
    np.testing.assert_array_equal(found.columns, columns)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_has_texts_only_where_they_are_given(tmp_path):
    labels = np.array([[1], [1], [1], [0], [0], [0]], np.float32)
    probs = np.array([[0.9], [0.8], [0.1], [0.2], [0.1], [0.7]], np.float32)
    ids = np.array(["a", "b", "c", "d", "e", "f"])
    found = Predictions(ids, probs, labels, "held_out")
    path = tmp_path / "audit.csv"
    assert write_label_issues(path, found, ("x",)) == 2
    rows = rows_of(path)
    assert rows[0] == {
        "id": "c", "label": "x", "given_label": "1", "suggested_label": "0",
        "probability": "0.1000",
    }  # fmt: skip
    texts = {name: f'"{name}",\n' for name in ids}
    write_label_issues(path, found, ("x",), texts)
    rows = rows_of(path)
    assert [row["text"] for row in rows] == [texts["c"], texts["f"]]
    assert list(tmp_path.iterdir()) == [path]
