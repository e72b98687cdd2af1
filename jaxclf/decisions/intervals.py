"""Bootstrap intervals over examples, with thresholds held fixed (Efron 1979).

A resample without positives of a label leaves that label out of its macro means; a resample in
which a metric is undefined is left out of the interval. There are three kinds of interval:

percentile: the quantiles of the replicates.

BCa: the quantiles are shifted for bias and for a spread that changes with the metric (Efron 1987,
"Better bootstrap confidence intervals"); the acceleration is from a jackknife over 200 groups of
examples.

smoothed: for the F1 of a label, which would get a zero-width interval if no positive is found.
Every count of every resample gets a draw from Gamma(1/2), after Jeffreys' prior of a count (Goutte
and Gaussier 2005, "A probabilistic interpretation of precision, recall and F-score").

A reported interval is widened by the percentile interval that is moved to the metric: a metric with
bias, such as the ECE, may lie outside of BCa. Macro F1 has its own interval, in
`macro_f1_interval.py`.

README.md says how often the intervals cover the truth.
"""

from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxclf.decisions.arrays import Decided, Labels, Probs
from jaxclf.decisions.macro_f1_interval import macro_f1_interval
from jaxclf.decisions.metrics import METRICS, Metric
from jaxclf.decisions.weighted_counts import (
    ExampleCounts,
    PerLabelAndResample,
    PerResample,
    Weights,
    apply_weights,
    count_examples,
)

RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
MAX_COLUMNS, MAX_ENTRIES = 64, 2**22  # of one weight matrix
JACKKNIFE_GROUPS = 200
NORMAL = NormalDist()

PerMetric = Float64[np.ndarray, " metrics"]
Replicates = Float64[np.ndarray, "metrics resamples"]
Influences = Float64[np.ndarray, "metrics groups"]


class Estimate(NamedTuple):
    """A metric, its value in every resample, and 95 % intervals; NaN where undefined.

    `interval` is the one to report; `value` is inside it.
    """

    value: float
    replicates: Float64[np.ndarray, " resamples"]
    percentile: tuple[float, float]
    bca: tuple[float, float]
    interval: tuple[float, float]


class Resampled(NamedTuple):
    """The METRICS by name, and the F1 of every label in order."""

    metrics: dict[str, Estimate]
    f1: tuple[Estimate, ...]


def bootstrap(
    labels: Labels, probs: Probs, decided: Decided, resamples: int = RESAMPLES, seed: int = SEED
) -> Resampled:
    """Every metric with its intervals, all from the same resamples."""
    examples, count = count_examples(labels, probs, decided), len(labels)
    rng = np.random.default_rng([seed, 1])
    values = weighted_metrics(examples, np.ones((count, 1), np.float32))[:, 0].tolist()
    chunks, smooth_chunks = [], []
    for weights in resample_weights(count, resamples, seed):
        chunks.append(weighted_metrics(examples, weights))
        smooth_chunks.append(smoothed_f1(examples, weights, rng))
    replicates = np.concatenate(chunks, axis=1)
    skew = acceleration(influence(weighted_metrics(examples, leave_out_weights(count)))).tolist()
    smoothed = np.concatenate(smooth_chunks, axis=1)
    largest = [metric.largest for metric in METRICS.values()] + [1.0] * len(smoothed)
    estimates = []
    for value, draws, a, bound in zip(values, replicates, skew, largest, strict=True):
        shifted = bca(value, draws, a)
        interval = widen(shifted, value, draws, bound)
        estimates.append(Estimate(value, draws, percentile(draws), shifted, interval))
    metrics = dict(zip(METRICS, estimates, strict=False))
    macro = macro_f1_interval(examples.counts, LEVEL)
    metrics["macro_f1"] = metrics["macro_f1"]._replace(interval=macro)
    f1 = [
        estimate._replace(interval=widen(percentile(draws), estimate.value, draws, 1.0))
        for estimate, draws in zip(estimates[len(METRICS) :], smoothed, strict=True)
    ]
    return Resampled(metrics, tuple(f1))


def weighted_metrics(examples: ExampleCounts, weights: Weights) -> Replicates:
    """A row for each of METRICS, then one for each label's F1; a column for each weighting."""
    counts = apply_weights(examples, weights)
    rows = [
        metric.compute_weighted(counts)
        if metric.compute_weighted
        else resampled_metric(metric, examples, weights)
        for metric in METRICS.values()
    ]
    return np.concatenate([rows, counts.f1])


