"""Losses: (logits, labels, known, stats) -> one number per example; unknown labels count for
nothing, and a label may be any number in [0, 1]."""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxclf.types import POSITIVE, Bound, LabelStats

Matrix = Float[Array, "examples classes"]
PerExample = Float[Array, " examples"]
PerLabel = Float[Array, "1 _"]
Loss = Callable[[Matrix, Matrix, Matrix, LabelStats], PerExample]


def _smooth(labels: Matrix, smoothing: float) -> Matrix:
    """1 -> 1 - smoothing / 2, 0 -> smoothing / 2."""
    return labels * (1 - smoothing) + smoothing / 2


def _per_label(value: float | tuple[float, ...]) -> PerLabel:
    """One number for all labels or one for each, as a row."""
    return jnp.atleast_2d(jnp.asarray(value, jnp.float32))


def _mean_known(elements: Matrix, known: Matrix) -> PerExample:
    """The mean over an example's known labels, 0 where none is known."""
    return (elements * known).sum(axis=1) / jnp.maximum(known.sum(axis=1), 1)


def _log_probs(logits: Matrix) -> tuple[Matrix, Matrix]:
    """Logarithms of the probabilities that a label is there and that it is not."""
    return jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)


def _focus(log_truth: Matrix, log_error: Matrix, gamma: float | PerLabel) -> Matrix:
    """Cross-entropy times (probability of the error) ** gamma; the power carries gradient too."""
    # Powers through logarithms: finite values and gradients at any logit.
    return -jnp.exp(gamma * log_error) * log_truth


def _focal_pair(logits: Matrix, gamma: float | PerLabel) -> tuple[Matrix, Matrix]:
    """The loss of each label were it positive, and were it negative."""
    log_p, log_q = _log_probs(logits)
    return _focus(log_p, log_q, gamma), _focus(log_q, log_p, gamma)


def _counts(stats: LabelStats) -> tuple[PerLabel, PerLabel]:
    """Positives and negatives of each label in the training set, at least one, as rows."""
    positives = jnp.maximum(stats.positives, 1)[None]
    return positives, jnp.maximum(stats.known - stats.positives, 1)[None]


def bce(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    pos_weight: Annotated[float | tuple[float, ...] | Literal["balanced"], POSITIVE] = 1.0,
    smoothing: Annotated[float, Bound(0, 1)] = 0.0,
) -> PerExample:
    """Binary cross-entropy.

    pos_weight: weight of positives, one number or one per label; "balanced": negatives / positives
        of the training set.
    """
    if isinstance(pos_weight, str):
        weight = ((stats.known - stats.positives) / jnp.maximum(stats.positives, 1))[None]
    else:
        weight = _per_label(pos_weight)
    labels = _smooth(labels, smoothing)
    log_p, log_q = _log_probs(logits)
    return _mean_known(-weight * labels * log_p - (1 - labels) * log_q, known)


