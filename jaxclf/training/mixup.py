"""Mixup of pooled texts and their labels, in pairs (Zhang et al. 2018, arXiv 1710.09412; of hidden
representations, Verma et al. 2019, arXiv 1806.05236)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxclf.types import Batch, Mix


def sample_mixup(key: Array, weight: Float[Array, " slots"], alpha: float) -> Mix:
    """Draw a partner for each example, and the fraction of at least 0.5 that it keeps of itself.

    The examples are put in a random cyclic order and mixed with their successors. An empty slot is
    its own partner.
    """
    order_key, lam_key = jax.random.split(key)
    is_used = weight > 0
    # The empty slots come last.
    order = jnp.argsort(jax.random.uniform(order_key, weight.shape) + jnp.where(is_used, 0, 2))
    rank = jnp.argsort(order)
    next_rank = jnp.where(rank + 1 < is_used.sum(), rank + 1, 0)
    index = jnp.where(is_used, order[next_rank], jnp.arange(len(weight)))
    lam = jax.random.beta(lam_key, alpha, alpha, weight.shape)
    return Mix(index, jnp.maximum(lam, 1 - lam)[:, None])


def mix_labels(batch: Batch, mix: Mix) -> Batch:
    """Mix the labels to soft labels; a label is known if both examples have it known."""
    label_mask = batch.label_mask * batch.label_mask[mix.index]
    labels = mix.lam * batch.labels + (1 - mix.lam) * batch.labels[mix.index]
    return batch._replace(labels=labels * label_mask, label_mask=label_mask)
