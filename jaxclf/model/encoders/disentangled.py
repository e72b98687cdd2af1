"""Attention scores by content and by relative position (He et al. 2021, arXiv 2006.03654)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxclf.model.encoders.common import Heads, Scores

# Vectors of the distances T-1 … -(T-1), by head.
Distances = Float[Array, "1 heads distances head_dim"]


def distances(length: int) -> Int[np.ndarray, " distances"]:
    """All distances of a query from a key in a row of T tokens: T-1 … -(T-1)."""
    return np.arange(length - 1, -length, -1)


def attention_scores(
    query: Heads, key: Heads, to_key: Distances | None, to_query: Distances | None
) -> Scores:
    """Content to content, content to position and position to content, summed and scaled by the
    number of terms."""
    terms = 1 + (to_key is not None) + (to_query is not None)
    total = query @ key.swapaxes(-1, -2)
    if to_key is not None:
        total = total + skew(query @ to_key.swapaxes(-1, -2))
    if to_query is not None:
        # Distances of a key from a query are the negatives.
        backwards = key @ to_query[:, :, ::-1].swapaxes(-1, -2)
        total = total + skew(backwards).swapaxes(-1, -2)
    return total * (query.shape[-1] * terms) ** -0.5


def skew(scores: Float[Array, "rows heads length distances"]) -> Scores:
    """Scores by distance T-1 … -(T-1) -> scores by key: query i and key j have distance i - j.

    Pads and reshapes, because the gradient of a gather is a scatter, which is slow on a CPU.
    """
    rows, heads, length, count = scores.shape
    flat = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(rows, heads, -1)
    flat = flat[:, :, length - 1 : length - 1 + length * count]
    return flat.reshape(rows, heads, length, count)[..., :length]
