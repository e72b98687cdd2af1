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


LOSSES = {
    "bce": bce,
    "focal": focal,
    "asymmetric": asymmetric,
    "class_balanced": class_balanced,
}
