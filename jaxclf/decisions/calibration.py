"""Calibration: curves per label that turn a model's probabilities into frequencies.

A calibrator is a function (labels, probs) -> Calibration. Curves rise, so each label's ranking
stays as it is. Rare labels borrow from all labels pooled: `prior_strength` weighs the pooled curve
as that many positives of the label would. At 0 each label stands alone; at infinity all share one
curve, as does a label whose known rows are all positive or all negative.
"""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from scipy.optimize import isotonic_regression, lsq_linear
from scipy.special import expit, log_expit, logit

from jaxclf.decisions.arrays import Labels, Probs
from jaxclf.decisions.folds import folds_of
from jaxclf.errors import ConfigError, DataError
from jaxclf.types import NON_NEGATIVE

Calibrated = Float32[np.ndarray, "examples classes"]
Values = Float[np.ndarray, " rows"]
Terms = Callable[[Values], list[Values]]
Weights = Float[np.ndarray, " terms"]
Precision = Float[np.ndarray, "terms terms"]
Numbers = float | tuple[float, ...]

EDGE = 2.0**-24  # least distance from 0 and 1: the largest float32 below 1 is 1 - EDGE
END, TILT = 18.0, 0.1  # isotonic curves run from -END to END, with this slope at either end
LEAST = 1e-3  # other slopes are at least this: ranked the wrong way round, a curve still rises
TRACE = 1e-6  # a precision that keeps slopes finite where the classes do not overlap


class Calibration(NamedTuple):
    """One curve per label: the named parameters of the function `CURVES[kind]`."""

    kind: str
    curves: tuple[Mapping[str, Numbers], ...]


Calibrator = Callable[[Labels, Probs], Calibration]


def to_json(calibration: Calibration) -> dict[str, Any]:
    """Plain JSON values, of which `from_json` makes an equal Calibration."""
    return json.loads(json.dumps(calibration._asdict()))


def from_json(values: Mapping[str, Any]) -> Calibration:
    """The inverse of `to_json`. Raises DataError for what is no calibration."""
    try:
        kind, curves = values["kind"], [dict(curve) for curve in values["curves"]]
        for curve in curves:
            curve |= {k: tuple(v) for k, v in curve.items() if isinstance(v, list)}
            CURVES[kind](np.zeros(1), **curve)
        return Calibration(kind, tuple(curves))
    except (KeyError, TypeError, ValueError):
        raise DataError(f"not a calibration of kind {', '.join(CURVES)}") from None


def calibrated(calibration: Calibration, probs: Probs) -> Calibrated:
    """Probabilities strictly between 0 and 1; of kind `none`, as they were."""
    if calibration.kind == "none":
        return probs.astype(np.float32)
    curve = CURVES[calibration.kind]
    pairs = zip(_logits(probs).T, calibration.curves, strict=True)
    found = np.stack([expit(curve(z, **parameters)) for z, parameters in pairs], axis=1)
    return np.clip(found, np.finfo(np.float32).tiny, 1 - EDGE).astype(np.float32)


def _logits(probs: Probs) -> Float[np.ndarray, "examples classes"]:
    return logit(np.clip(probs.astype(np.float64), EDGE, 1 - EDGE))


# From logit to calibrated logit; the keyword-only parameters are what a Calibration holds.
CURVES: dict[str, Callable[..., Values]] = {
    "none": lambda z: z,
    "temperature": lambda z, *, temperature: z / temperature,
    "platt": lambda z, *, slope, intercept: slope * z + intercept,
    "isotonic": lambda z, *, knots, values: np.interp(z, knots, values),
    "beta": lambda z, *, a, b, c: a * log_expit(z) - b * log_expit(-z) + c,
}


def none(labels: Labels, probs: Probs) -> Calibration:
    """Probabilities as they are."""
    return Calibration("none", ({},) * probs.shape[1])


def temperature(
    labels: Labels, probs: Probs, *, prior_strength: Annotated[float, NON_NEGATIVE] = 20.0
) -> Calibration:
    """logit / temperature (Guo et al. 2017, arXiv 1706.04599); at most 1000."""
    lines = _fit(labels, probs, prior_strength, 1, lambda z: [z])
    return Calibration("temperature", tuple({"temperature": 1 / s} for (s,) in lines))


def platt(
    labels: Labels, probs: Probs, *, prior_strength: Annotated[float, NON_NEGATIVE] = 20.0
) -> Calibration:
    """slope * logit + intercept, fitted to smoothed targets (Platt 1999); slope >= 0.001."""
    lines = _fit(labels, probs, prior_strength, 1, lambda z: [z, np.ones_like(z)], smooth=True)
    return Calibration("platt", tuple({"slope": s, "intercept": i} for s, i in lines))


def beta(
    labels: Labels, probs: Probs, *, prior_strength: Annotated[float, NON_NEGATIVE] = 20.0
) -> Calibration:
    """a log p - b log(1 - p) + c (Kull et al. 2017); a and b >= 0.001."""
    terms = (log_expit, lambda z: -log_expit(-z), np.ones_like)
    lines = _fit(labels, probs, prior_strength, 2, lambda z: [term(z) for term in terms])
    return Calibration("beta", tuple({"a": a, "b": b, "c": c} for a, b, c in lines))


