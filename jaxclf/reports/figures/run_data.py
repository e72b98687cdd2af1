"""The data of a run that figures show."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxclf.types import Predictions


class RunData(NamedTuple):
    """What a finished run offers to its figures."""

    test: Predictions
    val: Predictions
    thresholds: np.ndarray  # [C]
    names: tuple[str, ...]
    label_indices: Int[np.ndarray, " shown"]  # labels with a panel or a row of their own
    lengths: np.ndarray | None = None  # tokens of each test text
    log: Sequence[Mapping[str, Any]] = ()  # lines of metrics.jsonl


class LabelScores(NamedTuple):
    """The examples of a split whose value of one label is known."""

    name: str
    truth: np.ndarray  # bool [known]
    scores: np.ndarray  # float64 [known], the probabilities
    threshold: float


def iter_labels(run: RunData, predictions: Predictions) -> Iterator[LabelScores]:
    """The labels that have a panel of their own, in order."""
    for index in run.label_indices:
        labels = predictions.labels[:, index]
        is_known = ~np.isnan(labels)
        scores = predictions.probs[is_known, index].astype(np.float64)
        threshold = float(run.thresholds[index])
        yield LabelScores(run.names[index], labels[is_known] == 1, scores, threshold)


def count_above(label: LabelScores, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(true positives, predicted positives) at `score >= threshold`, for each threshold."""
    true_positives, predicted = (
        len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
        for scores in (label.scores[label.truth], label.scores)
    )
    return true_positives, predicted


def score_range(label: LabelScores) -> tuple[float, float]:
    """The range of the probabilities, widened to hold the threshold and to be wide enough to
    draw."""
    low = min(label.scores.min(), label.threshold)
    high = max(label.scores.max(), label.threshold)
    return (low, high) if high - low > 1e-6 else (low - 0.05, high + 0.05)
