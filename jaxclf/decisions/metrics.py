"""Metrics of multi-label predictions: one row of `METRICS` each, and the metrics of every label.

scikit-learn computes all it has a function for, on the known labels. A metric without the labels it
needs is NaN: a label without positives has no F1, AUC or AP and is left out of macro means.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn import metrics as sklearn_metrics

from jaxclf.decisions.arrays import (
    ECE_BINS,
    LOG_LOSS_EDGE,
    Decided,
    Labels,
    PerLabel,
    Probs,
    mean_where_known,
    ratio,
)
from jaxclf.decisions.weighted_counts import PerResample, WeightedCounts, mean_over_labels

NAN: Any = np.nan  # scikit-learn's stubs take only texts as zero_division


class LabelScores(NamedTuple):
    """Per label; precision is NaN without predicted positives, recall and F1 without positives."""

    precision: PerLabel
    recall: PerLabel
    f1: PerLabel
    support: PerLabel


def score_labels(labels: Labels, decided: Decided) -> LabelScores:
    """Precision, recall, F1 and number of positives of every label."""
    known, classes = ~np.isnan(labels), labels.shape[1]
    if not known.any():
        nothing = np.full(classes, np.nan)
        return LabelScores(nothing, nothing, nothing, np.zeros(classes))
    # Every known cell is one prediction of a single-label problem: its column, or none of them.
    column = np.broadcast_to(np.arange(classes), labels.shape)[known]
    scores = sklearn_metrics.precision_recall_fscore_support(
        np.where(labels[known] == 1, column, classes),
        np.where(decided[known], column, classes),
        labels=np.arange(classes),
        average=None,
        zero_division=NAN,
    )
    precision, recall, f1, support = (np.asarray(score, np.float64) for score in scores)
    return LabelScores(precision, recall, np.where(support > 0, f1, np.nan), support)


def auc(labels: Labels, probs: Probs) -> PerLabel:
    """Area under the ROC curve of every label; NaN without positives or without negatives."""
    return _each_label(sklearn_metrics.roc_auc_score, labels, probs, needs_negatives=True)


def average_precision(labels: Labels, probs: Probs) -> PerLabel:
    """Mean precision over the steps of recall, not interpolated; NaN without positives."""
    return _each_label(sklearn_metrics.average_precision_score, labels, probs)


def _each_label(
    score: Callable[..., float], labels: Labels, probs: Probs, needs_negatives: bool = False
) -> PerLabel:
    values = np.full(labels.shape[1], np.nan)
    for label, (y, p) in enumerate(zip(labels.T, probs.T, strict=True)):
        known = ~np.isnan(y)
        is_positive = y[known] == 1
        if is_positive.any() and not (needs_negatives and is_positive.all()):
            values[label] = score(is_positive, p[known])
    return values


def expected_calibration_error(labels: Labels, probs: Probs) -> float:
    """Mean distance of probability and frequency over equal-width bins, all labels together (Guo et
    al. 2017, arXiv 1706.04599)."""
    known = ~np.isnan(labels)
    y, p = labels[known], probs[known].astype(np.float64)
    bins = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.abs(np.bincount(bins, p, ECE_BINS) - np.bincount(bins, y, ECE_BINS))
    return float(ratio(gaps.sum(), len(y)))


def label_ece(labels: Labels, probs: Probs) -> PerLabel:
    """The expected calibration error of every label; NaN without known labels."""
    columns = ([index] for index in range(labels.shape[1]))
    values = [expected_calibration_error(labels[:, column], probs[:, column]) for column in columns]
    return np.array(values, np.float64)


def log_loss(labels: Labels, probs: Probs) -> float:
    """Mean binary cross-entropy in nats; probabilities are clipped to [1e-7, 1 - 1e-7]."""
    known = ~np.isnan(labels)
    if not known.any():
        return float("nan")
    clipped = np.clip(probs[known].astype(np.float64), LOG_LOSS_EDGE, 1 - LOG_LOSS_EDGE)
    return float(sklearn_metrics.log_loss(labels[known], clipped, labels=[0, 1]))


def macro_f1(labels: Labels, probs: Probs, decided: Decided) -> float:
    return mean_where_known(score_labels(labels, decided).f1)


def micro_f1(labels: Labels, probs: Probs, decided: Decided) -> float:
    known = ~np.isnan(labels)
    if not known.any():
        return float("nan")
    y_true, y_pred = labels[known] == 1, decided[known]
    return float(sklearn_metrics.f1_score(y_true, y_pred, zero_division=NAN))


def weighted_f1(labels: Labels, probs: Probs, decided: Decided) -> float:
    scores = score_labels(labels, decided)
    return mean_where_known(scores.f1, scores.support)


def samples_f1(labels: Labels, probs: Probs, decided: Decided) -> float:
    """Two empty sets of labels agree: F1 1. An example without known labels is left out."""
    positive, known = labels == 1, ~np.isnan(labels)
    decided = decided & known
    size = positive.sum(axis=1) + decided.sum(axis=1)
    both = (positive & decided).sum(axis=1)
    f1 = np.where(size > 0, 2 * both / np.maximum(size, 1), 1.0)
    return mean_where_known(f1, np.asarray(known.any(axis=1)))


def subset_accuracy(labels: Labels, probs: Probs, decided: Decided) -> float:
    known = ~np.isnan(labels)
    right = ((labels == 1) == decided) | ~known
    return mean_where_known(right.all(axis=1), np.asarray(known.any(axis=1)))


def hamming_loss(labels: Labels, probs: Probs, decided: Decided) -> float:
    known = ~np.isnan(labels)
    return float(ratio(float((known & ((labels == 1) != decided)).sum()), known.sum()))


class Metric(NamedTuple):
    """One metric of a report.

    compute: (labels, probs, decided) -> the metric.
    compute_weighted: the same under many weightings of the examples, for the bootstrap; without it
        the bootstrap computes the metric on every resample, which is slow.
    largest: no interval ends above it.
    """

    title: str
    meaning: str  # one sentence for a reader of the report
    compute: Callable[[Labels, Probs, Decided], float]
    compute_weighted: Callable[[WeightedCounts], PerResample] | None = None
    higher_is_better: bool = True
    largest: float = 1.0  # the smallest is 0


def _wrong_share(counts: WeightedCounts) -> PerResample:
    return ratio((counts.fp + counts.fn).sum(axis=0), counts.known_cells)


# What reports, comparisons, tables and the bootstrap know of a metric, by its key in report.json.
METRICS: Mapping[str, Metric] = {
    "macro_f1": Metric(
        "Macro F1",
        "Mean of the labels' F1; a rare label counts as much as a frequent one.",
        macro_f1,
        lambda counts: mean_over_labels(counts.f1),
    ),
    "micro_f1": Metric(
        "Micro F1",
        "F1 of all decisions pooled; frequent labels count most.",
        micro_f1,
        lambda counts: ratio(
            2 * counts.tp.sum(axis=0), (2 * counts.tp + counts.fp + counts.fn).sum(axis=0)
        ),
    ),
    "weighted_f1": Metric(
        "Weighted F1",
        "Mean of the labels' F1, weighted by their number of positives.",
        weighted_f1,
        lambda counts: mean_over_labels(counts.f1, counts.tp + counts.fn),
    ),
    "samples_f1": Metric(
        "Samples F1",
        "Mean over texts of the F1 of their sets of labels.",
        samples_f1,
        lambda counts: ratio(counts.samples_f1, counts.known_examples),
    ),
    "subset_accuracy": Metric(
        "Subset accuracy",
        "Share of texts with every label right.",
        subset_accuracy,
        lambda counts: ratio(counts.exact_matches, counts.known_examples),
    ),
    "label_accuracy": Metric(
        "Label accuracy",
        "Share of all decisions that are right.",
        lambda *arrays: 1 - hamming_loss(*arrays),
        lambda counts: 1 - _wrong_share(counts),
    ),
    "macro_auc": Metric(
        "Macro AUC",
        "Mean chance that a positive has a higher probability than a negative; guessing has 0.5.",
        lambda labels, probs, decided: mean_where_known(auc(labels, probs)),
        lambda counts: mean_over_labels(counts.auc),
    ),
    "map": Metric(
        "mAP",
        "Mean average precision: the area under the precision-recall curve.",
        lambda labels, probs, decided: mean_where_known(average_precision(labels, probs)),
        lambda counts: mean_over_labels(counts.ap),
    ),
    "hamming_loss": Metric(
        "Hamming loss",
        "Share of all decisions that are wrong; lower is better.",
        hamming_loss,
        _wrong_share,
        higher_is_better=False,
    ),
    "ece": Metric(
        "ECE",
        "Mean distance of probability and frequency, all labels pooled; lower is better.",
        lambda labels, probs, decided: expected_calibration_error(labels, probs),
        lambda counts: ratio(np.abs(counts.bin_gaps).sum(axis=0), counts.known_cells),
        higher_is_better=False,
    ),
    "label_ece": Metric(
        "Mean ECE of the labels",
        "The ECE of each label alone, then their mean; larger than the pooled one.",
        lambda labels, probs, decided: mean_where_known(label_ece(labels, probs)),
        lambda counts: mean_over_labels(counts.ece),
        higher_is_better=False,
    ),
    "log_loss": Metric(
        "Log loss",
        "Mean cross-entropy of the probabilities in nats; lower is better.",
        lambda labels, probs, decided: log_loss(labels, probs),
        lambda counts: ratio(counts.log_loss, counts.known_cells),
        higher_is_better=False,
        largest=math.inf,
    ),
}


def compute_metrics(labels: Labels, probs: Probs, decided: Decided) -> dict[str, float]:
    """Every metric of METRICS by name."""
    return {name: metric.compute(labels, probs, decided) for name, metric in METRICS.items()}


def constant_metrics(labels: Labels) -> dict[str, float]:
    """The best value of every metric that needs no text: each label's frequency is its probability,
    and every text gets no label, every label, or the labels of most texts."""
    frequencies = np.nan_to_num(ratio(np.nansum(labels, axis=0), (~np.isnan(labels)).sum(axis=0)))
    probs, likely, every = (
        np.broadcast_to(row, labels.shape)
        for row in (frequencies.astype(np.float32), frequencies >= 0.5, True)
    )
    answers = [compute_metrics(labels, probs, decided) for decided in (~every, every, likely)]
    return {
        name: (max if metric.higher_is_better else min)(scores[name] for scores in answers)
        for name, metric in METRICS.items()
    }


def compute_label_metrics(
    labels: Labels, probs: Probs, decided: Decided, names: tuple[str, ...]
) -> dict[str, Mapping[str, float]]:
    """precision, recall, f1, auc, ap and support of every label."""
    *scores, support = score_labels(labels, decided)
    columns = (*scores, auc(labels, probs), average_precision(labels, probs), support)
    keys = ("precision", "recall", "f1", "auc", "ap", "support")
    rows = np.stack(columns, axis=1).tolist()
    return {name: dict(zip(keys, row, strict=True)) for name, row in zip(names, rows, strict=True)}
