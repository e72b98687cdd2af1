"""An interval for macro F1 that holds for many rare labels.

The F1 of a rare label tells little about itself: with one positive it is 0 or near 1. So a resample
of the examples shows neither its error nor its bias, which is below 0 because F1 is a concave
function of the hits. Both follow from a better guess of the label's F1: its counts are joined with
those of labels that are about as frequent, as if `STRENGTH` of their hits, false alarms and misses
were its own (an empirical Bayes estimate; Efron and Morris 1975, "Data analysis using Stein's
estimator and its generalizations").

The standard error is that of the delta method, over examples, so that errors of several labels in
one example count together. Its degrees of freedom follow from the examples that carry it
(Satterthwaite 1946, "An approximate distribution of estimates of variance components"). The bias is
known roughly: the interval is centered between the metric and the corrected metric, and a uniform
error between them is added to the variance. So the metric is always inside.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtrit

STRENGTH = 20.0  # decisions of similar labels that are joined with those of a label
SCALE = math.log(2)  # labels whose frequencies differ by a factor of 2 have half the weight

# Hits, false alarms and misses of each label.
Errors = Float64[np.ndarray, "3 classes"]


def macro_f1_interval(example_counts: Any, level: float) -> tuple[float, float]:
    """The interval for the mean F1 in the population over the labels with a positive example.

    example_counts: sparse [4 classes, examples], as `count_decisions` has them.
    level: the coverage, such as 0.95.
    Both ends are NaN without a positive example.
    """
    classes = example_counts.shape[0] // 4
    counts = example_counts.sum(axis=1, dtype=np.float64).reshape(4, classes)[:3]
    is_counted = counts[0] + counts[2] > 0
    if not is_counted.any():
        return math.nan, math.nan
    counts = counts[:, is_counted]
    tp, total = counts[0], counts.sum(axis=0)
    size = tp + total
    value = np.mean(2 * tp / size)
    shares = join_similar(counts)
    jaccard = shares[0]
    f1 = 2 * jaccard / (1 + jaccard)
    # Of second order, and no larger than f1 * (1 - f1) for the few decisions of a rare label.
    bias = -np.mean(f1 * (1 - f1) / (1 + total * (1 + jaccard)))

    influence = np.zeros((4, classes))
    influence[:3, is_counted] = np.stack([2 - 2 * f1, -f1, -f1]) / size / len(size)
    squares = (example_counts.T @ influence.ravel()) ** 2
    freedom = max(squares.sum() ** 2 / np.sum(squares**2), 1)
    variance = squares.sum()
    if value in (0, 1):  # without hits, or without errors, the examples show too small a variance
        variance = np.sum(total * shares * influence[:3, is_counted] ** 2)
    error = np.sqrt(variance + bias**2 / 12) * stdtrit(freedom, (1 + level) / 2)
    center = value - bias / 2
    return float(max(center - error, 0)), float(min(center + error, 1))


def join_similar(counts: Errors) -> Errors:
    """The shares of hits, false alarms and misses of each label, joined with similar labels.

    A label weighs less the more its frequency differs (a Cauchy kernel of the logarithms), and no
    label adds more than `STRENGTH` decisions.
    """
    frequency, index = np.unique(counts[0] + counts[2], return_inverse=True)
    distance = np.log(frequency)[:, None] - np.log(frequency)
    total = counts.sum(axis=0)
    weights = (1 / (1 + (distance / SCALE) ** 2))[:, index] / (1 + total / STRENGTH)
    similar = counts @ weights.T + 0.5
    shares = (similar / similar.sum(axis=0))[:, index]
    return (counts + STRENGTH * shares) / (total + STRENGTH)
