"""Counts under weights on the examples, for many weightings at once.

A weight says how often an example counts, so a bootstrap resample is one column of weights, and so
is a jackknife. Counts are sparse matrix products. A label's ranking is sorted once and split after
every score of a positive; weights are summed between the splits, and AUC and AP follow from running
sums.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64
from scipy.sparse import csr_array

from jaxclf.decisions.arrays import ECE_BINS, LOG_LOSS_EDGE, Decided, Labels, Probs, ratio

Weights = Float32[np.ndarray, "examples resamples"]
PerResample = Float64[np.ndarray, " resamples"]
PerLabelAndResample = Float64[np.ndarray, "classes resamples"]


class ExampleCounts(NamedTuple):
    """What each example adds to the counts of one system.

    counts: sparse [4 classes, examples]: true positives, false positives, false negatives, unknown.
    sums: sparse [4, examples]: whether any label is known, the F1 of the example's labels, whether
        all of them are right, its log loss.
    gaps: sparse [classes bins, examples]: probability minus label, in its label's bin of the ECE.
    rankings: per label sparse [3 splits, examples]: the negatives since the split before, the
        positives at the split, the negatives tied with them.
    labels, probs, decided: the arrays themselves, for metrics without a weighted form.
    """

    counts: Any
    sums: Any
    gaps: Any
    rankings: tuple[Any, ...]
    labels: Labels
    probs: Probs
    decided: Decided


class WeightedCounts(NamedTuple):
    """Sums over examples, one column per weighting."""

    tp: PerLabelAndResample
    fp: PerLabelAndResample
    fn: PerLabelAndResample
    f1: PerLabelAndResample  # NaN without positives
    auc: PerLabelAndResample  # NaN without positives or negatives
    ap: PerLabelAndResample  # NaN without positives
    known_cells: PerResample
    known_examples: PerResample  # examples with any known label
    samples_f1: PerResample
    exact_matches: PerResample
    log_loss: PerResample
    bin_gaps: Float64[np.ndarray, "bins resamples"]  # probability minus label, per bin of the ECE
    ece: PerLabelAndResample  # NaN without known labels


def count_decisions(labels: Labels, decided: Decided) -> Any:
    """The `counts` of `ExampleCounts`."""
    positive, known = labels == 1, ~np.isnan(labels)
    negative = known & ~positive
    cells = [positive & decided, negative & decided, positive & ~decided, ~known]
    return csr_array(np.concatenate(cells, axis=1).T.astype(np.float32))


def count_examples(labels: Labels, probs: Probs, decided: Decided) -> ExampleCounts:
    """The counts of one system, ready to be weighted."""
    positive, known = labels == 1, ~np.isnan(labels)
    yes = decided & known
    columns = zip(positive.T, known.T, np.asarray(probs).T, strict=True)
    return ExampleCounts(
        count_decisions(labels, decided),
        csr_array(_sums(positive, known, probs, yes)),
        _gaps(positive, known, probs),
        tuple(_ranking(*column) for column in columns),
        labels,
        probs,
        decided,
    )


def _sums(positive, known, probs, yes) -> Float64[np.ndarray, "sums examples"]:
    any_known = known.any(axis=1)
    size = positive.sum(axis=1) + yes.sum(axis=1)
    f1 = np.where(size > 0, 2 * (positive & yes).sum(axis=1) / np.maximum(size, 1), 1.0)
    p = np.where(known, probs, 0).astype(np.float64)
    clipped = np.clip(p, LOG_LOSS_EDGE, 1 - LOG_LOSS_EDGE)
    losses = np.where(known, -np.where(positive, np.log(clipped), np.log1p(-clipped)), 0)
    exact = any_known & (positive == yes).all(axis=1)
    return np.stack([any_known, f1 * any_known, exact, losses.sum(axis=1)])


def _gaps(positive, known, probs) -> Any:
    examples, classes = np.nonzero(known)
    p = probs[known].astype(np.float64)
    rows = classes * ECE_BINS + np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    shape = (positive.shape[1] * ECE_BINS, len(positive))
    return csr_array((p - positive[known], (rows, examples)), shape=shape)


def _ranking(positive, known, probs) -> Any:
    """One label's part of `ExampleCounts.rankings`, from the highest score of a positive down."""
    order = np.flatnonzero(known)
    order = order[np.argsort(-probs[order], kind="stable")]
    is_positive, scores = positive[order], probs[order]
    group = np.cumsum(np.append(False, scores[1:] != scores[:-1]))[: len(order)]
    splits = np.unique(group[is_positive])
    split = np.searchsorted(splits, group)
    above = ~is_positive & (split < len(splits))  # negatives below every positive are not needed
    tied = above & (np.append(splits, -1)[split] == group)
    rows = np.concatenate(
        [split[above], len(splits) + split[is_positive], 2 * len(splits) + split[tied]]
    )
    columns = np.concatenate([order[above], order[is_positive], order[tied]])
    ones = np.ones(len(rows), np.float32)
    return csr_array((ones, (rows, columns)), shape=(3 * len(splits), len(positive)))


