"""Folds in which every label's positives are spread evenly."""

import numpy as np
from jaxtyping import Float, Int


def folds_of(
    labels: Float[np.ndarray, "examples classes"], count: int, seed: int = 0
) -> Int[np.ndarray, " examples"]:
    """A fold for each example, the same for the same seed.

    Examples are dealt out in turn, those whose rarest label is rarest first (Sechidis et al. 2011,
    in its simplest form), each group shuffled.
    """
    positive = labels == 1
    rank = np.argsort(np.argsort(positive.sum(axis=0), kind="stable"), kind="stable")
    rarest = np.where(positive, rank[None], labels.shape[1])
    rarest = rarest.min(axis=1, initial=labels.shape[1])
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), rarest))
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % count
    return folds
