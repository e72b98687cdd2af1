"""What each picture of a run shows, as named columns of one length: plots.py draws them, and they
stand as CSV beside the picture.

A label of which a picture can say nothing has one row of NaN, an empty cell in the CSV.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxclf.decisions.arrays import ECE_BINS, Labels, PerLabel, Probs, ratio
from jaxclf.decisions.intervals import LEVEL
from jaxclf.decisions.ranking import cumulative_counts

Columns = dict[str, np.ndarray]
Names = tuple[str, ...]

GRID = 201  # thresholds along a label's threshold curves
BARS = 30  # of a label's histogram
LENGTH_BINS, TEXTS_PER_BIN = 10, 20  # at most, at least


def precision_recall(labels: Labels, probs: Probs, thresholds: PerLabel, names: Names) -> Columns:
    """Corners of each label's curve, thresholds falling; the row with `chosen` 1 is no part of the
    curve but the point at the label's own threshold. NaN for a label without positives."""

    def pieces() -> Iterator[tuple]:
        for name, truth, scores, threshold in _each(labels, probs, thresholds, names):
            if not truth.any():
                yield name, np.nan, np.nan, np.nan, 0
                continue
            cuts, tp, given = cumulative_counts(truth, scores)
            moves = np.diff(tp) != 0
            keep = np.append(True, moves) | np.append(moves, True)
            recall, precision = tp[keep] / truth.sum(), tp[keep] / given[keep]
            yield name, np.inf, 0.0, 1.0, 0  # a threshold that nothing reaches
            yield name, cuts[keep], recall, precision, 0
            tp, given = _reaching(truth, scores, np.array([threshold]))
            yield name, threshold, tp / truth.sum(), ratio(tp, given), 1

    return _stack("label threshold recall precision chosen", pieces())


def roc(labels: Labels, probs: Probs, thresholds: PerLabel, names: Names) -> Columns:
    """As `precision_recall`, of true against false positive rates. NaN for a label without
    positives or without negatives."""

    def pieces() -> Iterator[tuple]:
        for name, truth, scores, threshold in _each(labels, probs, thresholds, names):
            positives, negatives = truth.sum(), (~truth).sum()
            if not positives or not negatives:
                yield name, np.nan, np.nan, np.nan, 0
                continue
            cuts, tp, given = cumulative_counts(truth, scores)
            moves = np.diff([tp, given - tp])
            bends = (moves[:, 1:] != moves[:, :-1]).any(axis=0)
            keep = np.concatenate([[True], bends, [True]])[: len(cuts)]
            fp = given - tp
            yield name, np.inf, 0.0, 0.0, 0
            yield name, cuts[keep], fp[keep] / negatives, tp[keep] / positives, 0
            tp, given = _reaching(truth, scores, np.array([threshold]))
            yield name, threshold, (given - tp) / negatives, tp / positives, 1

    return _stack("label threshold false_positive_rate true_positive_rate chosen", pieces())


def threshold_curves(labels: Labels, probs: Probs, thresholds: PerLabel, names: Names) -> Columns:
    """Precision, recall and F1 at evenly spaced thresholds from a label's lowest to its highest
    probability, and at its own threshold (`chosen` 1). NaN for a label without positives."""

    def pieces() -> Iterator[tuple]:
        for name, truth, scores, threshold in _each(labels, probs, thresholds, names):
            if not truth.any():
                yield name, threshold, np.nan, np.nan, np.nan, 0
                continue
            grid = np.linspace(*_range(scores, threshold), GRID)
            for cuts, chosen in ((grid, 0), (np.array([threshold]), 1)):
                tp, given = _reaching(truth, scores, cuts)
                recall, f1 = tp / truth.sum(), 2 * tp / (given + truth.sum())
                yield name, cuts, ratio(tp, given), recall, f1, chosen

    return _stack("label threshold precision recall f1 chosen", pieces())


def reliability(labels: Labels, probs: Probs, names: Names) -> Columns:
    """Mean probability and frequency in bins of equal width, empty ones left out: first of all
    labels together (`all` 1), whose mean gap weighted by count is the ECE, then of each."""

    def bins(y: np.ndarray, p: np.ndarray) -> tuple:
        known = ~np.isnan(y)
        y, p = y[known], p[known].astype(np.float64)
        index = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
        count = np.bincount(index, minlength=ECE_BINS)
        there = np.flatnonzero(count)
        if not len(there):
            return np.nan, np.nan, np.nan, np.nan, 0
        sums = (np.bincount(index, weights, ECE_BINS)[there] for weights in (p, y))
        means = (total / count[there] for total in sums)
        return there / ECE_BINS, (there + 1) / ECE_BINS, *means, count[there]

    columns = zip(names, labels.T, probs.T, strict=True)
    pieces = [("all labels", 1, *bins(labels.ravel(), probs.ravel()))]
    pieces += [(name, 0, *bins(y, p)) for name, y, p in columns]
    return _stack("label all low high probability frequency count", pieces)


def score_histograms(labels: Labels, probs: Probs, thresholds: PerLabel, names: Names) -> Columns:
    """How many positives and negatives have a probability from `low` to `high`, per label, from
    its lowest to its highest. NaN for a label of which nothing is known."""

    def pieces() -> Iterator[tuple]:
        for name, truth, scores, threshold in _each(labels, probs, thresholds, names):
            if not len(truth):
                yield name, np.nan, np.nan, 0, 0, threshold
                continue
            edges = np.linspace(*_range(scores, threshold), BARS + 1)
            positives, negatives = (
                np.histogram(scores[which], edges)[0] for which in (truth, ~truth)
            )
            yield name, edges[:-1], edges[1:], positives, negatives, threshold

    return _stack("label low high positives negatives threshold", pieces())


