"""Threshold rules equal a brute-force search, with the stated choice between equal thresholds."""

from fractions import Fraction

import numpy as np
import pytest
from counting import f1_per_label
from hypothesis import given, settings
from hypothesis import strategies as st
from label_tables import column, tables

from jaxclf.decisions.thresholds import (
    THRESHOLDS,
    decide,
    fixed,
    per_label,
    plug_in,
    precision_at,
    recall_at,
    shared,
)


def exact_f1(pairs: list[tuple[float, float]], threshold: float) -> Fraction:
    """F1 of (label, probability) pairs with at least one positive."""
    hits = sum(label == 1 and prob >= threshold for label, prob in pairs)
    return Fraction(2 * hits, sum(p >= threshold for _, p in pairs) + sum(y == 1 for y, _ in pairs))


def best_thresholds(pairs: list[tuple[float, float]]) -> tuple[Fraction, list[float]]:
    """The highest F1 of all thresholds, and every middle between neighboring probabilities that
    reaches it. The lowest probability has 0 as its neighbor."""
    probs = sorted({prob for _, prob in pairs})
    middles = [(low + high) / 2 for low, high in zip([0.0, *probs[:-1]], probs, strict=True)]
    best = max(exact_f1(pairs, threshold) for threshold in [*probs, 2.0])
    return best, [middle for middle in middles if exact_f1(pairs, middle) == best]


@settings(deadline=None, max_examples=200)
@given(tables(max_classes=3))
def test_per_label_has_the_highest_f1_and_is_nearest_to_a_half(table):
    for y, p, threshold in zip(table[0].T, table[1].T, per_label(*table), strict=True):
        pairs = [(label, prob) for label, prob in zip(y.tolist(), p.tolist(), strict=True)]
        pairs = [(label, prob) for label, prob in pairs if label == label]
        if not any(label == 1 for label, _ in pairs):
            assert threshold == 0.5
            continue
        best, middles = best_thresholds(pairs)
        assert exact_f1(pairs, threshold) == best
        # Of two equally near, the higher.
        assert threshold == max(middles, key=lambda middle: (-abs(middle - 0.5), middle))


@settings(deadline=None, max_examples=60)
@given(tables(), st.data())
def test_per_label_does_not_depend_on_the_order_of_examples(table, data):
    labels, probs = table
    order = list(data.draw(st.permutations(range(len(labels)))))
    np.testing.assert_array_equal(per_label(labels[order], probs[order]), per_label(labels, probs))


@pytest.mark.parametrize(
    ("labels", "probs", "expected"),
    [
        # Equal F1: 3/4 or 1/8, then 15/16 or 5/16; the nearest to a half wins.
        ((1, 0, 0, 1), (0.875, 0.625, 0.5, 0.25), 0.75),
        ((1, 0, 0, 1), (1.0, 0.875, 0.75, 0.625), 0.3125),
        # 3/4 and 1/4 are equally near: the higher wins.
        ((1, 0, 0, 1), (0.875, 0.625, 0.375, 0.125), 0.75),
        ((), (), 0.5),
    ],
)
def test_per_label_decides_between_equal_thresholds(labels, probs, expected):
    assert per_label(column(*labels), column(*probs)).tolist() == [expected]


@given(st.floats(0, 1, width=32))
@settings(deadline=None)
def test_a_probability_equal_to_the_threshold_is_decided(prob):
    probs = column(prob)
    assert decide(probs, np.array([prob]))[0, 0]
    assert not decide(probs, np.array([np.nextafter(prob, 2)]))[0, 0]


def test_decide_compares_every_label_with_its_threshold():
    probs = np.array([[0.5, 0.5, 0.5], [0.25, 1.0, 0.75], [0.0, 0.0, 0.0]], np.float32)
    expected = [[True, False, True], [False, True, True], [False, False, False]]
    assert decide(probs, np.array([0.5, 0.75, 0.25])).tolist() == expected


@settings(deadline=None, max_examples=30)
@given(tables(), st.floats(0, 1))
def test_fixed_is_its_value_for_every_label(table, value):
    labels, probs = table
    assert fixed(labels, probs, value=value).tolist() == [value] * probs.shape[1]
    assert fixed(labels, probs).tolist() == [0.5] * probs.shape[1]


@settings(deadline=None, max_examples=30)
@given(tables(), st.sampled_from(sorted(THRESHOLDS)))
def test_every_rule_fits_a_threshold_between_0_and_1_per_label(table, rule):
    thresholds = THRESHOLDS[rule](*table)
    assert thresholds.shape == (table[0].shape[1],)
    assert thresholds.dtype == np.float64
    assert ((thresholds >= 0) & (thresholds <= 1)).all()


