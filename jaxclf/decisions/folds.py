"""Stratified folds: every label's positives are spread evenly (Sechidis et al. 2011)."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from jaxclf.decisions.arrays import Labels
from jaxclf.errors import ConfigError

Folds = Int[np.ndarray, " examples"]


def held_out_masks(
    labels: Labels, count: int, seed: int = 0
) -> Iterator[Bool[np.ndarray, " examples"]]:
    """Yield the examples that each fold holds out; a fold without examples is left out."""
    if count < 2:
        raise ConfigError(f"folds={count!r} must be at least 2")
    folds = assign_folds(labels, count, seed)
    for fold in range(count):
        if (held_out := folds == fold).any():
            yield held_out


def assign_folds(labels: Labels, count: int, seed: int = 0) -> Folds:
    """The fold of each example; the same for the same seed.

    Examples are assigned in turn, those whose rarest label is rarest first, in random order
    among equals.
    """
    rarest = _rarest_positive(_rare_first(labels == 1))
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), rarest))
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % count
    return folds


def assign_grouped_folds(
    labels: Labels, groups: Int[np.ndarray, " examples"], count: int, seed: int = 0
) -> Folds:
    """The fold of each example, with the examples of one group together.

    Groups are assigned in turn, those whose rarest label is rarest first and the largest first,
    each to the fold with the fewest positives of that label, then the fewest examples.
    """
    _, group = np.unique(groups, return_inverse=True)
    positive = _rare_first(labels == 1)
    # The last column counts examples; it decides for groups without positives.
    counts = np.zeros((group.max(initial=-1) + 1, positive.shape[1] + 1), np.int64)
    np.add.at(counts, group, np.column_stack([positive, np.ones(len(group), np.int64)]))
    rarest = _rarest_positive(counts[:, :-1] > 0)
    tie_break = np.random.default_rng(seed).random(len(counts))
    fold_counts = np.zeros((count, counts.shape[1]), np.int64)
    fold_of = np.empty(len(counts), np.int64)
    for index in np.lexsort((tie_break, -counts[:, -1], rarest)):
        fold = np.lexsort((fold_counts[:, -1], fold_counts[:, rarest[index]]))[0]
        fold_of[index], fold_counts[fold] = fold, fold_counts[fold] + counts[index]
    return fold_of[group]


def _rare_first(positive: Bool[np.ndarray, "examples classes"]) -> np.ndarray:
    """The columns in ascending order of their counts."""
    return positive[:, np.argsort(positive.sum(axis=0), kind="stable")]


def _rarest_positive(positive: Bool[np.ndarray, "rows classes"]) -> np.ndarray:
    """The first True column of each row; the number of columns if there is none."""
    return np.where(positive.any(axis=1), positive.argmax(axis=1), positive.shape[1])