def apply_weights(examples: ExampleCounts, weights: Weights) -> WeightedCounts:
    """The counts under each column of weights.

    Weights are whole numbers that sum to at most 2**24, up to where float32 counts exactly.
    """
    classes, resamples = len(examples.rankings), weights.shape[1]
    counts = (examples.counts @ weights).reshape(4, classes, resamples).astype(np.float64)
    tp, fp, fn, unknown = counts
    total = weights.sum(axis=0, dtype=np.float64)
    known_examples, samples_f1, exact, loss = examples.sums @ weights.astype(np.float64)
    gaps = (examples.gaps @ weights.astype(np.float64)).reshape(classes, ECE_BINS, resamples)
    support = tp + fn
    f1 = np.where(support > 0, ratio(2 * tp, 2 * tp + fp + fn), np.nan)
    areas = np.empty((2, classes, resamples))
    for label, ranking in enumerate(examples.rankings):
        positives = support[label]
        negatives = total - unknown[label] - positives
        areas[:, label] = _areas(ranking, weights, positives, negatives)
    return WeightedCounts(
        tp=tp,
        fp=fp,
        fn=fn,
        f1=f1,
        auc=areas[0],
        ap=areas[1],
        known_cells=classes * total - unknown.sum(axis=0),
        known_examples=known_examples,
        samples_f1=samples_f1,
        exact_matches=exact,
        log_loss=loss,
        bin_gaps=gaps.sum(axis=0),
        ece=ratio(np.abs(gaps).sum(axis=1), total - unknown),
    )


def _areas(ranking, weights, positives, negatives) -> tuple[PerResample, PerResample]:
    """AUC and AP of one label; `fp` negatives lie above a split or are tied with it."""
    splits, resamples = ranking.shape[0] // 3, weights.shape[1]
    above, positive, tied = (ranking @ weights).reshape(3, splits, resamples)
    fp, tp = np.cumsum(above, axis=0), np.cumsum(positive, axis=0)
    positive = positive.astype(np.float64)
    pairs = np.sum(positive * (negatives - fp + tied / 2), axis=0)
    precision = np.divide(tp, np.maximum(fp + tp, 1), dtype=np.float64)
    ap = ratio(np.sum(positive * precision, axis=0), positives)
    return ratio(pairs, positives * negatives), ap


def mean_over_labels(
    values: PerLabelAndResample, weights: PerLabelAndResample | float = 1.0
) -> PerResample:
    """Weighted means over the labels whose value is not NaN."""
    counted = ~np.isnan(values)
    weights = np.broadcast_to(weights, values.shape)
    total = np.sum(np.where(counted, values, 0) * weights, axis=0)
    return ratio(total, np.sum(weights * counted, axis=0))