def resampled_metric(metric: Metric, examples: ExampleCounts, weights: Weights) -> PerResample:
    """A metric without a weighted form: computed on the repeated rows of every weighting."""
    values = []
    for column in weights.T:
        rows = np.repeat(np.arange(len(column)), column.astype(np.int64))
        values.append(
            metric.compute(examples.labels[rows], examples.probs[rows], examples.decided[rows])
        )
    return np.array(values, np.float64)


def smoothed_f1(
    examples: ExampleCounts, weights: Weights, rng: np.random.Generator
) -> PerLabelAndResample:
    """The F1 of each label with a draw from Gamma(1/2) added to every count; NaN for a label
    without positives among all examples."""
    classes, resamples = len(examples.rankings), weights.shape[1]
    counts = (examples.counts @ weights).reshape(4, classes, resamples)[:3]
    tp, fp, fn = counts + rng.standard_gamma(0.5, counts.shape)
    all_tp, _, all_fn, _ = examples.counts.sum(axis=1).reshape(4, classes, 1)
    return np.where(all_tp + all_fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def resample_weights(
    count: int, resamples: int, seed: int
) -> Iterator[Float32[np.ndarray, "examples chunk"]]:
    """How often each example is drawn in each resample, in chunks of resamples.

    The draws depend on the seed alone, not on the chunks.
    """
    rng = np.random.default_rng(seed)
    for columns in chunk_sizes(count, resamples):
        drawn = rng.integers(0, count, (columns, count))
        counts = [np.bincount(row, minlength=count).astype(np.float32) for row in drawn]
        yield np.stack(counts, axis=1)


def chunk_sizes(count: int, total: int, max_columns: int = MAX_COLUMNS) -> Iterator[int]:
    """Split `total` columns of weights on `count` examples into chunks that bound the memory."""
    size = max(min(max_columns, MAX_ENTRIES // max(count, 1)), 1)
    yield from (min(size, total - start) for start in range(0, total, size))


def leave_out_weights(count: int) -> Float32[np.ndarray, "examples groups"]:
    """Jackknife weights: 0 for one group of examples in each column, 1 for the others."""
    groups = min(count, JACKKNIFE_GROUPS)
    return (np.arange(count)[:, None] % max(groups, 1) != np.arange(groups)).astype(np.float32)


def influence(without: Influences) -> Influences:
    """The influence of each group on each metric, from the metrics without it; 0 if undefined."""
    known = ~np.isnan(without)
    values, count = np.where(known, without, 0), np.maximum(known.sum(axis=1, keepdims=True), 1)
    difference = values.sum(axis=1, keepdims=True) / count - values
    return np.where(known, difference, 0) * (1 - 1 / count)


def acceleration(influences: Influences) -> PerMetric:
    """A sixth of the skewness of the sum of the influences; 0 where all are 0."""
    squares = np.sum(influences**2, axis=1)
    scale = 6 * squares**1.5
    cubes = np.sum(influences**3, axis=1)
    return np.divide(cubes, scale, out=np.zeros_like(scale), where=scale > 0)


def percentile(replicates: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    """The percentile interval."""
    return _quantiles(replicates[~np.isnan(replicates)], (1 - LEVEL) / 2, (1 + LEVEL) / 2)


def bca(
    value: float, replicates: Float[np.ndarray, " resamples"], skew: float
) -> tuple[float, float]:
    """The BCa interval. Half of the replicates equal to the value count as below it."""
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return float("nan"), float("nan")
    difference = known - value
    below = np.mean(difference < -1e-12) + np.mean(np.abs(difference) <= 1e-12) / 2
    bias = NORMAL.inv_cdf(float(np.clip(below, 0.5 / len(known), 1 - 0.5 / len(known))))

    def adjust(quantile: float) -> float:
        z = bias + NORMAL.inv_cdf(quantile)
        # The bound matters only for a metric that depends on a single example.
        return NORMAL.cdf(bias + z / max(1 - skew * z, 0.1))

    return _quantiles(known, adjust((1 - LEVEL) / 2), adjust((1 + LEVEL) / 2))


def widen(
    interval: tuple[float, float],
    value: float,
    replicates: Float[np.ndarray, " resamples"],
    largest: float,
) -> tuple[float, float]:
    """The interval, widened by the percentile interval with its median moved to the value; between
    0 and `largest`."""
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return interval
    low, high = (end - float(np.median(known)) + value for end in percentile(known))
    return max(min(interval[0], low), 0.0), min(max(interval[1], high), largest)


def _quantiles(known: np.ndarray, low: float, high: float) -> tuple[float, float]:
    if not len(known):
        return float("nan"), float("nan")
    return float(np.quantile(known, low)), float(np.quantile(known, high))
