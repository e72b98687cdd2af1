"""Thresholds are the best cuts by brute force, with the stated rule between equals."""

from fractions import Fraction

import numpy as np
import pytest
from counting import f1_per_label
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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

NAN = float("nan")

# Eighths make ties, and both ends.
PROBS = st.one_of(st.sampled_from([n / 8 for n in range(9)]), st.floats(0, 1, width=32))


@st.composite
def tables(draw, most_classes=3):
    """(labels, probs) as Predictions hold them, some labels not known."""
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, most_classes)))
    return (
        draw(arrays(np.float32, shape, elements=st.sampled_from((0.0, 1.0, NAN)))),
        draw(arrays(np.float32, shape, elements=PROBS)),
    )


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def exact_f1(pairs: list[tuple[float, float]], threshold: float) -> Fraction:
    """F1 of (label, probability) pairs with at least one positive."""
    hits = sum(label == 1 and prob >= threshold for label, prob in pairs)
    return Fraction(2 * hits, sum(p >= threshold for _, p in pairs) + sum(y == 1 for y, _ in pairs))


def best_cuts(pairs: list[tuple[float, float]]) -> tuple[Fraction, list[float]]:
    """The highest F1 that any threshold reaches, and every middle between neighbours reaching it.

    Below the lowest probability the neighbour is 0.
    """
    probs = sorted({prob for _, prob in pairs})
    middles = [(low + high) / 2 for low, high in zip([0.0, *probs[:-1]], probs, strict=True)]
    best = max(exact_f1(pairs, threshold) for threshold in [*probs, 2.0])
    return best, [middle for middle in middles if exact_f1(pairs, middle) == best]


@settings(deadline=None, max_examples=200)
@given(tables())
def test_per_label_is_the_best_of_all_cuts_nearest_to_a_half(table):
    for y, p, found in zip(table[0].T, table[1].T, per_label(*table), strict=True):
        pairs = [(label, prob) for label, prob in zip(y.tolist(), p.tolist(), strict=True)]
        pairs = [(label, prob) for label, prob in pairs if label == label]
        if not any(label == 1 for label, _ in pairs):
            assert found == 0.5
            continue
        best, cuts = best_cuts(pairs)
        assert exact_f1(pairs, found) == best
        assert found in cuts
        assert abs(found - 0.5) == min(abs(cut - 0.5) for cut in cuts)


@settings(deadline=None, max_examples=100)
@given(tables())
def test_per_label_is_never_worse_than_a_half_where_it_was_fitted(table):
    labels, probs = table
    fitted = f1_per_label(labels, decide(probs, per_label(labels, probs)))
    half = f1_per_label(labels, decide(probs, fixed(labels, probs)))
    spoken = ~np.isnan(half)
    assert (fitted[spoken] >= half[spoken]).all()


@settings(deadline=None, max_examples=60)
@given(tables(), st.data())
def test_per_label_does_not_depend_on_the_order_of_examples(table, data):
    labels, probs = table
    order = list(data.draw(st.permutations(range(len(labels)))))
    np.testing.assert_array_equal(per_label(labels[order], probs[order]), per_label(labels, probs))


@settings(deadline=None, max_examples=60)
@given(tables())
def test_per_label_sees_only_a_labels_own_known_rows(table):
    labels, probs = table
    for index, threshold in enumerate(per_label(labels, probs)):
        known = ~np.isnan(labels[:, index])
        alone = per_label(labels[known, index : index + 1], probs[known, index : index + 1])
        assert alone.tolist() == [threshold]


def test_per_label_on_a_table_one_can_check_by_eye():
    # Cuts from the top: F1 1/2, 4/5, 2/3, 6/7, 3/4. The best lies between 1/4 and 1/2.
    probs = column(1, 0.75, 0.625, 0.5, 0.25)
    assert per_label(column(1, 1, 0, 1, 0), probs).tolist() == [0.375]
    # All wanted: half of the lowest decides all. None but the top one wanted: just under it.
    assert per_label(column(1, 1, 1, 1, 1), probs).tolist() == [0.125]
    assert per_label(column(1, 0, 0, 0, 0), probs).tolist() == [0.875]


