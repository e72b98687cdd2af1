"""Threshold rules (labels, probs, names) -> one threshold per label, and the decision by them.

A label is predicted where `prob >= threshold`; an example may get no label. A searched threshold
lies in the middle between two neighboring probabilities. Of equally good thresholds it is the one
nearest to 0.5, the higher of two equally near. Unknown labels (NaN) are left out; a label without
positives gets 0.5.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np

from jaxclf.decisions.arrays import Decided, Labels, Probs, Thresholds
from jaxclf.decisions.calibration import CALIBRATORS, apply_calibration
from jaxclf.decisions.threshold_choice import best_expected_f1, choose_rule, fit_rule
from jaxclf.decisions.threshold_search import (
    FALLBACK,
    Candidates,
    best_f1_threshold,
    best_shared_threshold,
    best_threshold,
    find_candidates,
)
from jaxclf.types import NON_NEGATIVE, POSITIVE_FRACTION, Bound

Names = tuple[str, ...]


def decide(probs: Probs, thresholds: Thresholds) -> Decided:
    """Whether each label is predicted."""
    return probs >= thresholds[None]


def auto(labels: Labels, probs: Probs, names: Names = ()) -> Thresholds:
    """Half the best expected F1, or the highest F1 if that is better by cross-fitting.

    `threshold_choice` compares them; both bound how many examples get a label.
    """
    return fit_rule(labels, probs, choose_rule(labels, probs).rule)


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
    best = np.array([best_f1_threshold(label) for label in candidates])
    if prior_strength == 0:
        return best
    positives = np.nansum(labels, axis=0)
    weight = positives / (positives + prior_strength)
    return weight * best + (1 - weight) * best_shared_threshold(candidates)


def shared(labels: Labels, probs: Probs, names: Names = ()) -> Thresholds:
    """One threshold of highest macro F1 for all labels, by exact search."""
    return np.full(
        probs.shape[1], best_shared_threshold(find_candidates(labels, probs)), np.float64
    )


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
    halves, positives = best_expected_f1(calibrated) / 2, np.nansum(labels, axis=0)
    columns = zip(probs.T, calibrated.T, halves, positives, strict=True)
    values = [_between(p, q, half) if count else FALLBACK for p, q, half, count in columns]
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
        return best_threshold(label.thresholds, precision)

    return _search_labels(y_true, probs, names, labels, search)


def _between(p: np.ndarray, q: np.ndarray, threshold: float) -> float:
    """Between the probabilities p whose calibrated q enclose a threshold."""
    below, above = p[q < threshold], p[q >= threshold]
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
    values = [
        search(label) if label and chosen else best_f1_threshold(label) for label, chosen in pairs
    ]
    return np.array(values, np.float64)


THRESHOLDS = {
    "auto": auto,
    "fixed": fixed,
    "per_label": per_label,
    "shared": shared,
    "plug_in": plug_in,
    "recall_at": recall_at,
    "precision_at": precision_at,
}
