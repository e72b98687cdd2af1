"""Losses: (logits, labels, known, stats) -> one number per example; unknown labels count for
nothing."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxclf.types import LabelStats

Matrix = Float[Array, "examples classes"]
PerExample = Float[Array, " examples"]
Loss = Callable[[Matrix, Matrix, Matrix, LabelStats], PerExample]


def _smooth(labels: Matrix, smoothing: float) -> Matrix:
    """1 -> 1 - smoothing / 2, 0 -> smoothing / 2."""
    return labels * (1 - smoothing) + smoothing / 2


def _per_label(value: float | tuple[float, ...]) -> Float[Array, "1 _"]:
    """One number for all labels or one for each, as a row."""
    return jnp.atleast_2d(jnp.asarray(value, jnp.float32))


def _mean_known(elements: Matrix, known: Matrix) -> PerExample:
    """The mean over an example's known labels, 0 where none is known."""
    return (elements * known).sum(axis=1) / jnp.maximum(known.sum(axis=1), 1)


def bce(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    pos_weight: float | tuple[float, ...] | Literal["balanced"] = 1.0,
    smoothing: float = 0.0,
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
    elements = -weight * labels * jax.nn.log_sigmoid(logits) - (1 - labels) * jax.nn.log_sigmoid(
        -logits
    )
    return _mean_known(elements, known)


def focal(
    logits: Matrix,
    labels: Matrix,
    known: Matrix,
    stats: LabelStats,
    *,
    gamma: float | tuple[float, ...] = 2.0,
    alpha: float | tuple[float, ...] | None = None,
    smoothing: float = 0.0,
) -> PerExample:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002): cross-entropy times (1 - probability of the
    truth) ** gamma.

    alpha: positives weigh alpha and negatives 1 - alpha; None: both weigh 1. Each option is one
        number or one per label.
    Not a proper score: its probabilities need calibration.
    """
    exponent = _per_label(gamma)
    labels = _smooth(labels, smoothing)
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    # Powers through logarithms: finite values and gradients at any logit.
    positive = -jnp.exp(exponent * log_q) * log_p
    negative = -jnp.exp(exponent * log_p) * log_q
    if alpha is not None:
        positive, negative = _per_label(alpha) * positive, (1 - _per_label(alpha)) * negative
    return _mean_known(labels * positive + (1 - labels) * negative, known)


LOSSES = {"bce": bce, "focal": focal}
