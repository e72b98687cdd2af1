"""Calibration: curves per label that turn a model's probabilities into frequencies.

A calibrator is a function (labels, probs) -> Calibration. Curves increase, so the ranking of the
examples stays the same. Rare labels share strength with the pooled fit: `prior_strength` is the
weight of the pooled curve in pseudo-positives. At 0 every label is fitted alone; at infinity all
labels share one curve, as does a label whose known examples are all positive or all negative.
"""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from scipy.optimize import isotonic_regression, lsq_linear
from scipy.special import expit, log_expit, logit

from jaxclf.decisions.arrays import Labels, Probs
from jaxclf.decisions.calibration_curves import CURVES, NUMPY
from jaxclf.decisions.folds import held_out_masks
from jaxclf.errors import DataError
from jaxclf.types import NON_NEGATIVE

Calibrated = Float32[np.ndarray, "examples classes"]
Values = Float[np.ndarray, " rows"]
Terms = Callable[[Values], list[Values]]
Weights = Float[np.ndarray, " terms"]
Precision = Float[np.ndarray, "terms terms"]
Numbers = float | tuple[float, ...]

EDGE = 2.0**-24  # least distance from 0 and 1: the largest float32 below 1 is 1 - EDGE
END, END_SLOPE = 18.0, 0.1  # isotonic curves run from -END to END, with this slope at the ends
MIN_SLOPE = 1e-3  # curves increase even where the model ranks a label the wrong way round
RIDGE = 1e-6  # a precision that keeps slopes finite when the classes do not overlap
CALIBRATION_FOLDS = 5


class Calibration(NamedTuple):
    """One curve per label: the keyword arguments of `CURVES[kind]`."""

    kind: str
    curves: tuple[Mapping[str, Numbers], ...]


Calibrator = Callable[[Labels, Probs], Calibration]


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """Convert to plain JSON values."""
    return json.loads(json.dumps(calibration._asdict()))


def calibration_from_json(values: Mapping[str, Any]) -> Calibration:
    """The inverse of `calibration_to_json`. Raises DataError for other values."""
    try:
        kind, curves = values["kind"], [dict(curve) for curve in values["curves"]]
        for curve in curves:
            curve |= {k: tuple(v) for k, v in curve.items() if isinstance(v, list)}
            CURVES[kind](NUMPY, np.zeros(1), **curve)
        return Calibration(kind, tuple(curves))
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"not a calibration; its kind must be one of: {', '.join(CURVES)}"
        ) from None


def apply_calibration(calibration: Calibration, probs: Probs) -> Calibrated:
    """Calibrated probabilities, strictly between 0 and 1; of kind `none` unchanged."""
    if calibration.kind == "none":
        return probs.astype(np.float32)
    curve = CURVES[calibration.kind]
    pairs = zip(_logits(probs).T, calibration.curves, strict=True)
    columns = [expit(curve(NUMPY, z, **parameters)) for z, parameters in pairs]
    calibrated = np.stack(columns, axis=1)
    return np.clip(calibrated, np.finfo(np.float32).tiny, 1 - EDGE).astype(np.float32)


def _logits(probs: Probs) -> Float[np.ndarray, "examples classes"]:
    return logit(np.clip(probs.astype(np.float64), EDGE, 1 - EDGE))


def none(labels: Labels, probs: Probs) -> Calibration:
    """Probabilities as they are."""
    return Calibration("none", ({},) * probs.shape[1])


def temperature(
    labels: Labels, probs: Probs, *, prior_strength: Annotated[float, NON_NEGATIVE] = 20.0
) -> Calibration:
    """logit / temperature (Guo et al. 2017, arXiv 1706.04599); at most 1000."""
    weights = _fit_terms(labels, probs, prior_strength, 1, lambda z: [z])
    return Calibration("temperature", tuple({"temperature": 1 / s} for (s,) in weights))


def platt(
    labels: Labels, probs: Probs, *, prior_strength: Annotated[float, NON_NEGATIVE] = 20.0
) -> Calibration:
    """slope * logit + intercept, fitted to smoothed targets (Platt 1999); slope >= 0.001."""
    weights = _fit_terms(
        labels, probs, prior_strength, 1, lambda z: [z, np.ones_like(z)], smooth=True
    )
    return Calibration("platt", tuple({"slope": s, "intercept": i} for s, i in weights))


def beta(
    labels: Labels, probs: Probs, *, prior_strength: Annotated[float, NON_NEGATIVE] = 20.0
) -> Calibration:
    """a log p - b log(1 - p) + c (Kull et al. 2017); a and b >= 0.001."""
    terms = (log_expit, lambda z: -log_expit(-z), np.ones_like)
    weights = _fit_terms(labels, probs, prior_strength, 2, lambda z: [term(z) for term in terms])
    return Calibration("beta", tuple({"a": a, "b": b, "c": c} for a, b, c in weights))


def isotonic(
    labels: Labels, probs: Probs, *, prior_strength: Annotated[float, NON_NEGATIVE] = 20.0
) -> Calibration:
    """Isotonic regression by pooling adjacent violators.

    In logits, a label's own curve has the weight positives / (positives + prior_strength) and the
    pooled curve the rest. Plateaus would be ties and cost AUC: each becomes one knot at its mean
    logit, with lines between the knots (centered isotonic regression, Oron and Flournoy 2017, arXiv
    1701.05964). Targets are Platt's, so that no plateau is at 0 or 1.
    """
    (z, y), *columns = _known_columns(labels, probs)
    pooled, curves = _fit_knots(z, y), []
    for z, y in columns:
        label_curve = _fit_knots(z, y)
        share = float(y.sum() / (y.sum() + prior_strength)) if len(y) else 0.0
        knots = np.union1d(label_curve[0], pooled[0])
        label_values, pooled_values = (np.interp(knots, *curve) for curve in (label_curve, pooled))
        values = share * label_values + (1 - share) * pooled_values
        curves.append({"knots": tuple(knots.tolist()), "values": tuple(values.tolist())})
    return Calibration("isotonic", tuple(curves))


