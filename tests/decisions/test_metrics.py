"""Metrics equal their definitions on the known labels; undefined metrics are NaN.

scikit-learn returns 0 or `zero_division` for an undefined metric. jaxclf returns NaN: precision
without predicted positives; recall, F1, AUC and AP without positives (macro means leave the label
out); AUC without negatives. Two empty sets of labels are equal: their samples F1 is 1.
"""

import numpy as np
import pytest
from counting import count, f1_per_label
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_tables import DEGENERATE, NAN, random_table, tables
from sklearn import metrics as sklearn

from jaxclf.decisions import ranking
from jaxclf.decisions.metrics import (
    METRICS,
    auc,
    average_precision,
    compute_label_metrics,
    compute_metrics,
    constant_metrics,
    expected_calibration_error,
    log_loss,
    score_labels,
)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float64)[:, None]


def assert_same(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12, equal_nan=True)


@st.composite
def decided_tables(draw, **options):
    """(labels, probs, decided)."""
    labels, probs = draw(tables(**options))
    return labels, probs, draw(arrays(np.bool_, labels.shape))


def score_columns(score, labels, probs) -> list[float]:
    """score(positives, negatives) of every label, from the probabilities of its known examples."""
    return [
        score(p[y == 1].astype(np.float64), p[y == 0].astype(np.float64))
        for y, p in zip(labels.T, probs.T, strict=True)
    ]


def pairwise_auc(positives, negatives) -> float:
    """Share of pairs in which the positive has the higher probability; ties count half."""
    if not len(positives) or not len(negatives):
        return NAN
    difference = positives[:, None] - negatives
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def stepwise_ap(positives, negatives) -> float:
    """Mean over positives of the precision at their probability."""
    if not len(positives):
        return NAN
    hits = np.array([np.sum(positives >= p) for p in positives])
    false_alarms = np.array([np.sum(negatives >= p) for p in positives])
    return float(np.mean(hits / (hits + false_alarms)))


def check_labels(labels, probs, decided) -> None:
    tp, fp, fn, _ = count(labels, decided)
    scores = score_labels(labels, decided)
    with np.errstate(invalid="ignore"):
        assert_same(scores.precision, tp / (tp + fp))
        assert_same(scores.recall, tp / (tp + fn))
    assert_same(scores.f1, f1_per_label(labels, decided))
    assert_same(scores.support, tp + fn)
    assert_same(auc(labels, probs), score_columns(pairwise_auc, labels, probs))
    expected = score_columns(stepwise_ap, labels, probs)
    assert_same(average_precision(labels, probs), expected)
    known = ~np.isnan(labels.T)
    columns = zip(labels.T, probs.T, known, strict=True)
    assert_same([ranking.average_precision(y[k] == 1, p[k]) for y, p, k in columns], expected)


def mean(values) -> float:
    values = np.asarray(values, np.float64)
    return float(values[~np.isnan(values)].mean()) if (~np.isnan(values)).any() else NAN


def check_metrics(labels, probs, decided) -> None:
    scores, known = compute_metrics(labels, probs, decided), ~np.isnan(labels)
    tp, fp, fn, _ = count(labels, decided)
    f1, support = f1_per_label(labels, decided), tp + fn
    assert_same(scores["macro_f1"], mean(f1))
    weighted = (f1 * support)[support > 0].sum() / support.sum() if support.any() else NAN
    assert_same(scores["weighted_f1"], weighted)
    assert_same(scores["macro_auc"], mean(score_columns(pairwise_auc, labels, probs)))
    assert_same(scores["map"], mean(score_columns(stepwise_ap, labels, probs)))
    examples = [
        (y[k] == 1, d[k]) for y, d, k in zip(labels, decided, known, strict=True) if k.any()
    ]
    if not examples:
        assert all(np.isnan(value) for value in scores.values())
        return
    cells = tp.sum() + fp.sum() + fn.sum()
    assert_same(scores["micro_f1"], 2 * tp.sum() / (cells + tp.sum()) if cells else NAN)
    sizes = [(np.sum(y & d), np.sum(y) + np.sum(d)) for y, d in examples]
    assert_same(scores["samples_f1"], np.mean([2 * a / b if b else 1 for a, b in sizes]))
    assert_same(scores["subset_accuracy"], np.mean([(y == d).all() for y, d in examples]))
    wrong = (fp.sum() + fn.sum()) / known.sum()
    assert_same(scores["hamming_loss"], wrong)
    assert_same(scores["label_accuracy"], 1 - wrong)
    clipped = np.clip(probs[known].astype(np.float64), 1e-7, 1 - 1e-7)
    likelihood = np.where(labels[known] == 1, clipped, 1 - clipped)
    assert_same(scores["log_loss"], -np.mean(np.log(likelihood)))