@pytest.mark.parametrize(
    ("probs", "nearest"),
    [
        ((0.875, 0.625, 0.5, 0.25), 0.75),  # 3/4 or 1/8
        ((1.0, 0.875, 0.75, 0.625), 0.3125),  # 15/16 or 5/16
    ],
)
def test_of_equal_cuts_the_one_nearest_to_a_half(probs, nearest):
    # One of one right and two of four right: both F1 2/3.
    assert per_label(column(1, 0, 0, 1), column(*probs)).tolist() == [nearest]


def test_equal_probabilities_are_never_cut_apart():
    labels, probs = column(1, 0, 1, 0), column(0.75, 0.75, 0.25, 0.25)
    found = per_label(labels, probs)
    assert found.tolist() == [0.125]
    assert decide(probs, found).all()


@pytest.mark.parametrize("value", [0.0, NAN])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_half_where_there_are_no_positives(value, rows):
    labels = np.full((rows, 2), value, np.float32)
    assert per_label(labels, np.full((rows, 2), 0.9, np.float32)).tolist() == [0.5, 0.5]


def test_an_unknown_label_is_no_negative():
    # As negatives they would make the top cut the best.
    labels, probs = column(1, NAN, NAN, NAN, 1), column(0.875, 0.75, 0.625, 0.5, 0.375)
    assert per_label(labels, probs).tolist() == [0.1875]


@given(st.floats(0, 1, width=32))
@settings(deadline=None)
def test_decide_gives_a_label_at_its_threshold_and_not_below(prob):
    probs = column(prob)
    assert decide(probs, np.array([prob]))[0, 0]
    assert not decide(probs, np.array([np.nextafter(prob, 2)]))[0, 0]


def test_decide_holds_every_label_to_its_own_threshold_and_may_give_none():
    probs = np.array([[0.5, 0.5, 0.5], [0.25, 1.0, 0.75], [0.0, 0.0, 0.0]], np.float32)
    expected = [[True, False, True], [False, True, True], [False, False, False]]
    assert decide(probs, np.array([0.5, 0.75, 0.25])).tolist() == expected


@settings(deadline=None, max_examples=30)
@given(tables(), st.floats(0, 1))
def test_fixed_is_its_value_for_every_label_whatever_the_data(table, value):
    labels, probs = table
    assert fixed(labels, probs, value=value).tolist() == [value] * probs.shape[1]
    assert fixed(labels, probs).tolist() == [0.5] * probs.shape[1]


@settings(deadline=None, max_examples=30)
@given(tables(), st.sampled_from(sorted(THRESHOLDS)))
def test_every_rule_gives_each_label_one_threshold_between_0_and_1(table, rule):
    found = THRESHOLDS[rule](*table)
    assert found.shape == (table[0].shape[1],)
    assert found.dtype == np.float64
    assert ((found >= 0) & (found <= 1)).all()


def at_least(y, p, threshold):
    """(true positives, decided) of a column at a threshold."""
    known = ~np.isnan(y)
    return int((y[known] == 1)[p[known] >= threshold].sum()), int((p[known] >= threshold).sum())


