"""Multi-label metrics on arrays of labels, probabilities and decisions.

Labels are 0, 1 or NaN where not known; a NaN counts for nothing. A figure about which nothing can
be said is NaN: a label without positives has no F1, AUC or AP, and is left out of macro means.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Labels = Float[np.ndarray, "examples classes"]
Probs = Float[np.ndarray, "examples classes"]
Decided = Bool[np.ndarray, "examples classes"]
PerLabel = Float[np.ndarray, " classes"]

ECE_BINS = 15


class Counts(NamedTuple):
    """Per label: true positives, false positives, false negatives, true negatives."""

    tp: PerLabel
    fp: PerLabel
    fn: PerLabel
    tn: PerLabel


def count(labels: Labels, decided: Decided) -> Counts:
    true, false = labels == 1, labels == 0
    cells = (true & decided, false & decided, true & ~decided, false & ~decided)
    return Counts(*(cell.sum(axis=0).astype(np.float64) for cell in cells))


def ratio(above, below):
    """above / below, NaN where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)


def precision(counts: Counts) -> PerLabel:
    """NaN where nothing was decided positive."""
    return ratio(counts.tp, counts.tp + counts.fp)


def recall(counts: Counts) -> PerLabel:
    """NaN where there are no positives."""
    return ratio(counts.tp, counts.tp + counts.fn)


def f1(counts: Counts) -> PerLabel:
    """NaN where there are no positives, whatever was decided."""
    score = ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)
    return np.where(counts.tp + counts.fn > 0, score, np.nan)