def isotonic(
    labels: Labels, probs: Probs, *, prior_strength: Annotated[float, NON_NEGATIVE] = 20.0
) -> Calibration:
    """Pool adjacent violators; as logits, a label's own curve weighs positives / (positives +
    prior_strength) and the pooled one the rest.

    Plateaus would be ties and cost AUC: each becomes one knot at its mean logit, and lines join
    the knots (centred isotonic regression, Oron and Flournoy 2017, arXiv 1701.05964). Targets are
    Platt's, so no plateau is at 0 or 1.
    """
    (z, y), *each = _known(labels, probs)
    pooled, curves = _knots(z, y), []
    for z, y in each:
        own, share = _knots(z, y), float(y.sum() / (y.sum() + prior_strength)) if len(y) else 0.0
        knots = np.union1d(own[0], pooled[0])
        values = share * np.interp(knots, *own) + (1 - share) * np.interp(knots, *pooled)
        curves.append({"knots": tuple(knots.tolist()), "values": tuple(values.tolist())})
    return Calibration("isotonic", tuple(curves))


CALIBRATORS: dict[str, Callable[..., Calibration]] = {
    "none": none,
    "temperature": temperature,
    "platt": platt,
    "isotonic": isotonic,
    "beta": beta,
}


def out_of_fold(
    labels: Labels, probs: Probs, calibrator: Calibrator, folds: int = 5, seed: int = 0
) -> Calibrated:
    """Calibrated probabilities, each row's from a curve fitted on the other folds.

    A label whose positives all lie in one fold has the pooled curve there.
    """
    if folds < 2:
        raise ConfigError(f"folds={folds!r}: at least 2 are needed")
    fold, found = folds_of(labels, folds, seed), np.empty(probs.shape, np.float32)
    for one in range(folds):
        inside = fold == one
        found[inside] = calibrated(calibrator(labels[~inside], probs[~inside]), probs[inside])
    return found


def _known(labels: Labels, probs: Probs) -> list[tuple[Values, Values]]:
    """Logits and labels of the known rows, of all labels together and then of each; none where
    they are all positive or all negative, which leaves a curve open."""
    z, y, known = _logits(probs), labels.astype(np.float64), ~np.isnan(labels)
    pairs = [(z[known], y[known]), *((z[k, i], y[k, i]) for i, k in enumerate(known.T))]
    return [(z, y) if 0 < y.sum() < len(y) else (z[:0], y[:0]) for z, y in pairs]


def _smoothed(y: Values) -> Values:
    """Platt's targets: in each class the rule of succession."""
    high, low = (y.sum() + 1) / (y.sum() + 2), 1 / (len(y) - y.sum() + 2)
    return low + (high - low) * y


def _knots(z: Values, y: Values) -> Float[np.ndarray, "2 knots"]:
    """(logits, calibrated logits) of the plateaus, between two ends; without rows, the identity."""
    ends = np.array([-END, END])
    if not len(y):
        return np.stack([ends, ends])
    distinct, place, count = np.unique(z, return_inverse=True, return_counts=True)
    level = isotonic_regression(np.bincount(place, _smoothed(y)) / count, weights=count).x
    starts = np.flatnonzero(np.diff(level, prepend=-1) > 1e-12)
    centres = np.add.reduceat(count * distinct, starts) / np.add.reduceat(count, starts)
    values = logit(level[starts])
    beyond = values[[0, -1]] + TILT * (ends - centres[[0, -1]])
    return np.stack([np.insert(ends, 1, centres), np.insert(beyond, 1, values)])


def _fit(
    labels: Labels,
    probs: Probs,
    prior_strength: float,
    slopes: int,
    terms: Terms,
    smooth: bool = False,
) -> list[list[float]]:
    """Per label the terms' weights of greatest likelihood, penalised for their way from the pooled
    ones; the first `slopes` are 1 in the identity and bounded below.

    The penalty is the pooled likelihood, to second order and scaled down to `prior_strength`
    positives (a power prior, Ibrahim and Chen 2000): it needs no units, and is stiffest where the
    data say most.
    """
    (z, y), *each = _known(labels, probs)
    identity = np.arange(len(terms(z))) < slopes
    pooled, penalty = identity.astype(np.float64), TRACE * np.eye(len(identity))
    floor, targets = np.where(identity, LEAST, -np.inf), _smoothed if smooth else np.asarray
    pooled, information = _minimum(terms(z), targets(y), pooled, penalty, floor)
    penalty = (
        penalty + min(prior_strength, 1e12) / max(y.sum(), 1) * information
    )  # 1e12: as infinity
    return [_minimum(terms(z), targets(y), pooled, penalty, floor)[0].tolist() for z, y in each]


def _minimum(
    terms: list[Values], y: Values, centre: Weights, penalty: Precision, floor: Weights
) -> tuple[Weights, Precision]:
    """(weights, information) of a logistic regression with a quadratic penalty around `centre`, by
    Newton's method: steps go to the minimum within the bounds, or half as far till the loss falls.
    """
    x = np.stack(terms)

    def loss(at: Weights) -> float:
        z, away = at @ x, at - centre
        return float(np.sum(np.logaddexp(0, z) - y * z) + away @ penalty @ away / 2)

    at, now, information = centre, loss(centre), penalty
    for _ in range(50):
        q = expit(at @ x)
        information = x * (q * (1 - q)) @ x.T
        slope = x @ (q - y) + penalty @ (at - centre)
        squares, axes = np.linalg.eigh(information + penalty)
        root = np.sqrt(np.maximum(squares, TRACE))
        target = root * (axes.T @ at) - axes.T @ slope / root
        step = lsq_linear(root[:, None] * axes.T, target, (floor, np.inf), "bvls").x - at
        gain = -slope @ step
        if gain < 1e-8:  # nats; the error squares, so after this step it is rounding
            return at + step, information
        while (there := loss(at + step)) > now - 1e-4 * gain:
            step, gain = step / 2, gain / 2
        at, now = at + step, there
    return at, information
