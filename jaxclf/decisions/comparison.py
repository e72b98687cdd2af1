"""Compare two systems on the same examples: differences, intervals and p-values.

Intervals are of a paired bootstrap: both systems are scored on the same resamples. p-values are of
approximate randomization (Noreen 1989, "Computer-intensive methods for testing hypotheses"): the
outputs of the systems are swapped at random for every example, and p is the share of swaps with a
difference at least as large.

A system may be several runs that differ in their seed; its metric is their mean. A resample draws
runs as well as examples, one run fewer than there are, which makes the variance of the mean
unbiased (Rao and Wu 1988, "Resampling inference with complex survey data"). The interval covers
other seeds; the p-value is about these runs only.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxclf.decisions.arrays import Decided, Labels, Probs
from jaxclf.decisions.intervals import (
    LEVEL,
    MAX_COLUMNS,
    SEED,
    acceleration,
    bca,
    chunk_sizes,
    influence,
    leave_out_weights,
    percentile,
    resample_weights,
    weighted_metrics,
)
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.weighted_counts import ExampleCounts, count_examples

Outputs = tuple[Probs, Decided]
PerMetric = Float64[np.ndarray, " metrics"]


class Difference(NamedTuple):
    """The metric of the first system minus that of the second; NaN where undefined."""

    first: float
    second: float
    value: float
    replicates: Float64[np.ndarray, " resamples"]
    percentile: tuple[float, float]
    bca: tuple[float, float]
    p: float


class Compared(NamedTuple):
    """The METRICS by name, and the F1 of every label in order."""

    metrics: dict[str, Difference]
    f1: tuple[Difference, ...]


def paired(
    labels: Labels,
    first: Outputs | list[Outputs],
    second: Outputs | list[Outputs],
    resamples: int,
    swaps: int,
    seed: int = SEED,
    matched: bool = False,
) -> Compared:
    """Compare two systems, each (probs, decided) or a list of these, one for each run.

    matched: the runs are the same networks in the same order with different decisions, so they are
        resampled together.
    """
    first, second = (side if isinstance(side, list) else [side] for side in (first, second))
    if not first or not second:
        raise ValueError("a system without runs cannot be compared")
    systems = [[count_examples(labels, *run) for run in side] for side in (first, second)]
    ones = np.ones((len(labels), 1), np.float32)
    scores = [_score_runs(system, ones)[..., 0] for system in systems]  # each [runs, metrics]
    if matched and len(scores[0]) != len(scores[1]):
        raise ValueError("matched systems must have the same number of runs")
    means = [score.mean(axis=0) for score in scores]
    values = means[0] - means[1]
    replicates = _replicates(systems, len(labels), resamples, seed, matched)
    skew = _acceleration(systems, len(labels), scores, matched)
    p_values = _randomization(labels, first, second, values, swaps, seed)
    columns = np.stack([*means, values, skew, p_values], axis=1).tolist()
    differences = [
        Difference(mean, second_mean, value, draws, percentile(draws), bca(value, draws, a), p)
        for (mean, second_mean, value, a, p), draws in zip(columns, replicates, strict=True)
    ]
    metrics = dict(zip(METRICS, differences, strict=False))
    return Compared(metrics, tuple(differences[len(METRICS) :]))


def _score_runs(
    runs: Sequence[ExampleCounts], weights: Float32[np.ndarray, "examples columns"]
) -> Float64[np.ndarray, "runs metrics columns"]:
    return np.stack([weighted_metrics(run, weights) for run in runs])


def _replicates(
    systems: Sequence[Sequence[ExampleCounts]], count: int, resamples: int, seed: int, matched: bool
) -> Float64[np.ndarray, "metrics resamples"]:
    rng = np.random.default_rng([seed, 1])  # the examples are drawn as in `bootstrap`
    chunks = []
    for weights in resample_weights(count, resamples, seed):
        first = _draw_shares(rng, len(systems[0]), weights.shape[1])
        second = first if matched else _draw_shares(rng, len(systems[1]), weights.shape[1])
        means = [
            np.einsum("rmc,rc->mc", _score_runs(runs, weights), shares)
            for runs, shares in zip(systems, (first, second), strict=True)
        ]
        chunks.append(means[0] - means[1])
    return np.concatenate(chunks, axis=1)


def _draw_shares(
    rng: np.random.Generator, runs: int, columns: int
) -> Float64[np.ndarray, "runs columns"]:
    """The share of each run in the mean of every resample."""
    drawn = rng.integers(0, runs, (columns, max(runs - 1, 1)))
    return np.stack([np.mean(drawn == run, axis=1) for run in range(runs)])


def _acceleration(
    systems: Sequence[Sequence[ExampleCounts]], count: int, scores, matched: bool
) -> PerMetric:
    """By a jackknife over examples, and over the runs of a system that has several."""
    weights = leave_out_weights(count)
    means = [_score_runs(system, weights).mean(axis=0) for system in systems]
    influences = [influence(means[0] - means[1])]
    sides = [(scores[0] - scores[1], 1)] if matched else [(scores[0], 1), (scores[1], -1)]
    for side, sign in sides:
        if len(side) > 1:
            without = sign * (side.sum(axis=0) - side).T / (len(side) - 1)
            influences.append(influence(without))
    return acceleration(np.concatenate(influences, axis=1))


def _randomization(labels, first, second, values: PerMetric, swaps: int, seed: int) -> PerMetric:
    """Two-sided p-values; the unswapped outputs count as one of the swaps."""
    pairs = math.lcm(len(first), len(second))
    both = [
        count_examples(
            np.concatenate([labels, labels]), *map(np.concatenate, zip(a, b, strict=True))
        )
        for a, b in zip(islice(cycle(first), pairs), islice(cycle(second), pairs), strict=True)
    ]
    as_large, known = np.ones(len(values)), np.ones(len(values))
    for weights in _swap_weights(len(labels), swaps, seed):
        scores = _score_runs(both, np.concatenate([weights, 1 - weights], axis=1)).mean(axis=0)
        swapped_first, swapped_second = np.split(scores, 2, axis=1)
        distance = np.abs(swapped_first - swapped_second)
        as_large += np.sum(distance >= np.abs(values)[:, None] - 1e-12, axis=1)
        known += np.sum(~np.isnan(distance), axis=1)
    return np.where(np.isnan(values), np.nan, as_large / known)


def _swap_weights(
    count: int, swaps: int, seed: int
) -> Iterator[Float32[np.ndarray, "twice_examples columns"]]:
    """The weights of one swapped system on the first system's outputs, then on the second's."""
    rng = np.random.default_rng([seed, 2])
    for columns in chunk_sizes(2 * count, swaps, MAX_COLUMNS // 2):
        keeps = rng.integers(0, 2, (columns, count), np.uint8).T
        yield np.concatenate([keeps, 1 - keeps]).astype(np.float32)


def holm(p_values: Sequence[float] | Float[np.ndarray, " tests"]) -> Float64[np.ndarray, " tests"]:
    """p-values adjusted by Holm's step-down method (1979, "A simple sequentially rejective multiple
    test procedure"). NaN stays NaN and does not count as a test."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]  # NaN sorts last
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def verdict(
    difference: float, low: float, high: float, p: float, higher_is_better: bool = True
) -> str:
    """Which of A and B is better, if the interval of A - B excludes 0 and p is at most 5 %."""
    is_above, is_below = difference > 0 and low > 0, difference < 0 and high < 0
    if not (is_above or is_below) or not p <= 1 - LEVEL:
        return "no evidence of a difference"
    return "A is better" if is_above == higher_is_better else "B is better"
