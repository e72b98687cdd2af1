"""Blending: weights per label under which the probabilities of several runs are averaged.

A blender is a function (labels, probs) -> weights. Weights are not negative, and each label's sum
to 1. What is averaged are probabilities, and they are to be calibrated first: focal loss leaves 0.4
where cross-entropy says 0.1, and the mean would follow the louder member. A mean of calibrated
probabilities is itself too timid (Ranjan and Gneiting 2010, "Combining probability forecasts"), so
thresholds are to be fitted on the blend, and it may be calibrated again.

Averages of logits were tried where the truth is planted (`tests/decisions/goemotions_like.py`: five
members on 5427 examples, macro F1 of fresh ones under `plug_in` thresholds). Under weights of least
log loss they are as good where errors are normal, 0.007 better where their tails are heavy; under
equal weights 0.004 worse and 0.006 better; between halves of one split, of nine real runs, as good.
So it is probabilities: their log loss is that of a mixture, convex in the weights, and a member
that is sure and wrong cannot overrule the others.

Members that are equally good want `uniform`: on the real runs nothing beat it in macro F1, though
the others had less log loss. Where members differ, `simplex` is 0.01 above it in the planted world.
Its loss is mostly of frequent labels: where some members know the rare ones it is 0.014 below, and
`greedy` is not. Where members differ from label to label, `simplex_per_label` is 0.01 to 0.02 above
`simplex`, and where they are alike 0.002 below.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64
from scipy.optimize import nnls

from jaxclf.decisions.arrays import Labels, Probs, mean_where_known, ratio
from jaxclf.decisions.folds import assign_folds
from jaxclf.decisions.ranking import average_precision
from jaxclf.errors import ConfigError
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

EDGE = 1e-7  # probabilities are held this far from 0 and 1, as in `metrics.log_loss`
TOLERANCE = 1e-10  # nats that weights may be above the least loss
STEPS = 100  # Newton's method needs about ten
RIDGE = 1e-9  # of the mean curvature: members that are alike share their weight


class Diversity(NamedTuple):
    """Of each two members, the mean over labels of: the share of known examples that they decide
    differently, and the correlation of their errors, label less probability. NaN where no label
    says anything."""

    disagreement: Matrix
    correlation: Matrix


def blend(probs: Members, weights: Weights) -> Blended:
    return np.einsum("mnc,mc->nc", probs, weights).astype(np.float32)


def uniform(labels: Labels, probs: Members) -> Weights:
    """Equal weights, whatever the data."""
    members, _, classes = probs.shape
    return np.full((members, classes), 1 / members)


def simplex(labels: Labels, probs: Members) -> Weights:
    """One weight per member for all labels, of least log loss over all known cells: within 1e-10
    nats of the least there is. Uniform where nothing is known."""
    return np.repeat(_shared(labels, probs)[:, None], probs.shape[2], axis=1)


def simplex_per_label(
    labels: Labels, probs: Members, *, prior_strength: Annotated[float, NON_NEGATIVE] = 100.0
) -> Weights:
    """Each label's weights of least log loss, rare labels leaning on those of `simplex`.

    prior_strength: the pooled log loss of all labels, to second order around the shared weights
        and scaled down to that many positives, is added to a label's own (a power prior, Ibrahim
        and Chen 2000). At 0 each label stands alone; at infinity all share, as does a label whose known
        cells are all positive or all negative.
    """
    shared, known = _shared(labels, probs), ~np.isnan(labels)
    likelihood = _likelihood(labels, probs)
    positives = (labels == 1).sum(axis=0)
    odds = likelihood[:, known] / (shared @ likelihood[:, known])
    pooled = max(positives.sum(), 1)
    slope, curvature = -odds.sum(axis=1) / pooled, odds @ odds.T / pooled
    weights = np.repeat(shared[:, None], labels.shape[1], axis=1)
    for label, (count, there) in enumerate(zip(positives, known.T, strict=True)):
        if 0 < count < there.sum():
            own = count / (count + prior_strength)
            cells, pull = likelihood[:, there, label], 1 - own
            weights[:, label] = _minimize_on_simplex(
                cells, own / count, shared, pull * slope, pull * curvature
            )
    return weights


def greedy(
    labels: Labels, probs: Members, *, rounds: Annotated[int, Bound(1, 2**20)] = 30
) -> Weights:
    """How often each member is picked when the next one is always that which most raises the macro
    average precision of the mean, over and over, up to the best of `rounds` such ensembles (Caruana
    et al. 2004, "Ensemble selection from libraries of models"). One weight per member for all
    labels; of equals the first; uniform where no label has a positive.

    Average precision is the aim by the planted world: log loss gives the weights of `simplex`; this
    is as good, and 0.007 to 0.014 better where members are not calibrated or where some know the
    rare labels and some the frequent ones; macro F1 under `plug_in` itself is no better and takes
    longer. Starting from the best three members, as the paper does from thousands, changes nothing.
    """
    if not (labels == 1).any():
        return uniform(labels, probs)
    members, _, classes = probs.shape
    picked, total = np.zeros(members), np.zeros(probs.shape[1:])
    best, found = -np.inf, picked
    for size in range(1, rounds + 1):
        scores = [_macro_precision(labels, (total + one) / size) for one in probs]
        choice = int(np.argmax(scores))
        picked, total = picked + (np.arange(members) == choice), total + probs[choice]
        if scores[choice] > best:
            best, found = scores[choice], picked / size
    return np.repeat(found[:, None], classes, axis=1)


def blend_out_of_fold(
    labels: Labels, probs: Members, blender: Blender, folds: int = 5, seed: int = 0
) -> Blended:
    """Blended probabilities, each row's under weights fitted on the other folds, so that what is
    fitted on them and said of them is honest."""
    if folds < 2:
        raise ConfigError(f"folds={folds!r}: at least 2 are needed")
    fold, found = assign_folds(labels, folds, seed), np.empty(labels.shape, np.float32)
    for one in range(folds):
        inside = fold == one
        weights = blender(labels[~inside], probs[:, ~inside])
        found[inside] = blend(probs[:, inside], weights)
    return found


def leave_one_out(labels: Labels, probs: Members, blender: Blender, score: Score) -> Vector:
    """What each member gains: the score of the whole less that of the ensemble refitted without it.
    NaN for a member that is alone. Fitted and scored on the same rows, as here, both flatter."""

    def scored(some: Members) -> float:
        return score(labels, blend(some, blender(labels, some)))

    if len(probs) == 1:
        return np.full(1, np.nan)
    whole = scored(probs)
    return np.array([whole - scored(np.delete(probs, one, axis=0)) for one in range(len(probs))])


def diversity(labels: Labels, probs: Members, decided: Decisions) -> Diversity:
    """decided: each member's decisions, under thresholds of its own."""
    known = ~np.isnan(labels)
    each = np.full((2, labels.shape[1], len(probs), len(probs)), np.nan)
    for label in np.flatnonzero(known.any(axis=0)):
        there = known[:, label]
        yes = decided[:, there, label].astype(np.float64)
        differ = yes @ (1 - yes).T
        each[0, label] = (differ + differ.T) / there.sum()
        errors = labels[there, label] - probs[:, there, label].astype(np.float64)
        away = errors - errors.mean(axis=1, keepdims=True)
        away[(errors == errors[:, :1]).all(axis=1)] = 0  # which rounding may have made a variance
        norms = np.linalg.norm(away, axis=1)
        each[1, label] = ratio(away @ away.T, np.outer(norms, norms))
    return Diversity(*(ratio(np.nansum(one, axis=0), (~np.isnan(one)).sum(axis=0)) for one in each))


