"""Attention over long rows: local by blocks, global by parts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from jaxclf.model.encoders.common import Heads, attention_weights, drop, same_segment

# Global attention takes so many queries at a time: memory grows with the row, not its square.
QUERIES = 1024

Segments = Int32[Array, "rows length"]

# (scores, mask, which part of the row) -> weights, with dropout where there is any.
Weigh = Callable[[Array, Array, Any], Array]


def attention_probs(dtype: jnp.dtype, scores: Array, mask: Array, part: Any) -> Array:
    return attention_weights(scores, mask, dtype)


def weigh_and_drop(
    dtype: jnp.dtype, rate: float, key: Array, scores: Array, mask: Array, part: Any
) -> Array:
    return drop(attention_weights(scores, mask, dtype), rate, jax.random.fold_in(key, part))


def global_attention(
    query: Heads, key: Heads, value: Heads, segments: Segments, weigh: Weigh
) -> Heads:
    """Every token to all of its segment; a long row in parts whose scores are made anew in the
    backward pass."""
    rows, heads, length, width = query.shape
    scaled = query * width**-0.5

    def attend(part: tuple[Array, Array, Array]) -> Array:
        queries, owners, index = part
        mask = owners[:, None, :, None] == segments[:, None, None, :]
        return weigh(queries @ key.swapaxes(-1, -2), mask, index) @ value

    if length <= QUERIES:
        return attend((scaled, segments, jnp.int32(0)))
    count = -(-length // QUERIES)
    spare = count * QUERIES - length
    queries = jnp.pad(scaled, ((0, 0), (0, 0), (0, spare), (0, 0)))
    owners = jnp.pad(segments, ((0, 0), (0, spare)))
    parts = (
        queries.reshape(rows, heads, count, QUERIES, width).transpose(2, 0, 1, 3, 4),
        owners.reshape(rows, count, QUERIES).transpose(1, 0, 2),
        jnp.arange(count),
    )
    mixed = jax.lax.map(jax.checkpoint(attend), parts)
    return mixed.transpose(1, 2, 0, 3, 4).reshape(rows, heads, -1, width)[:, :, :length]


def local_attention(
    query: Heads, key: Heads, value: Heads, segments: Segments, reach: int, weigh: Weigh
) -> Heads:
    """Every token to those of its segment at most `reach` places away.

    A long row is cut into blocks of `reach` tokens, which see themselves and the blocks beside
    them: the cost grows with the row, not its square.
    """
    rows, heads, length, width = query.shape
    scaled = query * width**-0.5
    if length <= 3 * reach:  # what a block sees is the row
        places = jnp.arange(length)
        near = jnp.abs(places[:, None] - places[None]) <= reach
        mask = same_segment(segments) & near[None, None]
        return weigh(scaled @ key.swapaxes(-1, -2), mask, 0) @ value
    count = -(-length // reach)
    spare = count * reach - length

    def blocks(x: Heads, around: int) -> Float[Array, "rows heads blocks block head_dim"]:
        padded = jnp.pad(x, ((0, 0), (0, 0), (around, spare + around), (0, 0)))
        return padded.reshape(rows, heads, -1, reach, width)

    def with_neighbours(x: Array, axis: int) -> Array:
        parts = [jax.lax.slice_in_dim(x, first, first + count, axis=axis) for first in range(3)]
        return jnp.concatenate(parts, axis=axis + 1)

    owners = jnp.pad(segments, ((0, 0), (0, spare)), constant_values=-1)
    around = jnp.pad(segments, ((0, 0), (reach, spare + reach)), constant_values=-1)
    seen = with_neighbours(around.reshape(rows, -1, reach), 1)
    near = jnp.abs(jnp.arange(reach)[:, None] + reach - jnp.arange(3 * reach)[None]) <= reach
    same = owners.reshape(rows, count, reach, 1) == seen[:, :, None]
    mask = (same & near[None, None])[:, None]
    keys, values = (with_neighbours(blocks(x, reach), 2) for x in (key, value))
    mixed = weigh(blocks(scaled, 0) @ keys.swapaxes(-1, -2), mask, 0) @ values
    return mixed.reshape(rows, heads, -1, width)[:, :, :length]