def error_pairs(
    labels: Labels, decided: Bool[np.ndarray, "examples classes"], names: Names
) -> Columns:
    """In how many texts `given` was given wrongly while `missed` was missed, beside how often
    `given` was given wrongly at all."""
    wrongly, missed = (labels == 0) & decided, (labels == 1) & ~decided
    texts = wrongly.T.astype(int) @ missed.astype(int)
    pieces = [
        (name, np.array(names), row, total)
        for name, row, total in zip(names, texts, wrongly.sum(axis=0), strict=True)
    ]
    return _stack("given missed texts false_positives", pieces)


def training(lines: Sequence[Mapping[str, Any]]) -> Columns:
    """Lines of metrics.jsonl: loss, its running mean and rate of logged batches; score and log
    loss on val after each epoch."""
    batches = [line for line in lines if "loss" in line]
    epochs = [line for line in lines if "epoch/epoch" in line]
    nan = np.nan

    def of(lines: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
        return np.array([line.get(key, nan) for line in lines], np.float64)  # no NaN is logged

    loss, step = of(batches, "loss"), of(batches, "step")
    after = tuple(of(epochs, f"epoch/{key}") for key in ("epoch", "score", "log_loss"))
    pieces = (
        (step, nan, loss, _running_mean(loss), of(batches, "learning_rate"), nan, nan),
        (of(epochs, "step"), after[0], nan, nan, nan, *after[1:]),
    )
    return _stack("batch epoch loss running_mean rate score log_loss", pieces)


def length_errors(
    lengths: Int[np.ndarray, " examples"],
    labels: Labels,
    decided: Bool[np.ndarray, "examples classes"],
) -> Columns:
    """Share of texts with at least one wrong label, by length in tokens, in bins of about equally
    many texts, with 95 % intervals (Wilson 1927). A text of which nothing is known is left out."""
    known = (~np.isnan(labels)).any(axis=1)
    wrong = (((labels == 1) != decided) & ~np.isnan(labels)).any(axis=1)[known]
    lengths = lengths[known]
    count = int(np.clip(len(lengths) // TEXTS_PER_BIN, 1, LENGTH_BINS))
    ends = np.sort(lengths)[np.arange(1, count) * len(lengths) // count]
    index = np.searchsorted(np.unique(ends), lengths, side="right")
    pieces = []
    for inside in (index == which for which in np.unique(index)):
        n, k = inside.sum(), wrong[inside].sum()
        pieces.append((lengths[inside].min(), lengths[inside].max(), n, k, k / n, *wilson(k, n)))
    return _stack("shortest longest texts wrong share interval_low interval_high", pieces)


def wilson(successes: int | np.integer, trials: int | np.integer) -> tuple[float, float]:
    """The interval of a share (Wilson 1927), which stays within 0 and 1."""
    z, share = NormalDist().inv_cdf((1 + LEVEL) / 2), successes / trials
    middle = share + z**2 / (2 * trials)
    reach = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    low, high = (float((middle + side) / (1 + z**2 / trials)) for side in (-reach, reach))
    return max(low, 0.0), min(high, 1.0)


def by_label(columns: Columns, key: str = "label") -> dict[str, Columns]:
    """The rows of each label, in order."""
    return {
        str(name): {column: values[columns[key] == name] for column, values in columns.items()}
        for name in dict.fromkeys(columns[key].tolist())
    }


def save_columns(path: Path, columns: Columns) -> None:
    """CSV with every figure to its last bit, NaN an empty cell; written whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*(values.tolist() for values in columns.values()), strict=True):
            writer.writerow(["" if value != value else value for value in row])
    part.replace(path)


def _each(labels: Labels, probs: Probs, thresholds: PerLabel, names: Names) -> Iterator[tuple]:
    """Per label its name, truth and probabilities where known, and threshold."""
    for name, y, p, threshold in zip(names, labels.T, probs.T, thresholds, strict=True):
        known = ~np.isnan(y)
        yield name, y[known] == 1, p[known].astype(np.float64), float(threshold)


def _reaching(truth: np.ndarray, scores: np.ndarray, cuts: np.ndarray) -> list[np.ndarray]:
    """True positives, and all that are given, at `score >= cut`."""
    return [
        len(some) - np.searchsorted(np.sort(some), cuts, side="left")
        for some in (scores[truth], scores)
    ]


def _range(scores: np.ndarray, threshold: float) -> tuple[float, float]:
    """From the lowest probability to the highest, wide enough to be drawn and for the threshold."""
    low, high = min(scores.min(), threshold), max(scores.max(), threshold)
    return (low, high) if high - low > 1e-6 else (low - 0.05, high + 0.05)


def _running_mean(values: Float[np.ndarray, " lines"]) -> Float[np.ndarray, " lines"]:
    """Over about a twentieth of the line, centred, shorter at its ends."""
    reach = len(values) // 40
    sums = np.append(0.0, np.cumsum(values))
    low = np.maximum(np.arange(len(values)) - reach, 0)
    high = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _stack(header: str, pieces: Iterable[tuple]) -> Columns:
    """Pieces below each other; a single value in a piece stands in each of its rows."""
    stacked = [np.broadcast_arrays(*map(np.atleast_1d, piece)) for piece in pieces]
    return {
        name: np.concatenate([piece[index] for piece in stacked]) if stacked else np.zeros(0)
        for index, name in enumerate(header.split())
    }
