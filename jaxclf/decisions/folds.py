"""Folds in which every label's positives are spread evenly (Sechidis et al. 2011)."""

import numpy as np
from jaxtyping import Bool, Float, Int

Folds = Int[np.ndarray, " examples"]


def assign_folds(labels: Float[np.ndarray, "examples classes"], count: int, seed: int = 0) -> Folds:
    """A fold for each example, the same for the same seed.

    Examples are dealt out in turn, those whose rarest label is rarest first, each group shuffled.
    """
    rarest = _rarest(_rare_first(labels == 1))
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), rarest))
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % count
    return folds


def assign_grouped_folds(
    labels: Float[np.ndarray, "examples classes"],
    groups: Int[np.ndarray, " examples"],
    count: int,
    seed: int = 0,
) -> Folds:
    """A fold for each example, examples of one group together.

    Groups are dealt out, those whose rarest label is rarest first and the largest first, each to
    the fold that has the fewest positives of that label, then the fewest examples.
    """
    _, group = np.unique(groups, return_inverse=True)
    positive = _rare_first(labels == 1)
    # A last column counts examples: what a group without positives is dealt out by.
    dealt = np.zeros((group.max(initial=-1) + 1, positive.shape[1] + 1), np.int64)
    np.add.at(dealt, group, np.column_stack([positive, np.ones(len(group), np.int64)]))
    rarest = _rarest(dealt[:, :-1] > 0)
    drawn = np.random.default_rng(seed).random(len(dealt))
    held = np.zeros((count, dealt.shape[1]), np.int64)
    fold_of = np.empty(len(dealt), np.int64)
    for one in np.lexsort((drawn, -dealt[:, -1], rarest)):
        fewest = np.lexsort((held[:, -1], held[:, rarest[one]]))[0]
        fold_of[one], held[fewest] = fewest, held[fewest] + dealt[one]
    return fold_of[group]


def _rare_first(positive: Bool[np.ndarray, "examples classes"]) -> np.ndarray:
    """The columns in order of their counts."""
    return positive[:, np.argsort(positive.sum(axis=0), kind="stable")]


def _rarest(positive: Bool[np.ndarray, "rows classes"]) -> np.ndarray:
    """The first column of each row that is set; one past the last where none is."""
    return np.where(positive.any(axis=1), positive.argmax(axis=1), positive.shape[1])