@settings(deadline=None, max_examples=100)
@given(tables())
def test_shared_is_the_best_single_cut(table):
    labels, probs = table
    found = shared(labels, probs)
    assert len(set(found.tolist())) == 1

    def macro(threshold):
        each = f1_per_label(labels, decide(probs, np.full(labels.shape[1], threshold)))
        return np.nan if np.isnan(each).all() else np.nanmean(each)

    distinct = np.unique(probs.astype(np.float64))
    middles = np.concatenate([(distinct + np.append(0.0, distinct[:-1])) / 2, distinct])
    best = max((macro(cut) for cut in middles), default=np.nan)
    assert np.isnan(best) or macro(found[0]) == pytest.approx(best, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(tables(), st.sampled_from([0.3, 0.5, 0.95, 1.0]))
def test_recall_at_is_the_highest_cut_with_that_recall(table, target):
    labels, probs = table
    for y, p, found in zip(labels.T, probs.T, recall_at(labels, probs, target=target), strict=True):
        positives = int((y == 1).sum())
        if not positives:
            assert found == 0.5
            continue
        assert at_least(y, p, found)[0] >= target * positives - 1e-9
        scores = np.unique(p[~np.isnan(y)]).astype(np.float64)
        higher = [cut for cut in scores if cut > found]
        reached = [at_least(y, p, cut)[0] >= target * positives - 1e-9 for cut in higher]
        # A cut above decides less: at the next distinct score up there is no more than here.
        assert not any(reached[1:])


@settings(deadline=None, max_examples=100)
@given(tables(), st.sampled_from([0.3, 0.5, 0.9]))
def test_precision_at_is_the_lowest_cut_with_that_precision(table, target):
    labels, probs = table
    found = precision_at(labels, probs, target=target)
    for y, p, threshold in zip(labels.T, probs.T, found, strict=True):
        if not (y == 1).any():
            assert threshold == 0.5
            continue
        cuts = np.unique(p[~np.isnan(y)]).astype(np.float64)
        shares = [tp / decided for tp, decided in (at_least(y, p, cut) for cut in cuts)]
        tp, decided = at_least(y, p, threshold)
        if max(shares) >= target:
            assert tp / decided >= target - 1e-9
            below = [share for cut, share in zip(cuts, shares, strict=True) if cut < threshold]
            assert not any(share >= target for share in below[:-1])
        else:
            assert tp / decided == pytest.approx(max(shares))


def test_only_the_named_labels_have_the_target():
    labels = np.array([[1, 1], [1, 1], [0, 0], [1, 1], [0, 0]], np.float32)
    probs = np.array([[0.9] * 2, [0.8] * 2, [0.7] * 2, [0.2] * 2, [0.3] * 2], np.float32)
    names = ("one", "other")
    found = recall_at(labels, probs, names, target=1.0, labels=("other",))
    assert found[0] == per_label(labels, probs)[0]
    assert found[1] == pytest.approx(0.1)


def test_shrinking_goes_from_its_own_to_the_shared():
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 3)) < [0.02, 0.2, 0.5]).astype(np.float32)
    probs = np.clip(0.4 * labels + 0.6 * rng.random((300, 3)), 0, 1).astype(np.float32)
    own, common = per_label(labels, probs), shared(labels, probs)
    np.testing.assert_allclose(per_label(labels, probs, prior_strength=1e12), common, atol=1e-9)
    positives = labels.sum(axis=0)
    expected = (positives * own + 10 * common) / (positives + 10)
    np.testing.assert_allclose(per_label(labels, probs, prior_strength=10.0), expected)


def test_plug_in_of_sharp_probabilities_is_half_the_promise():
    """Where calibration has nothing to do: F* by hand from the probabilities alone."""
    rng = np.random.default_rng(1)
    probs = rng.beta(0.5, 2.0, (40_000, 1)).astype(np.float32)
    labels = (rng.random(probs.shape) < probs).astype(np.float32)
    p = np.sort(probs[:, 0].astype(np.float64))[::-1]
    best = (2 * np.cumsum(p) / (np.arange(1, len(p) + 1) + p.sum())).max()
    assert plug_in(labels, probs)[0] == pytest.approx(best / 2, abs=0.01)
    assert per_label(labels, probs)[0] == pytest.approx(best / 2, abs=0.1)


def test_every_rule_has_its_test():
    assert set(THRESHOLDS) == {
        "fixed", "per_label", "shared", "plug_in", "recall_at", "precision_at",
    }  # fmt: skip
