"""Counts of one label at every possible threshold."""

import numpy as np
from jaxtyping import Bool, Float, Int


def cumulative_counts(
    is_positive: Bool[np.ndarray, " rows"], probs: Float[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, " scores"], Int[np.ndarray, " scores"], Int[np.ndarray, " scores"]]:
    """(scores, true positives, predicted positives) at `prob >= score`, for each distinct score
    from the highest down."""
    scores, positive = _sort_descending(is_positive, probs)
    is_last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    return scores[is_last], np.cumsum(positive)[is_last], np.flatnonzero(is_last) + 1


def average_precision(
    is_positive: Bool[np.ndarray, " rows"], probs: Float[np.ndarray, " rows"]
) -> float:
    """scikit-learn's average precision, fast enough for a search; NaN without positives."""
    if not is_positive.any():
        return float("nan")
    _, tp, predicted = cumulative_counts(is_positive, probs)
    return float(np.sum(np.diff(tp, prepend=0) * tp / predicted) / is_positive.sum())


def _sort_descending(is_positive: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if probs.dtype != np.float32 or (len(probs) and (probs.min() < 0 or probs.max() > 1)):
        order = np.argsort(-probs, kind="stable")
        return probs[order], is_positive[order]
    # Floats in [0, 1] sort like their bits, and leave the two highest bits free. With the label as
    # the lowest bit, one sort of integers replaces an argsort, which is several times slower.
    key = (probs + np.float32(0)).view(np.uint32) << np.uint32(1) | is_positive.astype(np.uint32)
    key.sort()
    key = key[::-1]
    return (key >> np.uint32(1)).view(np.float32), (key & np.uint32(1)).astype(bool)
