"""Attention over long rows, with memory linear in the row: local by blocks, global by chunks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxclf.model.encoders.common import Heads, Rows, attention_weights, drop, same_segment

# Queries that global attention takes at a time.
QUERIES = 1024

# (scores, mask, index of the chunk) -> attention weights, after dropout.
Weigh = Callable[[Array, Array, Any], Array]


def weigh_and_drop(
    dtype: jnp.dtype, rate: float, key: Array | None, scores: Array, mask: Array, part: Any
) -> Array:
    """Attention weights, after dropout if there is a key."""
    weights = attention_weights(scores, mask, dtype)
    return weights if key is None else drop(weights, rate, jax.random.fold_in(key, part))


def global_attention(query: Heads, key: Heads, value: Heads, segments: Rows, weigh: Weigh) -> Heads:
    """Attention within segments; a long row in chunks whose scores are recomputed in the backward
    pass."""
    rows, heads, length, width = query.shape
    scaled = query * width**-0.5

    def attend(part: tuple[Array, Array, Array]) -> Array:
        queries, query_segments, index = part
        mask = query_segments[:, None, :, None] == segments[:, None, None, :]
        return weigh(queries @ key.swapaxes(-1, -2), mask, index) @ value

    if length <= QUERIES:
        return attend((scaled, segments, jnp.int32(0)))
    count = -(-length // QUERIES)
    spare = count * QUERIES - length
    queries = jnp.pad(scaled, ((0, 0), (0, 0), (0, spare), (0, 0)))
    query_segments = jnp.pad(segments, ((0, 0), (0, spare)))
    parts = (
        queries.reshape(rows, heads, count, QUERIES, width).transpose(2, 0, 1, 3, 4),
        query_segments.reshape(rows, count, QUERIES).transpose(1, 0, 2),
        jnp.arange(count),
    )
    mixed = jax.lax.map(jax.checkpoint(attend), parts)
    return mixed.transpose(1, 2, 0, 3, 4).reshape(rows, heads, -1, width)[:, :, :length]


def local_attention(
    query: Heads, key: Heads, value: Heads, segments: Rows, reach: int, weigh: Weigh
) -> Heads:
    """Attention within segments to tokens at most `reach` positions away.

    A long row is split into blocks of `reach` tokens, which attend to themselves and the adjacent
    blocks: the cost is linear in the row.
    """
    rows, heads, length, width = query.shape
    scaled = query * width**-0.5
    if length <= 3 * reach:  # three blocks cover the row
        positions = jnp.arange(length)
        near = jnp.abs(positions[:, None] - positions[None]) <= reach
        mask = same_segment(segments) & near[None, None]
        return weigh(scaled @ key.swapaxes(-1, -2), mask, 0) @ value
    count = -(-length // reach)
    spare = count * reach - length

    def blocks(x: Heads, around: int) -> Float[Array, "rows heads blocks block head_dim"]:
        padded = jnp.pad(x, ((0, 0), (0, 0), (around, spare + around), (0, 0)))
        return padded.reshape(rows, heads, -1, reach, width)

    def with_adjacent(x: Array, axis: int) -> Array:
        parts = [jax.lax.slice_in_dim(x, first, first + count, axis=axis) for first in range(3)]
        return jnp.concatenate(parts, axis=axis + 1)

    query_segments = jnp.pad(segments, ((0, 0), (0, spare)), constant_values=-1)
    around = jnp.pad(segments, ((0, 0), (reach, spare + reach)), constant_values=-1)
    key_segments = with_adjacent(around.reshape(rows, -1, reach), 1)
    near = jnp.abs(jnp.arange(reach)[:, None] + reach - jnp.arange(3 * reach)[None]) <= reach
    same = query_segments.reshape(rows, count, reach, 1) == key_segments[:, :, None]
    mask = (same & near[None, None])[:, None]
    keys, values = (with_adjacent(blocks(x, reach), 2) for x in (key, value))
    mixed = weigh(blocks(scaled, 0) @ keys.swapaxes(-1, -2), mask, 0) @ values
    return mixed.reshape(rows, heads, -1, width)[:, :, :length]