def counts_at(y, p, threshold):
    """(true positives, decided) of a column at a threshold."""
    known = ~np.isnan(y)
    return int((y[known] == 1)[p[known] >= threshold].sum()), int((p[known] >= threshold).sum())


@settings(deadline=None, max_examples=100)
@given(tables(max_classes=3))
def test_shared_has_the_highest_macro_f1_of_a_single_threshold(table):
    labels, probs = table
    thresholds = shared(labels, probs)
    assert len(set(thresholds.tolist())) == 1

    def macro(threshold):
        f1 = f1_per_label(labels, decide(probs, np.full(labels.shape[1], threshold)))
        return np.nan if np.isnan(f1).all() else np.nanmean(f1)

    distinct = np.unique(probs.astype(np.float64))
    candidates = np.concatenate([(distinct + np.append(0.0, distinct[:-1])) / 2, distinct])
    best = max((macro(candidate) for candidate in candidates), default=np.nan)
    assert np.isnan(best) or macro(thresholds[0]) == pytest.approx(best, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(tables(max_classes=3), st.sampled_from([0.3, 0.5, 0.95, 1.0]))
def test_recall_at_is_the_highest_threshold_with_that_recall(table, target):
    labels, probs = table
    thresholds = recall_at(labels, probs, target=target)
    for y, p, threshold in zip(labels.T, probs.T, thresholds, strict=True):
        needed = target * int((y == 1).sum()) - 1e-9
        if not (y == 1).any():
            assert threshold == 0.5
            continue
        assert counts_at(y, p, threshold)[0] >= needed
        scores = np.unique(p[~np.isnan(y)]).astype(np.float64)
        higher = [score for score in scores if score > threshold]
        # The next distinct score decides as the threshold does.
        assert not any(counts_at(y, p, score)[0] >= needed for score in higher[1:])


@settings(deadline=None, max_examples=100)
@given(tables(max_classes=3), st.sampled_from([0.3, 0.5, 0.9]))
def test_precision_at_is_the_lowest_threshold_with_that_precision(table, target):
    labels, probs = table
    thresholds = precision_at(labels, probs, target=target)
    for y, p, threshold in zip(labels.T, probs.T, thresholds, strict=True):
        if not (y == 1).any():
            assert threshold == 0.5
            continue
        scores = np.unique(p[~np.isnan(y)]).astype(np.float64)
        precisions = [tp / decided for tp, decided in (counts_at(y, p, score) for score in scores)]
        tp, decided = counts_at(y, p, threshold)
        if max(precisions) >= target:
            assert tp / decided >= target - 1e-9
            lower = [value for score, value in zip(scores, precisions) if score < threshold]  # noqa: B905
            assert not any(precision >= target for precision in lower[:-1])
        else:
            assert tp / decided == pytest.approx(max(precisions))


def test_only_the_named_labels_have_the_target():
    labels = np.array([[1, 1], [1, 1], [0, 0], [1, 1], [0, 0]], np.float32)
    probs = np.array([[0.9] * 2, [0.8] * 2, [0.7] * 2, [0.2] * 2, [0.3] * 2], np.float32)
    thresholds = recall_at(labels, probs, ("joy", "fear"), target=1.0, labels=("fear",))
    assert thresholds[0] == per_label(labels, probs)[0]
    assert thresholds[1] == pytest.approx(0.1)


def test_prior_strength_moves_per_label_toward_shared():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 3)) < [0.02, 0.2, 0.5]).astype(np.float32)
    probs = np.clip(0.4 * labels + 0.6 * rng.random((300, 3)), 0, 1).astype(np.float32)
    alone, common = per_label(labels, probs), shared(labels, probs)
    np.testing.assert_allclose(per_label(labels, probs, prior_strength=1e12), common, atol=1e-9)
    positives = labels.sum(axis=0)
    expected = (positives * alone + 10 * common) / (positives + 10)
    np.testing.assert_allclose(per_label(labels, probs, prior_strength=10.0), expected)


def test_plug_in_is_half_the_best_expected_f1():
    rng = np.random.default_rng(1)
    probs = rng.beta(0.5, 2.0, (40_000, 1)).astype(np.float32)
    labels = (rng.random(probs.shape) < probs).astype(np.float32)
    p = np.sort(probs[:, 0].astype(np.float64))[::-1]
    best = (2 * np.cumsum(p) / (np.arange(1, len(p) + 1) + p.sum())).max()
    assert plug_in(labels, probs)[0] == pytest.approx(best / 2, abs=0.01)
    assert per_label(labels, probs)[0] == pytest.approx(best / 2, abs=0.1)