def _macro_precision(labels: Labels, probs: Probs) -> float:
    probs = probs.astype(np.float32)
    columns = [
        (y[~np.isnan(y)] == 1, p[~np.isnan(y)]) for y, p in zip(labels.T, probs.T, strict=True)
    ]
    return mean_where_known(np.array([average_precision(*column) for column in columns]))


def _likelihood(labels: Labels, probs: Members) -> Members:
    """What each member gave to what came true: a blend gives the weighted mean of these."""
    p = np.clip(probs.astype(np.float64), EDGE, 1 - EDGE)
    return np.where(labels == 1, p, 1 - p)


def _shared(labels: Labels, probs: Members) -> Vector:
    members, cells = len(probs), _likelihood(labels, probs)[:, ~np.isnan(labels)]
    even, zero = np.full(members, 1 / members), np.zeros(members)
    if not cells.size:
        return even
    return _minimize_on_simplex(cells, 1 / cells.shape[1], even, zero, np.zeros((members, members)))


def _minimize_on_simplex(
    cells: Likelihood, rate: float, start: Vector, slope: Vector, curvature: Matrix
) -> Vector:
    """The w on the simplex of least -rate * sum(log(w @ cells)) + slope @ d + d @ curvature @ d /
    2, d = w - start.

    By Newton's method: steps go to the least of the second-order model on the simplex, or half as
    far till the loss falls (Kim et al. 2020, "A fast algorithm for maximum likelihood estimation of
    mixture proportions", arXiv 1806.01412). The loss is convex, so w @ gradient - min(gradient)
    bounds how far it is above the least.
    """

    def loss(w: Vector) -> float:
        away = w - start
        return float(-rate * np.log(w @ cells).sum() + slope @ away + away @ curvature @ away / 2)

    w, now = start, loss(start)
    for _ in range(STEPS):
        odds = cells / (w @ cells)
        gradient = -rate * odds.sum(axis=1) + slope + curvature @ (w - start)
        if w @ gradient - gradient.min() < TOLERANCE:
            break
        bend = rate * odds @ odds.T + curvature
        bend += RIDGE * np.trace(bend) / len(w) * np.eye(len(w))
        step = _nearest(np.linalg.cholesky(bend).T, w, gradient) - w
        gain = -gradient @ step
        while (there := loss(w + step)) > now - 1e-4 * gain:
            step, gain = step / 2, gain / 2
        w, now = w + step, there
    return w


def _nearest(root: Matrix, w: Vector, gradient: Vector) -> Vector:
    """The y on the simplex of least gradient @ (y - w) + |root @ (y - w)|^2 / 2.

    That is the y whose root @ y is nearest to a target, or of least |A @ y|, A having the target
    taken off every column. Adding (1 - sum)^2 instead of holding the sum, the least over y's size
    is q / (1 + q), q being |A @ y|^2 at sum 1: the same y, scaled, by non-negative least squares.
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
