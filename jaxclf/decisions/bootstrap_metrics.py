"""Every metric under weights on the examples, for the bootstrap."""

import numpy as np
from jaxtyping import Float64

from jaxclf.decisions.metrics import METRICS, Metric
from jaxclf.decisions.weighted_counts import (
    ExampleCounts,
    PerResample,
    Weights,
    apply_weights,
    mean_over_labels,
)


def weighted_metrics(
    examples: ExampleCounts, weights: Weights
) -> Float64[np.ndarray, "metrics resamples"]:
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
) -> Float64[np.ndarray, "metrics resamples"]:
    """Macro F1, then each label's, with a draw from Gamma(1/2) added to every count.

    A label without positives among all examples is NaN and left out.
    """
    classes, resamples = len(examples.rankings), weights.shape[1]
    counts = (examples.counts @ weights).reshape(4, classes, resamples)[:3]
    tp, fp, fn = counts + rng.standard_gamma(0.5, counts.shape)
    all_tp, _, all_fn, _ = examples.counts.sum(axis=1).reshape(4, classes, 1)
    f1 = np.where(all_tp + all_fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)
    return np.concatenate([mean_over_labels(f1)[None], f1])
