"""Two systems on the same examples: how large each difference is, and whether luck explains it.

Intervals are of a paired bootstrap: both systems are scored on the same resamples. p-values are of
approximate randomization (Noreen 1989, "Computer-intensive methods for testing hypotheses"): were
the systems alike, it would not matter whose output is whose, so their outputs for every example
are swapped by the toss of a coin, and p is how often a difference as large comes about. A swapped
system's ranking mixes the probabilities of both.

A system may be several runs that differ in their seed. Its figure is their mean, and a resample
draws runs as well as examples, one run fewer than there are, which makes the spread of their mean
unbiased (Rao and Wu 1988, "Resampling inference with complex survey data"). The p-value speaks of
these very runs, the interval also of others.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from jaxclf.decisions.arrays import Decided, Labels, Probs
from jaxclf.decisions.bootstrap_metrics import weighted_metrics
from jaxclf.decisions.intervals import (
    COLUMNS,
    LEVEL,
    SEED,
    acceleration,
    bca,
    chunks,
    influence,
    left_out,
    percentile,
    resampled,
)
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.weighted_counts import ExampleCounts, count_examples

RESAMPLES, SWAPS = 10_000, 10_000

Outputs = tuple[Probs, Decided]
PerFigure = Float64[np.ndarray, " figures"]


class Difference(NamedTuple):
    """One system's figure less the other's; NaN where nothing is known."""

    one: float
    other: float
    value: float
    replicates: Float64[np.ndarray, " resamples"]
    percentile: tuple[float, float]
    bca: tuple[float, float]
    p: float


class Compared(NamedTuple):
    """The figures of `metrics.aggregate` by name, and the F1 of every label in order."""

    metrics: dict[str, Difference]
    f1: tuple[Difference, ...]


def paired(
    labels: Labels,
    one: Outputs | list[Outputs],
    other: Outputs | list[Outputs],
    resamples: int = RESAMPLES,
    swaps: int = SWAPS,
    seed: int = SEED,
    matched: bool = False,
) -> Compared:
    """Compare two systems, each (probs, decided) or a list of such, one for each run.

    matched: the runs are the same networks in the same order, decided otherwise: what a seed gave
        to one it gave to the other, so they are resampled together.
    """
    sides = [side if isinstance(side, list) else [side] for side in (one, other)]
    if not all(sides):
        raise ValueError("a system without runs cannot be compared")
    ours, theirs = ([count_examples(labels, *run) for run in side] for side in sides)
    whole = np.ones((len(labels), 1), np.float32)
    first, second = (_each(side, whole)[..., 0] for side in (ours, theirs))  # [runs, figures]
    values = first.mean(axis=0) - second.mean(axis=0)
    if matched and len(first) != len(second):
        raise ValueError("matched systems have as many runs")
    replicates = _replicates(ours, theirs, len(labels), resamples, seed, matched)
    skew = _acceleration(ours, theirs, len(labels), first, second, matched)
    p = _randomization(labels, sides[0], sides[1], values, swaps, seed)
    columns = (first.mean(axis=0), second.mean(axis=0), values, skew, p)
    found = []
    for row, draws in zip(np.stack(columns, axis=1).tolist(), replicates, strict=True):
        mean, other_mean, value, a, chance = row
        ends = percentile(draws), bca(value, draws, a)
        found.append(Difference(mean, other_mean, value, draws, *ends, chance))
    metrics = dict(zip(METRICS, found, strict=False))
    return Compared(metrics, tuple(found[len(METRICS) :]))


def _each(
    runs: Sequence[ExampleCounts], weights: Float32[np.ndarray, "examples columns"]
) -> Float64[np.ndarray, "runs figures columns"]:
    return np.stack([weighted_metrics(run, weights) for run in runs])


def _replicates(
    ours: Sequence[ExampleCounts],
    theirs: Sequence[ExampleCounts],
    count: int,
    resamples: int,
    seed: int,
    matched: bool,
) -> Float64[np.ndarray, "figures resamples"]:
    rng = np.random.default_rng([seed, 1])  # the examples' draws are those of `bootstrap`
    found = []
    for weights in resampled(count, resamples, seed):
        one = _shares(rng, len(ours), weights.shape[1])
        other = one if matched else _shares(rng, len(theirs), weights.shape[1])
        means = [
            np.einsum("rfc,rc->fc", _each(runs, weights), shares)
            for runs, shares in ((ours, one), (theirs, other))
        ]
        found.append(means[0] - means[1])
    return np.concatenate(found, axis=1)


def _shares(
    rng: np.random.Generator, runs: int, columns: int
) -> Float64[np.ndarray, "runs columns"]:
    """Each run's share in the mean of a resample."""
    drawn = rng.integers(0, runs, (columns, max(runs - 1, 1)))
    return np.stack([np.mean(drawn == run, axis=1) for run in range(runs)])


def _acceleration(ours, theirs, count: int, first, second, matched: bool) -> PerFigure:
    """From a jackknife over examples and, where there are several, over the runs of each side, or
    of both together."""
    weights = left_out(count)
    without = _each(ours, weights).mean(axis=0) - _each(theirs, weights).mean(axis=0)
    pulls = [influence(without)]
    sides = [(first - second, 1)] if matched else [(first, 1), (second, -1)]
    for each, sign in sides:
        if len(each) > 1:
            pulls.append(influence(sign * (each.sum(axis=0) - each).T / (len(each) - 1)))
    return acceleration(np.concatenate(pulls, axis=1))


def _randomization(labels, one, other, values: PerFigure, swaps: int, seed: int) -> PerFigure:
    """Two-sided p-values, the outputs as they are counted as one of the swaps."""
    pairs = math.lcm(len(one), len(other))
    both = [
        count_examples(
            np.concatenate([labels, labels]), *map(np.concatenate, zip(a, b, strict=True))
        )
        for a, b in zip(islice(cycle(one), pairs), islice(cycle(other), pairs), strict=True)
    ]
    as_large, known = np.ones(len(values)), np.ones(len(values))
    for weights in _swapped(len(labels), swaps, seed):
        each = _each(both, np.concatenate([weights, 1 - weights], axis=1)).mean(axis=0)
        first, second = np.split(each, 2, axis=1)
        far = np.abs(first - second)
        as_large += np.sum(far >= np.abs(values)[:, None] - 1e-12, axis=1)
        known += np.sum(~np.isnan(far), axis=1)
    return np.where(np.isnan(values), np.nan, as_large / known)


def _swapped(
    count: int, swaps: int, seed: int
) -> Iterator[Float32[np.ndarray, "twice_examples columns"]]:
    """One system's weights on its own outputs, then on the other's."""
    rng = np.random.default_rng([seed, 2])
    for columns in chunks(2 * count, swaps, COLUMNS // 2):
        own = rng.integers(0, 2, (columns, count), np.uint8).T
        yield np.concatenate([own, 1 - own]).astype(np.float32)


def holm(p_values: Sequence[float] | Float[np.ndarray, " tests"]) -> Float64[np.ndarray, " tests"]:
    """p-values adjusted for their number by Holm's step-down method (1979, "A simple sequentially
    rejective multiple test procedure"). NaN is no test and stays NaN."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]  # NaN sorts last
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def verdict(
    difference: float, low: float, high: float, p: float, higher_is_better: bool = True
) -> str:
    """What a difference of A less B says. A is better, or B, only where the interval leaves out 0
    and p is at most 5 %."""
    above = difference > 0 and low > 0
    below = difference < 0 and high < 0
    if not (above or below) or not p <= 1 - LEVEL:
        return "no evidence of a difference"
    return "A is better" if above == higher_is_better else "B is better"
