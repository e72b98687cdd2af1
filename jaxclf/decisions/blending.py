"""Blending: weights per label for averaging the probabilities of several runs.

A blender is a function (labels, probs) -> weights. Weights are not negative and sum to 1 for every
label. Calibrate the probabilities first: uncalibrated members with larger probabilities dominate
the average. An average of calibrated probabilities is underconfident (Ranjan and Gneiting 2010,
"Combining probability forecasts"), so fit thresholds on the blend.

README.md compares the blenders.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from scipy.optimize import nnls

from jaxclf.decisions.arrays import LOG_LOSS_EDGE, Labels, Probs, mean_where_known, ratio
from jaxclf.decisions.calibration import CALIBRATION_FOLDS
from jaxclf.decisions.folds import held_out_masks
from jaxclf.decisions.ranking import average_precision
from jaxclf.types import NON_NEGATIVE, Bound

Members = Float[np.ndarray, "members examples classes"]
Decisions = Bool[np.ndarray, "members examples classes"]
Weights = Float64[np.ndarray, "members classes"]
Blended = Float32[np.ndarray, "examples classes"]
Likelihood = Float64[np.ndarray, "members cells"]
Vector = Float64[np.ndarray, " members"]
Matrix = Float64[np.ndarray, "members members"]

Blender = Callable[[Labels, Members], Weights]
Score = Callable[[Labels, Probs], float]

TOLERANCE = 1e-10  # nats that weights may be above the least loss
MAX_STEPS = 100  # Newton's method needs about ten
RIDGE = 1e-9  # of the mean curvature: equal members share their weight


class Diversity(NamedTuple):
    """Of each pair of members, means over labels: the share of known examples with different
    decisions, and the correlation of the errors, label minus probability. NaN without data."""

    disagreement: Matrix
    correlation: Matrix


def blend(probs: Members, weights: Weights) -> Blended:
    """The weighted mean of the members' probabilities."""
    return np.einsum("mnc,mc->nc", probs, weights).astype(np.float32)


def uniform(labels: Labels, probs: Members) -> Weights:
    """Equal weights, independent of the data."""
    members, _, classes = probs.shape
    return np.full((members, classes), 1 / members)


def simplex(labels: Labels, probs: Members) -> Weights:
    """One weight per member for all labels, of least log loss over all known cells.

    The log loss is within 1e-10 nats of the minimum. Uniform if no label is known.
    """
    return np.repeat(_fit_shared(labels, probs)[:, None], probs.shape[2], axis=1)


def simplex_per_label(
    labels: Labels, probs: Members, *, prior_strength: Annotated[float, NON_NEGATIVE] = 100.0
) -> Weights:
    """Weights of least log loss per label; rare labels share strength with `simplex`.

    prior_strength: weight of the pooled log loss in pseudo-positives. It is added to second order
        around the shared weights (a power prior, Ibrahim and Chen 2000). At 0 every label is fitted
        alone; at infinity all labels share one set of weights, as does a label whose known cells
        are all positive or all negative.
    """
    shared, known = _fit_shared(labels, probs), ~np.isnan(labels)
    likelihood = _likelihood(labels, probs)
    positives = (labels == 1).sum(axis=0)
    odds = likelihood[:, known] / (shared @ likelihood[:, known])
    pooled = max(positives.sum(), 1)
    slope, curvature = -odds.sum(axis=1) / pooled, odds @ odds.T / pooled
    weights = np.repeat(shared[:, None], labels.shape[1], axis=1)
    for label, (count, is_known) in enumerate(zip(positives, known.T, strict=True)):
        if 0 < count < is_known.sum():
            share = count / (count + prior_strength)
            cells, prior = likelihood[:, is_known, label], 1 - share
            weights[:, label] = _minimize_on_simplex(
                cells, share / count, shared, prior * slope, prior * curvature
            )
    return weights


def greedy(
    labels: Labels, probs: Members, *, rounds: Annotated[int, Bound(1, 2**20)] = 30
) -> Weights:
    """Greedy ensemble selection by macro average precision.

    Caruana et al. 2004, "Ensemble selection from libraries of models": every round adds, with
    repetition, the member that most improves the mean; weights are the shares of the members in
    the best of the `rounds` ensembles. One weight per member for all labels; the first of equals;
    uniform if no label has a positive.
    """
    if not (labels == 1).any():
        return uniform(labels, probs)
    members, _, classes = probs.shape
    counts, total = np.zeros(members), np.zeros(probs.shape[1:])
    best_score, best = -np.inf, counts
    for size in range(1, rounds + 1):
        scores = [_macro_average_precision(labels, (total + member) / size) for member in probs]
        choice = int(np.argmax(scores))
        counts, total = counts + (np.arange(members) == choice), total + probs[choice]
        if scores[choice] > best_score:
            best_score, best = scores[choice], counts / size
    return np.repeat(best[:, None], classes, axis=1)


def blend_out_of_fold(
    labels: Labels,
    probs: Members,
    blender: Blender,
    folds: int = CALIBRATION_FOLDS,
    seed: int = 0,
) -> Blended:
    """Blend every example with weights fitted on the other folds."""
    blended = np.empty(labels.shape, np.float32)
    for held_out in held_out_masks(labels, folds, seed):
        weights = blender(labels[~held_out], probs[:, ~held_out])
        blended[held_out] = blend(probs[:, held_out], weights)
    return blended


