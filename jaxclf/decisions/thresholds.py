"""Threshold rules (labels, probs, names) -> one threshold per label, and the decision by them.

A label is predicted where `prob >= threshold`; an example may get no label. A searched threshold
lies in the middle between two neighboring probabilities. Of equally good thresholds it is the one
nearest to 0.5, the higher of two equally near. Unknown labels (NaN) are left out; a label without
positives gets 0.5.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, NamedTuple

import numpy as np

from jaxclf.decisions.arrays import Decided, Labels, Probs, Thresholds
from jaxclf.decisions.calibration import CALIBRATORS, apply_calibration
from jaxclf.decisions.ranking import cumulative_counts
from jaxclf.types import NON_NEGATIVE, POSITIVE_FRACTION, Bound

Names = tuple[str, ...]

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


def decide(probs: Probs, thresholds: Thresholds) -> Decided:
    """Whether each label is predicted."""
    return probs >= thresholds[None]


def fixed(
    labels: Labels,
    probs: Probs,
    names: Names = (),
    *,
    value: Annotated[float, Bound(0, 2)] = 0.5,
) -> Thresholds:
    """The same threshold for every label, independent of the data."""
    return np.full(probs.shape[1], value, np.float64)


def per_label(
    labels: Labels,
    probs: Probs,
    names: Names = (),
    *,
    prior_strength: Annotated[float, NON_NEGATIVE] = 0.0,
) -> Thresholds:
    """Each label's threshold of highest F1, by exact search.

    prior_strength: weight of the shared threshold in pseudo-positives; a label with n positives has
        the weight n / (n + prior_strength) on its best threshold.
    """
    candidates = find_candidates(labels, probs)
    best = np.array([_best_f1(label) for label in candidates])
    if prior_strength == 0:
        return best
    positives = np.nansum(labels, axis=0)
    weight = positives / (positives + prior_strength)
    return weight * best + (1 - weight) * _best_shared(candidates)


def shared(labels: Labels, probs: Probs, names: Names = ()) -> Thresholds:
    """One threshold of highest macro F1 for all labels, by exact search."""
    return np.full(probs.shape[1], _best_shared(find_candidates(labels, probs)), np.float64)


def plug_in(
    labels: Labels,
    probs: Probs,
    names: Names = (),
    *,
    prior_strength: Annotated[float, NON_NEGATIVE] = 20.0,
) -> Thresholds:
    """Half the best F1 expected under calibrated probabilities.

    Lipton et al. 2014, arXiv 1402.1892. The expected F1 uses the probabilities of all examples; the
    labels only fit Platt's curve, with `prior_strength` as in `calibration.platt`. The threshold is
    where that curve takes half the best F1.
    """
    calibration = CALIBRATORS["platt"](labels, probs, prior_strength=prior_strength)
    calibrated = apply_calibration(calibration, probs).astype(np.float64)
    columns = zip(probs.T, calibrated.T, np.nansum(labels, axis=0), strict=True)
    values = [_plug_in_threshold(p, q) if count else FALLBACK for p, q, count in columns]
    return np.array(values, np.float64)


def recall_at(
    y_true: Labels,
    probs: Probs,
    names: Names = (),
    *,
    target: Annotated[float, POSITIVE_FRACTION] = 0.95,
    labels: tuple[str, ...] = (),
) -> Thresholds:
    """The highest threshold that finds the share `target` of the positives.

    labels: the labels with this target; the others get `per_label`. Empty: all labels.
    """

    def search(label: Candidates) -> float:
        needed = np.ceil(target * label.positives - 1e-9)
        return float(label.thresholds[np.argmax(label.tp >= needed)])

    return _search_labels(y_true, probs, names, labels, search)


def precision_at(
    y_true: Labels,
    probs: Probs,
    names: Names = (),
    *,
    target: Annotated[float, POSITIVE_FRACTION] = 0.9,
    labels: tuple[str, ...] = (),
) -> Thresholds:
    """The lowest threshold with the precision `target`; if there is none, that of highest
    precision.

    labels: the labels with this target; the others get `per_label`. Empty: all labels.
    """

    def search(label: Candidates) -> float:
        precision = label.tp / label.predicted
        reached = np.flatnonzero(precision >= target - 1e-12)
        if len(reached):
            return float(label.thresholds[reached[-1]])
        return _best(label.thresholds, precision)

    return _search_labels(y_true, probs, names, labels, search)


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


def _best(thresholds: np.ndarray, score: np.ndarray) -> float:
    best = thresholds[score >= score.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - FALLBACK))])


def _best_f1(label: Candidates | None) -> float:
    return FALLBACK if label is None else _best(label.thresholds, label.f1)


def _middles(scores: np.ndarray) -> np.ndarray:
    """The middle between each of the descending scores and the next; adjacent floats have none."""
    below = np.append(scores[1:], 0.0)
    middle = (scores + below) / 2
    return np.where(middle > below, middle, scores)


def _best_shared(candidates: list[Candidates | None]) -> float:
    """The threshold of highest macro F1: every label's F1 is a step function; they are summed."""
    known = [label for label in candidates if label is not None]
    if not known:
        return FALLBACK
    scores = np.concatenate([label.scores for label in known])
    steps = np.concatenate([np.diff(label.f1, prepend=0.0) for label in known])
    order = np.argsort(-scores, kind="stable")
    scores, total = scores[order], np.cumsum(steps[order])
    is_last = np.append(scores[1:] != scores[:-1], True)  # equal scores are one step
    return _best(_middles(scores[is_last]), total[is_last])


def _plug_in_threshold(p: np.ndarray, q: np.ndarray) -> float:
    """Between the probabilities p whose calibrated q enclose half the best expected F1."""
    descending = np.sort(q)[::-1]
    expected_tp = np.cumsum(descending)
    half = (expected_tp / (np.arange(1, len(q) + 1) + expected_tp[-1])).max()
    below, above = p[q < half], p[q >= half]
    low = float(below.max()) if len(below) else 0.0
    return (low + (float(above.min()) if len(above) else 1.0)) / 2


def _search_labels(
    labels: Labels,
    probs: Probs,
    names: Names,
    targeted: Names,
    search: Callable[[Candidates], float],
) -> Thresholds:
    """`search` for the targeted labels, the highest F1 for the others."""
    is_targeted = [not targeted or name in targeted for name in names or range(probs.shape[1])]
    pairs = zip(find_candidates(labels, probs), is_targeted, strict=True)
    values = [search(label) if label and chosen else _best_f1(label) for label, chosen in pairs]
    return np.array(values, np.float64)


THRESHOLDS = {
    "fixed": fixed,
    "per_label": per_label,
    "shared": shared,
    "plug_in": plug_in,
    "recall_at": recall_at,
    "precision_at": precision_at,
}
