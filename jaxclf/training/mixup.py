"""Mixup: pooled texts and their labels mixed in pairs (Zhang et al. 2018, arXiv 1710.09412; of
hidden representations, Verma et al. 2019, arXiv 1806.05236)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxclf.types import Batch, Mix


def sample_mixup(key: Array, weight: Float[Array, " slots"], alpha: float) -> Mix:
    """A partner for each example in use, and the share that it keeps of itself, at least a half.

    The examples stand in a random circle, each mixed with the next; an empty slot stays itself.
    """
    circle, share = jax.random.split(key)
    used = weight > 0
    # The empty slots come last.
    order = jnp.argsort(jax.random.uniform(circle, weight.shape) + jnp.where(used, 0, 2))
    place = jnp.argsort(order)
    following = jnp.where(place + 1 < used.sum(), place + 1, 0)
    partner = jnp.where(used, order[following], jnp.arange(len(weight)))
    drawn = jax.random.beta(share, alpha, alpha, weight.shape)
    return Mix(partner, jnp.maximum(drawn, 1 - drawn)[:, None])


def mix_labels(batch: Batch, mix: Mix) -> Batch:
    """Labels as soft targets; one is known where both have it known."""
    known = batch.label_mask * batch.label_mask[mix.partner]
    labels = mix.share * batch.labels + (1 - mix.share) * batch.labels[mix.partner]
    return batch._replace(labels=labels * known, label_mask=known)
