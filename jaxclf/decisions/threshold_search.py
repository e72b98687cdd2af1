"""Exact search of thresholds: the counts of a label at every distinct threshold.

A threshold lies in the middle between two neighboring probabilities. Of equally good thresholds it
is the one nearest to 0.5, the higher of two equally near. Unknown labels (NaN) are left out; a
label without positives gets 0.5.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from jaxclf.decisions.arrays import Labels, Probs
from jaxclf.decisions.ranking import cumulative_counts

FALLBACK = 0.5  # the threshold of a label without known positives


class Candidates(NamedTuple):
    """The distinct thresholds of one label, from the highest down, and the counts at each.

    scores: the lowest probability at or above each threshold; thresholds: in the middle between
        that and the next lower probability.
    """

    scores: np.ndarray
    thresholds: np.ndarray
    tp: np.ndarray
    predicted: np.ndarray
    positives: int

    @property
    def f1(self) -> np.ndarray:
        return 2 * self.tp / (self.predicted + self.positives)


def find_candidates(labels: Labels, probs: Probs) -> list[Candidates | None]:
    """The candidates of each label, None for a label without positives; sorted on all cores."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_label_candidates, labels.T, probs.T))


def _label_candidates(y: np.ndarray, p: np.ndarray) -> Candidates | None:
    known = ~np.isnan(y)
    is_positive = y[known] == 1
    positives = int(is_positive.sum())
    if not positives:
        return None
    scores, tp, predicted = cumulative_counts(is_positive, p[known])
    scores = scores.astype(np.float64)
    return Candidates(scores, _middles(scores), tp, predicted, positives)


def best_threshold(thresholds: np.ndarray, score: np.ndarray) -> float:
    """The threshold of highest score; of equal ones the nearest to 0.5, then the higher."""
    best = thresholds[score >= score.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - FALLBACK))])


def best_f1_threshold(label: Candidates | None) -> float:
    """The threshold of highest F1; 0.5 for a label without positives."""
    return FALLBACK if label is None else best_threshold(label.thresholds, label.f1)


def _middles(scores: np.ndarray) -> np.ndarray:
    """The middle between each of the descending scores and the next; adjacent floats have none."""
    below = np.append(scores[1:], 0.0)
    middle = (scores + below) / 2
    return np.where(middle > below, middle, scores)


def best_shared_threshold(candidates: list[Candidates | None]) -> float:
    """One threshold of highest macro F1 for all labels: their F1 are step functions, summed."""
    known = [label for label in candidates if label is not None]
    if not known:
        return FALLBACK
    scores = np.concatenate([label.scores for label in known])
    steps = np.concatenate([np.diff(label.f1, prepend=0.0) for label in known])
    order = np.argsort(-scores, kind="stable")
    scores, total = scores[order], np.cumsum(steps[order])
    is_last = np.append(scores[1:] != scores[:-1], True)  # equal scores are one step
    return best_threshold(_middles(scores[is_last]), total[is_last])
