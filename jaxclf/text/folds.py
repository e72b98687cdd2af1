"""Stratified parts of a data set that keep groups together (Sechidis et al. 2011)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

Rows = Int[np.ndarray, " examples"]


def assign_grouped_folds(
    labels: Float[np.ndarray, "examples classes"], groups: Rows, count: int, seed: int = 0
) -> Rows:
    """The fold of each example; folds are parts of equal shares."""
    return assign_parts(labels, groups, [1 / count] * count, seed)


def assign_parts(
    labels: Float[np.ndarray, "examples classes"],
    groups: Rows,
    shares: Sequence[float],
    seed: int = 0,
) -> Rows:
    """The part of each example, an index of `shares`, with the examples of one group together.

    labels: NaN where not known. shares: of the examples and of each label's positives; their sum
    is 1. Groups are assigned in turn, those whose rarest label is rarest first and the largest
    first, each to the part with the fewest positives of that label for its share, then the fewest
    examples. Half of the group counts in advance, as in Webster's method, so that a part of a
    small share gets neither too many nor too few rare positives.
    """
    _, group = np.unique(groups, return_inverse=True)
    positive = rare_first(labels >= 0.5)
    # The last column counts examples; it decides for groups without positives.
    counts = np.zeros((group.max(initial=-1) + 1, positive.shape[1] + 1), np.int64)
    np.add.at(counts, group, np.column_stack([positive, np.ones(len(group), np.int64)]))
    rarest = rarest_positive(counts[:, :-1] > 0)
    tie_break = np.random.default_rng(seed).random(len(counts))
    part_counts = np.zeros((len(shares), counts.shape[1]), np.int64)
    part_of = np.empty(len(counts), np.int64)
    for index in np.lexsort((tie_break, -counts[:, -1], rarest)):
        loads = (part_counts + counts[index] / 2) / np.array(shares)[:, None]
        part = np.lexsort((loads[:, -1], loads[:, rarest[index]]))[0]
        part_of[index], part_counts[part] = part, part_counts[part] + counts[index]
    return part_of[group]


def rare_first(positive: Bool[np.ndarray, "examples classes"]) -> np.ndarray:
    """The columns in ascending order of their counts."""
    return positive[:, np.argsort(positive.sum(axis=0), kind="stable")]


def rarest_positive(positive: Bool[np.ndarray, "rows classes"]) -> np.ndarray:
    """The first True column of each row; the number of columns if there is none."""
    return np.where(positive.any(axis=1), positive.argmax(axis=1), positive.shape[1])