def focal(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    gamma: Annotated[float | tuple[float, ...], Bound(0, 2**10)] = 2.0,
    alpha: Annotated[float | tuple[float, ...] | None, Bound(0, 1)] = None,
    smoothing: Annotated[float, Bound(0, 1)] = 0.0,
) -> PerExample:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002): cross-entropy times (1 - probability of the
    truth) ** gamma.

    alpha: positives weigh alpha and negatives 1 - alpha; None: both weigh 1. Each option is one
        number or one per label.
    Not a proper score: its probabilities need calibration.
    """
    labels = _smooth(labels, smoothing)
    positive, negative = _focal_pair(logits, _per_label(gamma))
    if alpha is not None:
        positive, negative = _per_label(alpha) * positive, (1 - _per_label(alpha)) * negative
    return _mean_known(labels * positive + (1 - labels) * negative, known)


def asymmetric(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    gamma_pos: Annotated[float, Bound(0, 2**10)] = 1.0,
    gamma_neg: Annotated[float, Bound(0, 2**10)] = 4.0,
    clip: Annotated[float, Bound(0, 1)] = 0.05,
    smoothing: Annotated[float, Bound(0, 1)] = 0.0,
) -> PerExample:
    """Asymmetric loss (Ridnik et al. 2021, arXiv 2009.14119): focal, with an exponent each for
    positives and negatives, and for negatives the shifted probability max(p - clip, 0).

    Negatives whose probability is at most `clip` count for nothing. The focusing power carries
    gradient, as in the paper's analysis; the authors' code can switch that off. The mean over
    labels, where theirs is the sum. Not a proper score.
    """
    labels = _smooth(labels, smoothing)
    log_p, log_q = _log_probs(logits)
    positive = _focus(log_p, log_q, gamma_pos)
    log_clip = jnp.log(clip)  # -inf for 0, which below is as if it were not there
    above = log_p > log_clip
    # A stand-in where the loss is 0 anyway, lest its infinite slope meet that 0.
    log_p = jnp.where(above, log_p, 0)
    shifted = log_p + jnp.log(-jnp.expm1(log_clip - log_p))
    negative = _focus(jnp.logaddexp(log_q, log_clip), shifted, gamma_neg)
    return _mean_known(labels * positive + (1 - labels) * jnp.where(above, negative, 0), known)


def class_balanced(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    beta: Annotated[float, Bound(0, 1, open=True)] = 0.999,
    gamma: Annotated[float, Bound(0, 2**10)] = 0.0,
    smoothing: Annotated[float, Bound(0, 1)] = 0.0,
) -> PerExample:
    """Focal loss, each label weighed by 1 / its effective number of positives,
    (1 - beta ** n) / (1 - beta) (Cui et al. 2019, arXiv 1901.05555).

    The form for several labels is that of Huang et al. 2021 (arXiv 2109.04712): a label's weight
    holds for its positives and its negatives. The weights have mean 1 over the labels, as Cui et
    al. have them. gamma 0 is cross-entropy; beta near 0 leaves all labels equal, near 1 weighs by
    1 / n.
    """
    # 1 - beta ** n without cancellation, as beta is near 1.
    weight = 1 / -jnp.expm1(_counts(stats)[0] * math.log(beta))
    labels = _smooth(labels, smoothing)
    positive, negative = _focal_pair(logits, gamma)
    elements = labels * positive + (1 - labels) * negative
    return _mean_known(weight / weight.mean() * elements, known)


def distribution_balanced(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    lift: float = 0.1,
    steepness: float = 10.0,
    midpoint: float = 0.9,
    bias: float = 0.05,
    tolerance: float = 2.0,
    gamma: Annotated[float, Bound(0, 2**10)] = 2.0,
    smoothing: Annotated[float, Bound(0, 1)] = 0.0,
) -> PerExample:
    """Distribution-balanced loss (Wu et al. 2020, arXiv 2007.09654), with the defaults for text of
    Huang et al. 2021 (arXiv 2109.04712): re-balanced weights, negative-tolerant logits, focal.

    The weight of label i in an example is lift + sigmoid(steepness * (r - midpoint)), where
    r = (1 / n_i) / (sum of 1 / n_j over the example's positives j), and n counts positives in the
    training set (alpha, beta and mu of the paper). An example without positives takes the limit,
    the largest weight; a soft label adds its share to the sum. Logits are lowered by
    bias * log(negatives / positives) (kappa), and those of negatives multiplied, their loss
    divided, by `tolerance` (lambda). Prediction takes the logits as they are.
    """
    positives, negatives = _counts(stats)
    rarity = 1 / positives
    drawn = (rarity * labels * known).sum(axis=1, keepdims=True)
    ratio = rarity / jnp.maximum(drawn, 1e-30)
    weight = lift + jax.nn.sigmoid(steepness * (ratio - midpoint))
    labels = _smooth(labels, smoothing)
    lowered = logits - bias * jnp.log(negatives / positives)
    positive, _ = _focal_pair(lowered, gamma)
    _, negative = _focal_pair(tolerance * lowered, gamma)
    elements = labels * positive + (1 - labels) * negative / tolerance
    return _mean_known(weight * elements, known)


def zlpr(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    smoothing: Annotated[float, Bound(0, 1)] = 0.0,
) -> PerExample:
    """Zero-bounded log-sum-exp and pairwise rank-based loss (Su et al. 2022, arXiv 2208.02955):
    log(1 + sum of exp(s) over negatives) + log(1 + sum of exp(-s) over positives).

    A soft label y stands, as in the paper, in both sums, in the first with weight 1 - y and in the
    second with y. A sum over labels, not a mean. A logit is no log-odds here: 0 still divides
    positives from negatives, but probabilities need calibration.
    """
    labels = _smooth(labels, smoothing)

    def bounded(scores: Matrix, weights: Matrix) -> PerExample:
        # A weight of 0 is a term of exp(-inf); the 1 in the logarithm is the column of zeros.
        terms = scores + jnp.log(weights * known)
        return jax.nn.logsumexp(jnp.pad(terms, ((0, 0), (1, 0))), axis=1)

    return bounded(logits, 1 - labels) + bounded(-logits, labels)


def soft_f1(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    pseudocount: float = 1.0,
) -> PerExample:
    """1 - F1 of an example's labels, counted in probabilities: 1 - (2 tp + pseudocount) /
    (2 tp + fp + fn + pseudocount), the smoothed Dice loss (Li et al. 2020, arXiv 1911.02855).

    pseudocount: what gives an example without positives a loss and a gradient, too.
    Over an example's labels (the samples F1) and not over the batch (the macro F1): a batch's F1 is
    no sum over examples, so k micro-batches would not equal one big batch. A soft label counts as
    its expectation, so the best probability for it is 0 or 1, as F1 wants it; not a proper score.
    """
    p, q = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    hits = (2 * labels * p * known).sum(axis=1)
    errors = ((labels * q + (1 - labels) * p) * known).sum(axis=1)
    return errors / (hits + errors + pseudocount)


LOSSES = {
    "bce": bce,
    "focal": focal,
    "asymmetric": asymmetric,
    "class_balanced": class_balanced,
    "distribution_balanced": distribution_balanced,
    "zlpr": zlpr,
    "soft_f1": soft_f1,
}
