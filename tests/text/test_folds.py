"""Grouped folds keep groups together, spread labels and sizes evenly and depend on the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.text.folds import assign_grouped_folds


def draw(seed):
    """Labels of 5,000 rows, as rare as 0.2 %."""
    rates = np.array([0.3, 0.1, 0.05, 0.02, 0.01, 0.002])
    return (np.random.default_rng(seed).random((5000, 6)) < rates).astype(np.float32)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), max_size=40),
    count=st.integers(2, 5),
)
def test_a_group_is_in_a_single_fold(rows, count):
    groups = np.array([row[0] for row in rows], np.int64)
    labels = np.array([row[1:] for row in rows], np.float32).reshape(-1, 2)
    fold = assign_grouped_folds(labels, groups, count)
    assert fold.shape == groups.shape
    assert ((fold >= 0) & (fold < count)).all()
    for group in set(groups.tolist()):
        assert len(set(fold[groups == group].tolist())) == 1


@pytest.mark.parametrize("count", [2, 5])
def test_labels_and_sizes_are_spread_evenly(count):
    labels = draw(4)
    groups = np.random.default_rng(0).integers(0, len(labels) // 2, len(labels))
    fold = assign_grouped_folds(labels, groups, count)
    sizes = np.bincount(fold, minlength=count)
    assert np.ptp(sizes) < 0.03 * len(labels)
    for column in labels.T:
        spread = np.bincount(fold[column == 1], minlength=count)
        assert np.ptp(spread) <= max(3, 0.15 * column.sum() / count)


def test_folds_depend_on_the_seed_but_not_on_the_ids_of_groups():
    labels = draw(5)
    groups = np.arange(len(labels)) // 3
    fold = assign_grouped_folds(labels, groups, 4)
    np.testing.assert_array_equal(fold, assign_grouped_folds(labels, groups, 4))
    assert (fold != assign_grouped_folds(labels, groups, 4, seed=1)).any()
    np.testing.assert_array_equal(fold, assign_grouped_folds(labels, groups * 7 + 1, 4))


def test_unknown_labels_are_not_positives():
    labels = np.array([[1, np.nan], [0, 1], [np.nan, 1], [1, 0]], np.float32)
    fold = assign_grouped_folds(labels, np.arange(4), 2)
    for column in labels.T:
        assert np.bincount(fold[column == 1], minlength=2).tolist() == [1, 1]
