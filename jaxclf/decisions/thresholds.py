"""Thresholds per label: rules (labels, probs, names) -> thresholds, and the decision they make.

A label is given where `prob >= threshold`. An example that no label reaches is given none: an
empty answer is an answer. A searched threshold lies in the middle between two neighbouring
probabilities; of several equally good cuts it is the one nearest to 0.5, the higher of two equally
near. Labels that are not known (NaN) are left out; a label without positives has 0.5.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxclf.decisions.calibration import CALIBRATORS, apply_calibration
from jaxclf.decisions.ranking import cumulative_counts
from jaxclf.types import NON_NEGATIVE, POSITIVE_FRACTION, Bound

Labels = Float[np.ndarray, "examples classes"]
Probs = Float[np.ndarray, "examples classes"]
Thresholds = Float[np.ndarray, " classes"]

# Where nothing can be searched (a label without known positives) the threshold is this.
FALLBACK = 0.5


class Cuts(NamedTuple):
    """One label's distinct ways to cut, from the highest threshold down, and what each gives.

    scores: the lowest probability that each still takes in; thresholds: below it, in the middle to
        the next.
    """

    scores: np.ndarray
    thresholds: np.ndarray
    tp: np.ndarray
    decided: np.ndarray
    positives: int

    @property
    def f1(self) -> np.ndarray:
        return 2 * self.tp / (self.decided + self.positives)


def decide(probs: Probs, thresholds: Thresholds) -> Bool[np.ndarray, "examples classes"]:
    return probs >= thresholds[None]


def fixed(
    labels: Labels,
    probs: Probs,
    names: tuple[str, ...] = (),
    *,
    value: Annotated[float, Bound(0, 2)] = 0.5,
) -> Thresholds:
    """The same threshold for every label, whatever the data."""
    return np.full(probs.shape[1], value, np.float64)


def per_label(
    labels: Labels,
    probs: Probs,
    names: tuple[str, ...] = (),
    *,
    prior_strength: Annotated[float, NON_NEGATIVE] = 0.0,
) -> Thresholds:
    """Each label's threshold of highest F1, by exact search.

    prior_strength: so many positives count for the shared threshold: a label with n of them has
        n / (n + prior_strength) of its own, the rest of that.
    """
    cuts = cuts_of(labels, probs)
    own = np.array([FALLBACK if one is None else _best(one.thresholds, one.f1) for one in cuts])
    if prior_strength == 0:
        return own
    positives = np.nansum(labels, axis=0)
    weight = positives / (positives + prior_strength)
    return weight * own + (1 - weight) * _shared(cuts)


def shared(labels: Labels, probs: Probs, names: tuple[str, ...] = ()) -> Thresholds:
    """One threshold for all labels, that of highest macro F1, by exact search."""
    return np.full(probs.shape[1], _shared(cuts_of(labels, probs)), np.float64)


def plug_in(
    labels: Labels,
    probs: Probs,
    names: tuple[str, ...] = (),
    *,
    prior_strength: Annotated[float, NON_NEGATIVE] = 20.0,
) -> Thresholds:
    """Half the best F1 that calibrated probabilities promise (Lipton et al. 2014, arXiv 1402.1892).

    The promise is made by all examples' probabilities, not by the few positives' labels: those
    serve to calibrate alone (Platt's curve; `prior_strength` as there). The answer is where that
    curve takes this value.
    """
    curve = CALIBRATORS["platt"](labels, probs, prior_strength=prior_strength)
    promised = apply_calibration(curve, probs).astype(np.float64)
    positives = np.nansum(labels, axis=0)
    return np.array(
        [
            _promised_cut(p, q) if count else FALLBACK
            for p, q, count in zip(probs.T, promised.T, positives, strict=True)
        ],
        np.float64,
    )


def recall_at(
    y_true: Labels,
    probs: Probs,
    names: tuple[str, ...] = (),
    *,
    target: Annotated[float, POSITIVE_FRACTION] = 0.95,
    labels: tuple[str, ...] = (),
) -> Thresholds:
    """The highest threshold that still finds `target` of the positives.

    labels: for these labels, the others by per_label; empty: for all.
    """
    return _target(y_true, probs, names, labels, lambda cuts: _recall_cut(cuts, target))


def precision_at(
    y_true: Labels,
    probs: Probs,
    names: tuple[str, ...] = (),
    *,
    target: Annotated[float, POSITIVE_FRACTION] = 0.9,
    labels: tuple[str, ...] = (),
) -> Thresholds:
    """The lowest threshold of which `target` of the given labels are right; where none is, the one
    with the highest share.

    labels: for these labels, the others by per_label; empty: for all.
    """
    return _target(y_true, probs, names, labels, lambda cuts: _precision_cut(cuts, target))


def cuts_of(labels: Labels, probs: Probs) -> list[Cuts | None]:
    """Each label's cuts, None for one without positives. Sorting is done on all cores."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_cuts, labels.T, probs.T))


def _cuts(y: np.ndarray, p: np.ndarray) -> Cuts | None:
    known = ~np.isnan(y)
    truth, scores = y[known] == 1, p[known]
    positives = int(truth.sum())
    if not positives:
        return None
    distinct, tp, decided = cumulative_counts(truth, scores)
    distinct = distinct.astype(np.float64)
    return Cuts(distinct, _middles(distinct), tp, decided, positives)


def _best(thresholds: np.ndarray, score: np.ndarray) -> float:
    best = thresholds[score >= score.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - FALLBACK))])


