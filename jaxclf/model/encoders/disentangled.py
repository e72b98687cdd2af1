"""Scores of attention by content and by distance (He et al. 2021, arXiv 2006.03654)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxclf.model.encoders.common import Heads, Scores

# The vectors of distances T-1 … -(T-1), by heads.
Distances = Float[Array, "1 heads distances head_dim"]


def distances(length: int) -> Int[np.ndarray, " distances"]:
    """Query's place minus key's, for all there are in a row: T-1 … -(T-1)."""
    return np.arange(length - 1, -length, -1)


def scores(
    query: Heads, key: Heads, to_key: Distances | None, to_query: Distances | None
) -> Scores:
    """Content to content, content to position and position to content, summed and scaled by the
    number of terms."""
    terms = 1 + (to_key is not None) + (to_query is not None)
    total = query @ key.swapaxes(-1, -2)
    if to_key is not None:
        total = total + skew(query @ to_key.swapaxes(-1, -2))
    if to_query is not None:
        # From the key's side distances run the other way.
        backwards = key @ to_query[:, :, ::-1].swapaxes(-1, -2)
        total = total + skew(backwards).swapaxes(-1, -2)
    return total * (query.shape[-1] * terms) ** -0.5


def skew(scores: Float[Array, "rows heads length distances"]) -> Scores:
    """Row i of distances T-1 … -(T-1) -> the score of key j, that of distance i - j.

    By padding and reshaping: a gather's gradient is a scatter, eight times as slow on a CPU.
    """
    rows, heads, length, count = scores.shape
    flat = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(rows, heads, -1)
    flat = flat[:, :, length - 1 : length - 1 + length * count]
    return flat.reshape(rows, heads, length, count)[..., :length]
