"""Shapes and conventions that all statistics share.

A label is 0, 1, or NaN where it is unknown; unknown labels are left out. A statistic without the
data it needs is NaN.
"""

import numpy as np
from jaxtyping import Bool, Float

Labels = Float[np.ndarray, "examples classes"]
Probs = Float[np.ndarray, "examples classes"]
Decided = Bool[np.ndarray, "examples classes"]
PerLabel = Float[np.ndarray, " classes"]
Thresholds = Float[np.ndarray, " classes"]

ECE_BINS = 15
LOG_LOSS_EDGE = 1e-7  # probabilities are clipped this far from 0 and 1


def ratio(numerator, denominator):
    """numerator / denominator in float64; NaN where the denominator is 0."""
    numerator = np.asarray(numerator, np.float64)
    denominator = np.asarray(denominator, np.float64)
    quotient = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


def mean_where_known(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The weighted mean of the values that are not NaN; NaN if there are none."""
    weights = np.ones_like(values) if weights is None else weights
    counted = ~np.isnan(values) & (weights > 0)
    return float(ratio(np.sum((values * weights)[counted]), np.sum(weights[counted])))
