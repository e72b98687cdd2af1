"""Bootstrap intervals over examples, with thresholds held fixed (Efron 1979).

A resample without positives of a label leaves that label out of its macro means; a resample in
which a metric is undefined is left out of the interval. There are three kinds of interval:

percentile: the quantiles of the replicates.

BCa: the quantiles are shifted for bias and for a spread that changes with the metric (Efron 1987,
"Better bootstrap confidence intervals"); the acceleration is from a jackknife over 200 groups of
examples.

smoothed: for the F1 of a label and macro F1, which would get a zero-width interval if no positive
is found. Every count of every resample gets a draw from Gamma(1/2), after Jeffreys' prior of a
count (Goutte and Gaussier 2005, "A probabilistic interpretation of precision, recall and F-score");
the interval is widened to include the metric.

README.md says how often the intervals cover the truth.
"""

from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxclf.decisions.arrays import Decided, Labels, Probs
from jaxclf.decisions.metrics import METRICS, Metric
from jaxclf.decisions.weighted_counts import (
    ExampleCounts,
    PerResample,
    Weights,
    apply_weights,
    count_examples,
    mean_over_labels,
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

    `interval` is the one to report: smoothed for macro F1 and the F1 of a label, else BCa.
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
    macro_f1, *label_f1 = [percentile(row) for row in np.concatenate(smooth_chunks, axis=1)]
    smoothed = [macro_f1 if name == "macro_f1" else None for name in METRICS] + label_f1
    estimates = []
    for value, draws, a, ends in zip(values, replicates, skew, smoothed, strict=True):
        shifted = bca(value, draws, a)
        low, high = ends or shifted
        interval = (min(low, value), max(high, value))
        estimates.append(Estimate(value, draws, percentile(draws), shifted, interval))
    metrics = dict(zip(METRICS, estimates, strict=False))
    return Resampled(metrics, tuple(estimates[len(METRICS) :]))


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


def smoothed_f1(examples: ExampleCounts, weights: Weights, rng: np.random.Generator) -> Replicates:
    """Macro F1, then each label's, with a draw from Gamma(1/2) added to every count.

    A label without positives among all examples is NaN and left out.
    """
    classes, resamples = len(examples.rankings), weights.shape[1]
    counts = (examples.counts @ weights).reshape(4, classes, resamples)[:3]
    tp, fp, fn = counts + rng.standard_gamma(0.5, counts.shape)
    all_tp, _, all_fn, _ = examples.counts.sum(axis=1).reshape(4, classes, 1)
    f1 = np.where(all_tp + all_fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)
    return np.concatenate([mean_over_labels(f1)[None], f1])


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


def _quantiles(known: np.ndarray, low: float, high: float) -> tuple[float, float]:
    if not len(known):
        return float("nan"), float("nan")
    return float(np.quantile(known, low)), float(np.quantile(known, high))
