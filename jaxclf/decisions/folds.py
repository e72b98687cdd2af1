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


def _rare_first(positive: Bool[np.ndarray, "examples classes"]) -> np.ndarray:
    """The columns in ascending order of their counts."""
    return positive[:, np.argsort(positive.sum(axis=0), kind="stable")]


def _rarest_positive(positive: Bool[np.ndarray, "rows classes"]) -> np.ndarray:
    """The first True column of each row; the number of columns if there is none."""
    return np.where(positive.any(axis=1), positive.argmax(axis=1), positive.shape[1])