def mean_where_known(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The mean of what is not NaN; NaN where all is."""
    weights = np.ones_like(values) if weights is None else weights
    there = ~np.isnan(values) & (weights > 0)
    return float(ratio(np.sum((values * weights)[there]), np.sum(weights[there])))


def auc(labels: Labels, probs: Probs) -> PerLabel:
    """Area under the ROC curve by ranks, ties shared (Mann and Whitney 1947)."""
    return _each_label(_auc, labels, probs)


def average_precision(labels: Labels, probs: Probs) -> PerLabel:
    """Sum of precision over steps of recall, one step per distinct score, not interpolated."""
    return _each_label(_average_precision, labels, probs)


def _each_label(score, labels: Labels, probs: Probs) -> PerLabel:
    columns = []
    for y, p in zip(labels.T, probs.T, strict=True):
        known = ~np.isnan(y)
        columns.append(score(y[known] == 1, p[known]))
    return np.array(columns, np.float64)


def cumulative(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores, tp, decided): for each distinct score, falling, the counts at `p >= score`."""
    scores, positive = _by_score(y, p)
    last = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    return scores[last], np.cumsum(positive)[last], np.flatnonzero(last) + 1


def _by_score(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores falling, and whether each is a positive's."""
    if p.dtype != np.float32 or (len(p) and (p.min() < 0 or p.max() > 1)):
        order = np.argsort(-p, kind="stable")
        return p[order], y[order]
    # Bits of floats from 0 to 1 order as the floats do and leave the highest two free: with the
    # label as the lowest, one sort of numbers does what sorting indices does in five times as long.
    key = (p + np.float32(0)).view(np.uint32) << np.uint32(1) | y.astype(np.uint32)
    key.sort()
    key = key[::-1]
    return (key >> np.uint32(1)).view(np.float32), (key & np.uint32(1)).astype(bool)


def _auc(y: np.ndarray, p: np.ndarray) -> float:
    positives, negatives = int(y.sum()), int((~y).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    _, tp, decided = cumulative(y, p)
    fp = decided - tp
    return float(np.trapezoid(np.append(0, tp), np.append(0, fp)) / (positives * negatives))


def _average_precision(y: np.ndarray, p: np.ndarray) -> float:
    if not y.any():
        return float("nan")
    _, tp, decided = cumulative(y, p)
    return float(np.sum(np.diff(tp, prepend=0) * tp / decided) / y.sum())


def expected_calibration_error(labels: Labels, probs: Probs) -> float:
    """Mean gap between probability and frequency over equal-width bins, all labels together (Guo
    et al. 2017, arXiv 1706.04599)."""
    known = ~np.isnan(labels)
    y, p = labels[known], probs[known].astype(np.float64)
    bins = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.abs(np.bincount(bins, p, ECE_BINS) - np.bincount(bins, y, ECE_BINS))
    return float(ratio(gaps.sum(), len(y)))


def calibration_error(labels: Labels, probs: Probs) -> PerLabel:
    """`expected_calibration_error` of each label alone; NaN where nothing is known of it."""
    pairs = zip(
        np.split(labels, labels.shape[1], 1), np.split(probs, probs.shape[1], 1), strict=True
    )
    return np.array([expected_calibration_error(y, p) for y, p in pairs], np.float64)


def brier(labels: Labels, probs: Probs) -> PerLabel:
    """Mean squared difference between probability and truth (Brier 1950), NaN where nothing is
    known; `reshape(-1, 1)` both for all labels together."""
    known = ~np.isnan(labels)
    squares = np.where(known, probs.astype(np.float64) - labels, 0) ** 2
    return ratio(squares.sum(axis=0), known.sum(axis=0))


def log_loss(labels: Labels, probs: Probs) -> float:
    """Mean binary cross-entropy in nats; probabilities are held 1e-7 away from 0 and 1."""
    known = ~np.isnan(labels)
    y, p = labels[known], np.clip(probs[known].astype(np.float64), 1e-7, 1 - 1e-7)
    return float(ratio(-np.sum(y * np.log(p) + (1 - y) * np.log1p(-p)), len(y)))


def samples_f1(labels: Labels, decided: Decided) -> float:
    """Mean over examples of the F1 of their label sets; two empty sets agree, 1. An example of
    which nothing is known is left out."""
    true, known = labels == 1, ~np.isnan(labels)
    decided = decided & known
    both = (true & decided).sum(axis=1)
    either = true.sum(axis=1) + decided.sum(axis=1)
    each = np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)
    return mean_where_known(each, np.asarray(known.any(axis=1)))


def aggregate(labels: Labels, probs: Probs, decided: Decided) -> dict[str, float]:
    """The figures of a report's headline, by name."""
    counts = count(labels, decided)
    per_label = f1(counts)
    known = ~np.isnan(labels)
    right = ((labels == 1) == decided) | ~known
    wrong = float((known & ~right).sum())
    micro = ratio(2 * counts.tp.sum(), 2 * counts.tp.sum() + counts.fp.sum() + counts.fn.sum())
    return {
        "macro_f1": mean_where_known(per_label),
        "micro_f1": float(micro),
        "weighted_f1": mean_where_known(per_label, counts.tp + counts.fn),
        "samples_f1": samples_f1(labels, decided),
        "subset_accuracy": mean_where_known(right.all(axis=1), np.asarray(known.any(axis=1))),
        "label_accuracy": 1 - float(ratio(wrong, known.sum())),
        "hamming_loss": float(ratio(wrong, known.sum())),
        "macro_auc": mean_where_known(auc(labels, probs)),
        "map": mean_where_known(average_precision(labels, probs)),
        "ece": expected_calibration_error(labels, probs),
        "log_loss": log_loss(labels, probs),
    }


# What `train.metric` may name: higher is better.
SELECTION = (
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "subset_accuracy",
    "label_accuracy",
    "macro_auc",
    "map",
)


def by_label(
    labels: Labels, probs: Probs, decided: Decided, names: tuple[str, ...]
) -> dict[str, Mapping[str, float]]:
    """precision, recall, f1, auc, ap and support of every label."""
    counts = count(labels, decided)
    columns = {
        "precision": precision(counts),
        "recall": recall(counts),
        "f1": f1(counts),
        "auc": auc(labels, probs),
        "ap": average_precision(labels, probs),
        "support": counts.tp + counts.fn,
    }
    return {
        name: {key: float(column[index]) for key, column in columns.items()}
        for index, name in enumerate(names)
    }
