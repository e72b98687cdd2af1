"""Thresholds per label: rules (labels, probs) -> thresholds, and the decision they make.

A label is given where `prob >= threshold`. An example that no label reaches is given none: an
empty answer is an answer.
"""

import numpy as np
from jaxtyping import Bool, Float

from jaxclf.decisions.metrics import cumulative

# Where nothing can be searched (a label without known positives) the threshold is this.
FALLBACK = 0.5


def decide(
    probs: Float[np.ndarray, "examples classes"], thresholds: Float[np.ndarray, " classes"]
) -> Bool[np.ndarray, "examples classes"]:
    return probs >= thresholds[None]


def fixed(
    labels: Float[np.ndarray, "examples classes"],
    probs: Float[np.ndarray, "examples classes"],
    *,
    value: float = 0.5,
) -> Float[np.ndarray, " classes"]:
    """The same threshold for every label, whatever the data."""
    return np.full(probs.shape[1], value, np.float64)


def per_label(
    labels: Float[np.ndarray, "examples classes"], probs: Float[np.ndarray, "examples classes"]
) -> Float[np.ndarray, " classes"]:
    """Each label's threshold of highest F1, by exact search over all cuts between distinct
    probabilities.

    A threshold lies in the middle between two neighbouring probabilities. Of several cuts with the
    same F1, the one nearest to 0.5, the higher of two equally near. NaN labels are left out; 0.5
    for a label without positives.
    """
    return np.array([_best_cut(y, p) for y, p in zip(labels.T, probs.T, strict=True)], np.float64)


def _best_cut(y: np.ndarray, p: np.ndarray) -> float:
    known = ~np.isnan(y)
    truth, scores = y[known] == 1, p[known].astype(np.float64)
    if not truth.any():
        return FALLBACK
    distinct, tp, decided = cumulative(truth, scores)
    below = np.append(distinct[1:], 0.0)
    middle = (distinct + below) / 2
    cuts = np.where(middle > below, middle, distinct)  # neighbouring floats have no middle
    f1 = 2 * tp / (decided + truth.sum())
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])


THRESHOLDS = {"fixed": fixed, "per_label": per_label}
