"""Attention over long rows against its definition in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.model.encoders import common, long_attention


def attention_inputs(length, seed=0):
    rng = np.random.default_rng(seed)
    query, key, value = (
        jnp.asarray(rng.normal(size=(2, 2, length, 8)).astype(np.float32)) for _ in range(3)
    )
    starts = np.sort(rng.integers(0, length, 4))
    segments = np.searchsorted(starts, np.arange(length), side="right") + 1
    return query, key, value, jnp.asarray(np.stack([segments, segments]).astype(np.int32))


def dense_attention(query, key, value, mask):
    scores = np.asarray(query @ key.swapaxes(-1, -2)) * query.shape[-1] ** -0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask[:, None]
    return weights / weights.sum(-1, keepdims=True) @ np.asarray(value)


def weigh(scores, mask, part):
    return common.attention_weights(scores, mask, jnp.dtype("float32"))


def check_against_dense(attend, length, reach):
    *states, segments = attention_inputs(length)
    positions, owners = np.arange(length), np.asarray(segments)
    mask = owners[:, :, None] == owners[:, None]
    mask &= np.abs(positions[:, None] - positions[None])[None] <= reach
    ours = jax.jit(functools.partial(attend, weigh=weigh))(*states, segments)
    np.testing.assert_allclose(ours, dense_attention(*states, mask), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 17, 47, 64])
@pytest.mark.parametrize("reach", [1, 15, 16, 100])
def test_local_attention_is_attention_under_a_band(length, reach):
    attend = functools.partial(long_attention.local_attention, reach=reach)
    check_against_dense(attend, length, reach)


@pytest.mark.parametrize("length", [7, 16, 40])
def test_global_attention_in_parts_is_the_same(length, monkeypatch):
    monkeypatch.setattr(long_attention, "QUERIES", 16)
    check_against_dense(long_attention.global_attention, length, length)


def test_parts_of_a_row_draw_different_dropout_masks(monkeypatch):
    """Every part draws a mask of its own; the same key draws the same masks."""
    monkeypatch.setattr(long_attention, "QUERIES", 8)
    query, _, value, _ = attention_inputs(16)
    segments = jnp.ones((2, 16), jnp.int32)
    value = jnp.broadcast_to(jnp.eye(16, 8), (2, 2, 16, 8))
    query = jnp.zeros_like(query)

    def drop(key):
        weigh = lambda *rest: long_attention.weigh_and_drop(jnp.dtype("float32"), 0.5, key, *rest)  # noqa: E731
        return np.asarray(long_attention.global_attention(query, query, value, segments, weigh))

    first = drop(jax.random.key(0))
    np.testing.assert_array_equal(first, drop(jax.random.key(0)))
    assert not np.array_equal(first[:, :, :8], first[:, :, 8:])
    # Each weight is dropped or doubled: 0 or 2/16.
    assert set(np.unique(first)) == {0.0, np.float32(0.125)}


def test_a_local_layer_costs_linear_time():
    """Twice the row costs local attention twice the operations, global attention four times."""

    def cost(attend, length):
        shapes = [jax.ShapeDtypeStruct((1, 2, length, 8), jnp.float32)] * 3
        segments = jax.ShapeDtypeStruct((1, length), jnp.int32)
        return jax.jit(attend).lower(*shapes, segments).compile().cost_analysis()["flops"]

    def local(query, key, value, segments):
        return long_attention.local_attention(query, key, value, segments, 16, weigh)

    def everywhere(query, key, value, segments):
        return long_attention.global_attention(query, key, value, segments, weigh)

    assert 1.9 < cost(local, 1024) / cost(local, 512) < 2.1
    assert 3.8 < cost(everywhere, 1024) / cost(everywhere, 512) < 4.2