CALIBRATORS: dict[str, Callable[..., Calibration]] = {
    "none": none,
    "temperature": temperature,
    "platt": platt,
    "isotonic": isotonic,
    "beta": beta,
}


def calibrate_out_of_fold(
    labels: Labels,
    probs: Probs,
    calibrator: Calibrator,
    folds: int = CALIBRATION_FOLDS,
    seed: int = 0,
) -> Calibrated:
    """Calibrate every example by curves fitted on the other folds.

    A label whose positives all lie in one fold has the pooled curve there.
    """
    calibrated = np.empty(probs.shape, np.float32)
    for held_out in held_out_masks(labels, folds, seed):
        calibration = calibrator(labels[~held_out], probs[~held_out])
        calibrated[held_out] = apply_calibration(calibration, probs[held_out])
    return calibrated


def _known_columns(labels: Labels, probs: Probs) -> list[tuple[Values, Values]]:
    """Logits and labels of the known cells: of all labels together, then of each label.

    Both are empty where the known cells are all positive or all negative.
    """
    z, y, known = _logits(probs), labels.astype(np.float64), ~np.isnan(labels)
    columns = [(z[known], y[known]), *((z[k, i], y[k, i]) for i, k in enumerate(known.T))]
    return [(z, y) if 0 < y.sum() < len(y) else (z[:0], y[:0]) for z, y in columns]


def _smooth_targets(y: Values) -> Values:
    """Platt's targets: the rule of succession in each class."""
    high, low = (y.sum() + 1) / (y.sum() + 2), 1 / (len(y) - y.sum() + 2)
    return low + (high - low) * y


def _fit_knots(z: Values, y: Values) -> Float[np.ndarray, "2 knots"]:
    """(logits, calibrated logits) of the plateaus between two ends; without data the identity."""
    ends = np.array([-END, END])
    if not len(y):
        return np.stack([ends, ends])
    distinct, index, count = np.unique(z, return_inverse=True, return_counts=True)
    targets = np.bincount(index, _smooth_targets(y)) / count
    level = isotonic_regression(targets, weights=count).x
    starts = np.flatnonzero(np.diff(level, prepend=-1) > 1e-12)
    centers = np.add.reduceat(count * distinct, starts) / np.add.reduceat(count, starts)
    values = logit(level[starts])
    end_values = values[[0, -1]] + END_SLOPE * (ends - centers[[0, -1]])
    return np.stack([np.insert(ends, 1, centers), np.insert(end_values, 1, values)])


def _fit_terms(
    labels: Labels,
    probs: Probs,
    prior_strength: float,
    slopes: int,
    terms: Terms,
    smooth: bool = False,
) -> list[list[float]]:
    """Fit the weights of the terms for every label, with a penalty around the pooled weights.

    The first `slopes` weights are 1 in the identity and bounded below. The penalty is the pooled
    log likelihood to second order, scaled down to `prior_strength` positives (a power prior,
    Ibrahim and Chen 2000).
    """
    (z, y), *columns = _known_columns(labels, probs)
    is_slope = np.arange(len(terms(z))) < slopes
    identity, ridge = is_slope.astype(np.float64), RIDGE * np.eye(len(is_slope))
    lower = np.where(is_slope, MIN_SLOPE, -np.inf)
    targets = _smooth_targets if smooth else np.asarray
    pooled, information = _fit_logistic(terms(z), targets(y), identity, ridge, lower)
    # 1e12 stands for infinity.
    penalty = ridge + min(prior_strength, 1e12) / max(y.sum(), 1) * information
    return [
        _fit_logistic(terms(z), targets(y), pooled, penalty, lower)[0].tolist() for z, y in columns
    ]


def _fit_logistic(
    terms: list[Values], y: Values, center: Weights, penalty: Precision, lower: Weights
) -> tuple[Weights, Precision]:
    """(weights, information) of a logistic regression with a quadratic penalty around `center`.

    Newton's method within the bounds: a step is halved until the loss falls.
    """
    x = np.stack(terms)

    def loss(weights: Weights) -> float:
        z, offset = weights @ x, weights - center
        return float(np.sum(np.logaddexp(0, z) - y * z) + offset @ penalty @ offset / 2)

    weights, current, information = center, loss(center), penalty
    for _ in range(50):
        q = expit(weights @ x)
        information = x * (q * (1 - q)) @ x.T
        gradient = x @ (q - y) + penalty @ (weights - center)
        squares, axes = np.linalg.eigh(information + penalty)
        root = np.sqrt(np.maximum(squares, RIDGE))
        target = root * (axes.T @ weights) - axes.T @ gradient / root
        solution = lsq_linear(root[:, None] * axes.T, target, (lower, np.inf), "bvls").x
        step = solution - weights
        gain = -gradient @ step
        if gain < 1e-8:  # nats; the error squares with every step, so the next one is rounding
            return weights + step, information
        while (stepped := loss(weights + step)) > current - 1e-4 * gain:
            step, gain = step / 2, gain / 2
        weights, current = weights + step, stepped
    return weights, information
