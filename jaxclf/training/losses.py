"""Losses: (logits, labels, label_mask, stats) -> one number per example.

Unknown labels (`label_mask` 0) are left out. A label may be any number in [0, 1].
"""

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

Smoothing = Annotated[float, Bound(0, 1)]


def _smooth(labels: Matrix, smoothing: float) -> Matrix:
    """1 -> 1 - smoothing / 2, 0 -> smoothing / 2."""
    return labels * (1 - smoothing) + smoothing / 2


def _to_row(value: float | tuple[float, ...]) -> PerLabel:
    """One number for all labels or one for each, as a row."""
    return jnp.atleast_2d(jnp.asarray(value, jnp.float32))


def mean_over_known(elements: Matrix, label_mask: Matrix) -> PerExample:
    """The mean over an example's known labels; 0 if none is known."""
    return (elements * label_mask).sum(axis=1) / jnp.maximum(label_mask.sum(axis=1), 1)


def _focal_term(log_correct: Matrix, log_wrong: Matrix, gamma: float | PerLabel) -> Matrix:
    """Cross-entropy times (probability of the wrong value) ** gamma; the gradient flows through
    both factors."""
    # The power is taken through the logarithm: values and gradients stay finite at any logit.
    return -jnp.exp(gamma * log_wrong) * log_correct


def _focal_elements(
    logits: Matrix, labels: Matrix, gamma: float | PerLabel, alpha: PerLabel | None = None
) -> Matrix:
    """The focal loss of each label; `alpha` is the weight of positives."""
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive, negative = _focal_term(log_p, log_q, gamma), _focal_term(log_q, log_p, gamma)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return labels * positive + (1 - labels) * negative


def bce(
    logits: Matrix,
    labels: Matrix,
    label_mask: Matrix,
    stats: LabelStats,
    *,
    pos_weight: Annotated[float | tuple[float, ...] | Literal["balanced"], POSITIVE] = 1.0,
    smoothing: Smoothing = 0.0,
) -> PerExample:
    """Binary cross-entropy.

    pos_weight: the weight of positives, one number or one per label; "balanced": negatives /
        positives of the training set.
    """
    if isinstance(pos_weight, str):
        weight = ((stats.known - stats.positives) / jnp.maximum(stats.positives, 1))[None]
    else:
        weight = _to_row(pos_weight)
    labels = _smooth(labels, smoothing)
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return mean_over_known(-weight * labels * log_p - (1 - labels) * log_q, label_mask)


def focal(
    logits: Matrix,
    labels: Matrix,
    label_mask: Matrix,
    stats: LabelStats,
    *,
    gamma: Annotated[float | tuple[float, ...], Bound(0, 2**10)] = 2.0,
    alpha: Annotated[float | tuple[float, ...] | None, Bound(0, 1)] = None,
    smoothing: Smoothing = 0.0,
) -> PerExample:
    """Focal loss: cross-entropy times (1 - probability of the correct value) ** gamma (Lin et al.
    2017, arXiv 1708.02002).

    gamma, alpha: one number or one per label.
    alpha: the weight of positives; that of negatives is 1 - alpha. None: both are 1.
    Not a proper score: the probabilities need calibration.
    """
    weight = None if alpha is None else _to_row(alpha)
    elements = _focal_elements(logits, _smooth(labels, smoothing), _to_row(gamma), weight)
    return mean_over_known(elements, label_mask)


def asymmetric(
    logits: Matrix,
    labels: Matrix,
    label_mask: Matrix,
    stats: LabelStats,
    *,
    gamma_pos: Annotated[float, Bound(0, 2**10)] = 1.0,
    gamma_neg: Annotated[float, Bound(0, 2**10)] = 4.0,
    clip: Annotated[float, Bound(0, 1)] = 0.05,
    smoothing: Smoothing = 0.0,
) -> PerExample:
    """Asymmetric loss: focal loss with separate exponents for positives and negatives, and the
    shifted probability max(p - clip, 0) for negatives (Ridnik et al. 2021, arXiv 2009.14119).

    Negatives with a probability of at most `clip` have no loss. The gradient flows through the
    focusing factor, as in the paper. It is the mean over labels; the authors' code takes the sum.
    Not a proper score: the probabilities need calibration.
    """
    labels = _smooth(labels, smoothing)
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive = _focal_term(log_p, log_q, gamma_pos)
    log_clip = jnp.log(clip)  # -inf for clip 0, which then has no effect
    above = log_p > log_clip
    # Mask before the log to avoid 0 * inf = NaN in the gradient.
    log_p = jnp.where(above, log_p, 0)
    log_shifted = log_p + jnp.log(-jnp.expm1(log_clip - log_p))
    negative = _focal_term(jnp.logaddexp(log_q, log_clip), log_shifted, gamma_neg)
    elements = labels * positive + (1 - labels) * jnp.where(above, negative, 0)
    return mean_over_known(elements, label_mask)


def class_balanced(
    logits: Matrix,
    labels: Matrix,
    label_mask: Matrix,
    stats: LabelStats,
    *,
    beta: Annotated[float, Bound(0, 1, open=True)] = 0.999,
    gamma: Annotated[float, Bound(0, 2**10)] = 0.0,
    smoothing: Smoothing = 0.0,
) -> PerExample:
    """Focal loss with each label weighted by 1 / its effective number of positives,
    (1 - beta ** n) / (1 - beta) (Cui et al. 2019, arXiv 1901.05555).

    As in Huang et al. 2021 (arXiv 2109.04712), a label's weight holds for its positives and its
    negatives. The mean weight over the labels is 1. gamma 0 is cross-entropy. beta near 0 gives
    equal weights; beta near 1 gives weights of 1 / n.
    """
    positives = jnp.maximum(stats.positives, 1)[None]
    # expm1 avoids cancellation in 1 - beta ** n.
    weight = 1 / -jnp.expm1(positives * math.log(beta))
    elements = _focal_elements(logits, _smooth(labels, smoothing), gamma)
    return mean_over_known(weight / weight.mean() * elements, label_mask)


LOSSES = {"bce": bce, "focal": focal, "asymmetric": asymmetric, "class_balanced": class_balanced}