@settings(deadline=None, max_examples=60)
@given(decided_tables())
def test_metrics_of_small_tables_equal_the_definitions(table):
    check_labels(*table)
    check_metrics(*table)


def constant_decision(kind, decision):
    labels, probs = DEGENERATE[kind]
    return labels, probs, np.full(labels.shape, bool(decision))


TABLES = {
    **{f"unknown {share}": random_table(0, 200, share) for share in (0.0, 0.3)},
    **{
        f"{kind} {value}": constant_decision(kind, value) for kind in DEGENERATE for value in (0, 1)
    },
}


@pytest.mark.parametrize("kind", TABLES)
def test_metrics_of_large_and_degenerate_tables_equal_the_definitions(kind):
    check_labels(*TABLES[kind])
    check_metrics(*TABLES[kind])


@settings(deadline=None, max_examples=40)
@given(decided_tables(values=(0.0, 1.0), min_classes=2))
def test_without_unknown_labels_metrics_equal_scikit_learn(table):
    labels, probs, decided = table
    scores = compute_metrics(labels, probs, decided)
    y = labels.astype(int)

    def f1(average, undefined):
        return sklearn.f1_score(y, decided, average=average, zero_division=undefined)

    assert_same(scores["micro_f1"], f1("micro", np.nan))
    assert_same(scores["samples_f1"], f1("samples", 1.0))
    assert_same(scores["subset_accuracy"], sklearn.accuracy_score(y, decided))
    assert_same(scores["hamming_loss"], sklearn.hamming_loss(y, decided))
    if y.any():
        assert_same(scores["weighted_f1"], f1("weighted", 0.0))
    if y.any(axis=0).all():
        assert_same(scores["macro_f1"], f1("macro", 0.0))
        assert_same(scores["map"], sklearn.average_precision_score(y, probs, average="macro"))
    if y.any(axis=0).all() and not y.all(axis=0).any():
        assert_same(scores["macro_auc"], sklearn.roc_auc_score(y, probs, average="macro"))


@settings(deadline=None, max_examples=30)
@given(decided_tables(), st.data())
def test_unknown_labels_and_the_order_do_not_matter(table, data):
    labels, probs, decided = table
    scores = compute_metrics(labels, probs, decided)
    unknown = np.isnan(labels)
    changed_probs = np.where(unknown, data.draw(st.floats(0, 1, width=32)), probs)
    np.testing.assert_equal(
        compute_metrics(labels, changed_probs.astype(np.float32), decided ^ unknown), scores
    )
    row = (1, labels.shape[1])
    longer = compute_metrics(
        np.concatenate([labels, np.full(row, np.nan, np.float32)]),
        np.concatenate([probs, np.full(row, 0.7, np.float32)]),
        np.concatenate([decided, np.full(row, data.draw(st.booleans()))]),
    )
    order = list(data.draw(st.permutations(range(len(labels)))))
    permuted = compute_metrics(labels[order], probs[order], decided[order])
    for name, value in scores.items():
        assert_same([longer[name], permuted[name]], [value, value])


