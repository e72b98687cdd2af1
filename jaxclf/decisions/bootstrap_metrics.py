"""The figures of `metrics.aggregate` under weights on the examples, for many weightings at once.

A weight says how often an example counts, so a resample of the examples is a column of weights,
and so is a jackknife. Counts are one sparse product of cells and weights. A label's ranking is
sorted once, then cut after every score a positive has: weights are only summed between the cuts,
and AUC and AP follow from the running sums.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.sparse import csr_array

from jaxclf.decisions.metrics import ECE_BINS, Decided, Labels, Probs, ratio

# The names of `metrics.aggregate`, in its order.
METRICS: tuple[str, ...] = (
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "subset_accuracy",
    "label_accuracy",
    "hamming_loss",
    "macro_auc",
    "map",
    "ece",
    "log_loss",
)

Weights = Float32[np.ndarray, "examples resamples"]


class WeightedCounts(NamedTuple):
    """What the figures need of labels and one system's outputs, as sparse rows over examples.

    counts: [4 classes, examples], true positives, false positives, false negatives and unknowns.
    sums: [4 + bins, examples], per example whether anything is known, its samples F1, whether all
    is right, its log loss, and its probability less its truth in each of ECE's bins.
    rankings: per label [3 cuts, examples], the negatives since the cut before, the positives at
    the cut, the negatives tied with them.
    """

    counts: Any
    sums: Any
    rankings: tuple[Any, ...]


def weighted_counts(labels: Labels, probs: Probs, decided: Decided) -> WeightedCounts:
    true, known = labels == 1, ~np.isnan(labels)
    decided = decided & known
    cells = [true & decided, known & ~true & decided, true & ~decided, ~known]
    return WeightedCounts(
        csr_array(np.concatenate(cells, axis=1).T.astype(np.float32)),
        csr_array(_sums(true, known, probs, decided)),
        tuple(
            _ranking(*columns) for columns in zip(true.T, known.T, np.asarray(probs).T, strict=True)
        ),
    )


def _sums(true, known, probs, decided) -> Float64[np.ndarray, "sums examples"]:
    spoken = known.any(axis=1)
    either = true.sum(axis=1) + decided.sum(axis=1)
    f1 = np.where(either > 0, 2 * (true & decided).sum(axis=1) / np.maximum(either, 1), 1.0)
    p = np.where(known, probs, 0).astype(np.float64)
    held = np.clip(p, 1e-7, 1 - 1e-7)
    losses = -np.where(true, np.log(held), np.log1p(-held))
    bins = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.where(known, p - true, 0)
    per_bin = [np.where(bins == index, gaps, 0).sum(axis=1) for index in range(ECE_BINS)]
    right = spoken & (true == decided).all(axis=1)
    return np.stack([spoken, f1 * spoken, right, np.where(known, losses, 0).sum(axis=1), *per_bin])


def _ranking(true, known, p) -> Any:
    """Sparse 0 and 1 of a label, as in `Table`; cuts fall from the highest score of a positive."""
    order = np.flatnonzero(known)
    order = order[np.argsort(-p[order], kind="stable")]
    truth, scores = true[order], p[order]
    group = np.cumsum(np.append(False, scores[1:] != scores[:-1]))[: len(order)]
    cuts = np.unique(group[truth])
    cut = np.searchsorted(cuts, group)
    above = ~truth & (cut < len(cuts))  # the negatives below every positive are counted elsewhere
    tied = above & (np.append(cuts, -1)[cut] == group)
    rows = np.concatenate([cut[above], len(cuts) + cut[truth], 2 * len(cuts) + cut[tied]])
    columns = np.concatenate([order[above], order[truth], order[tied]])
    ones = np.ones(len(rows), np.float32)
    return csr_array((ones, (rows, columns)), shape=(3 * len(cuts), len(true)))


def figures(table: WeightedCounts, weights: Weights) -> Float64[np.ndarray, "figures resamples"]:
    """A row for each of METRICS, then one for each label's F1; a column for each weighting.

    NaN where `metrics.aggregate` says NaN. Weights are whole numbers that sum to at most 2**24, up
    to where float32 counts exactly.
    """
    classes, resamples = len(table.rankings), weights.shape[1]
    counts = (table.counts @ weights).reshape(4, classes, resamples).astype(np.float64)
    tp, fp, fn, unknown = counts
    total = weights.sum(axis=0, dtype=np.float64)
    spoken, samples, right, loss, *gaps = table.sums @ weights.astype(np.float64)
    known = classes * total - unknown.sum(axis=0)
    wrong = ratio((fp + fn).sum(axis=0), known)
    support = tp + fn
    f1 = np.where(support > 0, ratio(2 * tp, 2 * tp + fp + fn), np.nan)
    ranked = np.empty((2, classes, resamples))
    for label, ranking in enumerate(table.rankings):
        positives = support[label]
        negatives = total - unknown[label] - positives
        ranked[:, label] = _areas(ranking, weights, positives, negatives)
    ones = np.ones_like(f1)
    rows = {
        "macro_f1": _mean(f1, ones),
        "micro_f1": ratio(2 * tp.sum(axis=0), (2 * tp + fp + fn).sum(axis=0)),
        "weighted_f1": _mean(f1, support),
        "samples_f1": ratio(samples, spoken),
        "subset_accuracy": ratio(right, spoken),
        "label_accuracy": 1 - wrong,
        "hamming_loss": wrong,
        "macro_auc": _mean(ranked[0], ones),
        "map": _mean(ranked[1], ones),
        "ece": ratio(np.abs(gaps).sum(axis=0), known),
        "log_loss": ratio(loss, known),
    }
    return np.concatenate([[rows[name] for name in METRICS], f1])


def smoothed_f1(
    table: WeightedCounts, weights: Weights, rng: np.random.Generator
) -> Float64[np.ndarray, "figures resamples"]:
    """Macro F1, then each label's, every count with a draw from Gamma(1/2) added to it.

    A label without positives in the table, not in a weighting, is NaN and left out.
    """
    classes, resamples = len(table.rankings), weights.shape[1]
    counts = (table.counts @ weights).reshape(4, classes, resamples)[:3]
    tp, fp, fn = counts + rng.standard_gamma(0.5, counts.shape)
    hits, _, misses, _ = table.counts.sum(axis=1).reshape(4, classes, 1)
    there = hits + misses > 0
    f1 = np.where(there, 2 * tp / (2 * tp + fp + fn), np.nan)
    return np.concatenate([_mean(f1, np.ones_like(f1))[None], f1])


def _areas(ranking, weights, positives, negatives):
    """(AUC, AP) of one label by weighting. At a cut, `fp` negatives lie above or are tied."""
    cuts, resamples = ranking.shape[0] // 3, weights.shape[1]
    above, true, tied = (ranking @ weights).reshape(3, cuts, resamples)
    fp, tp = np.cumsum(above, axis=0), np.cumsum(true, axis=0)
    true = true.astype(np.float64)
    won = np.sum(true * (negatives - fp + tied / 2), axis=0)
    precision = np.divide(tp, np.maximum(fp + tp, 1), dtype=np.float64)
    return ratio(won, positives * negatives), ratio(np.sum(true * precision, axis=0), positives)


def _mean(values, weights) -> Float[np.ndarray, " resamples"]:
    """Weighted means over labels of what is not NaN."""
    there = ~np.isnan(values)
    return ratio(
        np.sum(np.where(there, values, 0) * weights, axis=0), np.sum(weights * there, axis=0)
    )