def leave_one_out(labels: Labels, probs: Members, blender: Blender, score: Score) -> Vector:
    """The gain of each member: the score of the blend minus that of a blend refitted without it.

    NaN for a single member. Both are fitted and scored on the same rows, so both are biased.
    """

    def score_blend(members: Members) -> float:
        return score(labels, blend(members, blender(labels, members)))

    if len(probs) == 1:
        return np.full(1, np.nan)
    full = score_blend(probs)
    return np.array(
        [full - score_blend(np.delete(probs, index, axis=0)) for index in range(len(probs))]
    )


def diversity(labels: Labels, probs: Members, decided: Decisions) -> Diversity:
    """How different the members are.

    decided: each member's decisions under its own thresholds.
    """
    known = ~np.isnan(labels)
    values = np.full((2, labels.shape[1], len(probs), len(probs)), np.nan)
    for label in np.flatnonzero(known.any(axis=0)):
        rows = known[:, label]
        yes = decided[:, rows, label].astype(np.float64)
        differ = yes @ (1 - yes).T
        values[0, label] = (differ + differ.T) / rows.sum()
        errors = labels[rows, label] - probs[:, rows, label].astype(np.float64)
        centered = errors - errors.mean(axis=1, keepdims=True)
        centered[(errors == errors[:, :1]).all(axis=1)] = 0  # rounding may leave a variance
        norms = np.linalg.norm(centered, axis=1)
        values[1, label] = ratio(centered @ centered.T, np.outer(norms, norms))
    return Diversity(
        *(ratio(np.nansum(kind, axis=0), (~np.isnan(kind)).sum(axis=0)) for kind in values)
    )


def _macro_average_precision(labels: Labels, probs: Probs) -> float:
    probs = probs.astype(np.float32)
    columns = zip(labels.T, probs.T, ~np.isnan(labels.T), strict=True)
    scores = [average_precision(y[known] == 1, p[known]) for y, p, known in columns]
    return mean_where_known(np.array(scores))


def _likelihood(labels: Labels, probs: Members) -> Members:
    """The probability each member gives to each label's value; unknown labels count as 0."""
    p = np.clip(probs.astype(np.float64), LOG_LOSS_EDGE, 1 - LOG_LOSS_EDGE)
    return np.where(labels == 1, p, 1 - p)


def _fit_shared(labels: Labels, probs: Members) -> Vector:
    members, cells = len(probs), _likelihood(labels, probs)[:, ~np.isnan(labels)]
    even, zero = np.full(members, 1 / members), np.zeros(members)
    if not cells.size:
        return even
    return _minimize_on_simplex(cells, 1 / cells.shape[1], even, zero, np.zeros((members, members)))


def _minimize_on_simplex(
    cells: Likelihood, rate: float, start: Vector, slope: Vector, curvature: Matrix
) -> Vector:
    """Minimize -rate * sum(log(w @ cells)) + slope @ d + d @ curvature @ d / 2, d = w - start, over
    w on the simplex.

    Newton's method: a step goes to the minimum of the second-order model on the simplex, and is
    halved until the loss falls (Kim et al. 2020, "A fast algorithm for maximum likelihood
    estimation of mixture proportions", arXiv 1806.01412). The loss is convex, so w @ gradient -
    min(gradient) bounds its distance from the minimum.
    """

    def loss(w: Vector) -> float:
        offset = w - start
        return float(
            -rate * np.log(w @ cells).sum() + slope @ offset + offset @ curvature @ offset / 2
        )

    w, current = start, loss(start)
    for _ in range(MAX_STEPS):
        odds = cells / (w @ cells)
        gradient = -rate * odds.sum(axis=1) + slope + curvature @ (w - start)
        if w @ gradient - gradient.min() < TOLERANCE:
            break
        hessian = rate * odds @ odds.T + curvature
        hessian += RIDGE * np.trace(hessian) / len(w) * np.eye(len(w))
        step = _minimize_quadratic(np.linalg.cholesky(hessian).T, w, gradient) - w
        gain = -gradient @ step
        while (stepped := loss(w + step)) > current - 1e-4 * gain:
            step, gain = step / 2, gain / 2
        w, current = w + step, stepped
    return w


def _minimize_quadratic(root: Matrix, w: Vector, gradient: Vector) -> Vector:
    """Minimize gradient @ (y - w) + |root @ (y - w)|^2 / 2 over y on the simplex.

    This is the y whose root @ y is nearest to a target: the minimum of |A @ y|, where A is root
    with the target subtracted from every column. With (1 - sum(y))^2 added instead of the
    constraint, non-negative least squares finds the same y, scaled.
    """
    target = root @ w - np.linalg.solve(root.T, gradient)
    columns = root - target[:, None]
    ones = np.ones((1, len(w)))
    y, _ = nnls(np.concatenate([columns, ones]), np.append(np.zeros(len(w)), 1.0))
    return y / y.sum()


BLENDERS: dict[str, Callable[..., Weights]] = {
    "uniform": uniform,
    "simplex": simplex,
    "simplex_per_label": simplex_per_label,
    "greedy": greedy,
}