@settings(deadline=None, max_examples=60)
@given(tables(values=(0.0, 1.0)))
def test_cumulative_counts_equal_the_counts_at_every_threshold(table):
    is_positive, probs = table[0][:, 0] == 1, table[1][:, 0]
    scores, tp, predicted = ranking.cumulative_counts(is_positive, probs)
    assert scores.tolist() == sorted(set(probs.tolist()), reverse=True)
    assert tp.tolist() == [int(is_positive[probs >= score].sum()) for score in scores]
    assert predicted.tolist() == [int((probs >= score).sum()) for score in scores]


def test_ece_by_hand():
    # Bin 2: probability 0.1, frequency 1/3, three of four labels. Bin 14: 0.9 and 1.
    labels, probs = column(0, 0, 1, 1), column(0.1, 0.1, 0.1, 0.9)
    expected = 3 / 4 * (1 / 3 - 0.1) + 1 / 4 * (1 - 0.9)
    assert_same(expected_calibration_error(labels, probs), expected)
    # Bins contain all labels together.
    assert_same(expected_calibration_error(labels.reshape(2, 2), probs.reshape(2, 2)), 0.2)
    # Errors cancel within a bin, but not between bins.
    assert_same(expected_calibration_error(column(1, 0), column(0.2, 0.8)), 0.8)
    assert_same(expected_calibration_error(column(1, 0), column(0.5, 0.5)), 0)
    # The last of 15 bins starts between 0.93 and 0.935 and includes 1.
    assert_same(expected_calibration_error(column(1, 0), column(0.95, 1.0)), 0.475)
    assert_same(expected_calibration_error(column(1, 0), column(0.93, 0.935)), (0.07 + 0.935) / 2)
    # Unknown labels are left out.
    labels, probs = column(0, 0, 1, 1, NAN), column(0.1, 0.1, 0.1, 0.9, 1)
    assert_same(expected_calibration_error(labels, probs), 0.2)


def test_log_loss_is_finite_at_probabilities_0_and_1():
    assert_same(log_loss(column(1), column(0)), -np.log(1e-7))
    assert_same(log_loss(column(0), column(1)), -np.log(1 - (1 - 1e-7)))
    assert_same(log_loss(column(1, 0), column(1, 0)), -np.log1p(-1e-7))


def test_higher_is_better_is_the_direction_of_every_metric():
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    right = compute_metrics(labels, labels, labels == 1)
    wrong = compute_metrics(labels, 1 - labels, labels == 0)
    for name, metric in METRICS.items():
        assert (right[name] > wrong[name]) == metric.higher_is_better, name


def test_compute_label_metrics_has_a_row_per_label():
    labels, probs, decided = random_table(0, 200, 0.2)
    scores = score_labels(labels, decided)
    columns = [scores.precision, scores.recall, scores.f1, auc(labels, probs)]
    columns += [average_precision(labels, probs), scores.support]
    rows = compute_label_metrics(labels, probs, decided, tuple("abcdef"))
    assert list(rows) == list("abcdef")
    np.testing.assert_equal([list(row.values()) for row in rows.values()], np.stack(columns, 1))


def test_constant_metrics_are_those_of_one_answer_for_all_texts():
    """Of 4 texts 3 have the first label, and 1 the second of the 2 that are known."""
    labels = np.array([[1, 1], [1, 0], [1, NAN], [0, NAN]], np.float32)
    constant = constant_metrics(labels)
    assert constant["macro_f1"] == pytest.approx((6 / 7 + 2 / 3) / 2)  # every label
    assert constant["label_accuracy"] == pytest.approx(4 / 6)  # every label, and that of most texts
    assert constant["hamming_loss"] == pytest.approx(2 / 6)
    assert constant["subset_accuracy"] == pytest.approx(2 / 4)
    assert constant["macro_auc"] == 0.5
    assert constant["map"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert constant["ece"] == pytest.approx(0)
    frequency = np.log([0.75] * 3 + [0.25] + [0.5] * 2)
    assert constant["log_loss"] == pytest.approx(-frequency.mean())
    rare = np.zeros((4, 2), np.float32)
    rare[0, 0] = 1
    assert constant_metrics(rare)["label_accuracy"] == pytest.approx(7 / 8)  # no label
    assert constant.keys() == METRICS.keys()