def _middles(scores: np.ndarray) -> np.ndarray:
    """Half way from each of the falling scores to the next; neighbouring floats have no middle."""
    below = np.append(scores[1:], 0.0)
    middle = (scores + below) / 2
    return np.where(middle > below, middle, scores)


def _shared(cuts: list[Cuts | None]) -> float:
    """Every label's F1 is a staircase over thresholds; the highest place of their sum."""
    there = [one for one in cuts if one is not None]
    if not there:
        return FALLBACK
    places = np.concatenate([one.scores for one in there])
    steps = np.concatenate([np.diff(one.f1, prepend=0.0) for one in there])
    order = np.argsort(-places, kind="stable")
    places, total = places[order], np.cumsum(steps[order])
    last = np.append(places[1:] != places[:-1], True)  # all steps at one place are taken together
    return _best(_middles(places[last]), total[last])


def _promised_cut(p: np.ndarray, q: np.ndarray) -> float:
    """Between the probabilities whose calibrated ones enclose half the best expected F1."""
    falling = np.sort(q)[::-1]
    expected = np.cumsum(falling)
    half = (expected / (np.arange(1, len(q) + 1) + expected[-1])).max()
    below, above = p[q < half], p[q >= half]
    low = float(below.max()) if len(below) else 0.0
    return (low + (float(above.min()) if len(above) else 1.0)) / 2


def _target(labels, probs, names, targeted, cut) -> Thresholds:
    chosen = [not targeted or name in targeted for name in names or range(probs.shape[1])]
    cuts = cuts_of(labels, probs)
    return np.array(
        [
            FALLBACK if one is None else cut(one) if mine else _best(one.thresholds, one.f1)
            for one, mine in zip(cuts, chosen, strict=True)
        ],
        np.float64,
    )


def _recall_cut(cuts: Cuts, target: float) -> float:
    needed = np.ceil(target * cuts.positives - 1e-9)
    return float(cuts.thresholds[np.argmax(cuts.tp >= needed)])


def _precision_cut(cuts: Cuts, target: float) -> float:
    share = cuts.tp / cuts.decided
    reached = np.flatnonzero(share >= target - 1e-12)
    if len(reached):
        return float(cuts.thresholds[reached[-1]])
    return _best(cuts.thresholds, share)


THRESHOLDS = {
    "fixed": fixed,
    "per_label": per_label,
    "shared": shared,
    "plug_in": plug_in,
    "recall_at": recall_at,
    "precision_at": precision_at,
}
