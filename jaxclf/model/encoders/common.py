"""Parts shared by encoders: attention within segments, the post-norm block, embeddings, dropout."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, UInt16

normal_init = nn.initializers.normal(0.02)

Heads = Float[Array, "rows heads length head_dim"]
Scores = Float[Array, "rows heads length length"]
Mask = Bool[Array, "rows 1 length length"]
States = Float[Array, "tokens hidden"]


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x Phi(x) by erf, as in BERT; `jax.nn.gelu` uses erfc, which is slower on a CPU."""
    return x * 0.5 * (1 + jax.lax.erf(x * 2**-0.5))


# By their names in a config.json.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


class Block(NamedTuple):
    """The values that all layers of an encoder share."""

    heads: int
    intermediate_size: int
    activation: str
    norm_eps: float
    dtype: jnp.dtype
    dropout: float
    attention_dropout: float


class Native(NamedTuple):
    """The head of transformers' classifier for a family: a dense layer, an activation, an optional
    layer norm, the classifier."""

    activation: str
    bias: bool = True
    norm_eps: float | None = None
    norm_bias: bool = True


def same_segment(segments: Int32[Array, "rows length"]) -> Mask:
    """The mask of attention within a segment. Padding (0) attends to padding, so that no softmax is
    empty."""
    return (segments[:, :, None] == segments[:, None, :])[:, None]


def layer_norm(eps: float, dtype: jnp.dtype, name: str, bias: bool = True) -> nn.LayerNorm:
    """Layer norm with two-pass variance: flax's fast variance is inexact for a large mean."""
    return nn.LayerNorm(eps, dtype=dtype, use_bias=bias, use_fast_variance=False, name=name)


def dense(features: int, dtype: jnp.dtype, name: str, bias: bool = True) -> nn.Dense:
    return nn.Dense(features, bias, dtype=dtype, kernel_init=normal_init, name=name)


def embed(size: int, width: int, dtype: jnp.dtype, name: str) -> nn.Embed:
    return nn.Embed(size, width, dtype=dtype, embedding_init=normal_init, name=name)


class Dropout(nn.Module):
    """Zero elements with probability `rate` and scale up the others."""

    rate: float

    def __call__(self, x: Float[Array, "*shape"], deterministic: bool) -> Float[Array, "*shape"]:
        if deterministic or self.rate == 0:
            return x
        return drop(x, self.rate, self.make_rng("dropout"))


def drop(x: Float[Array, "*shape"], rate: float, key: Array) -> Float[Array, "*shape"]:
    """Dropout from 16 random bits an element, which makes the rate exact to 1e-5."""
    bits: UInt16[Array, "*shape"] = jax.random.bits(key, x.shape, jnp.uint16)
    keep = bits >= jnp.uint16(round(rate * 2**16))
    return jnp.where(keep, x / (1 - rate), jnp.zeros((), x.dtype))


def split_heads(x: Float[Array, "tokens hidden"], rows: int, heads: int) -> Heads:
    """[rows, heads, length, head_dim], for batched matrix products, which are fast on a CPU."""
    return x.reshape(rows, x.shape[0] // rows, heads, -1).transpose(0, 2, 1, 3)


def join_heads(x: Heads) -> Float[Array, "tokens hidden"]:
    rows, heads, length, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(rows * length, heads * width)


def attention_weights(scores: Array, mask: Array, dtype: jnp.dtype) -> Array:
    """Softmax over the keys that the mask allows, computed in float32."""
    scores = jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores).astype(dtype)


class SelfAttention(nn.Module):
    """Multi-head attention within segments (Vaswani et al. 2017, arXiv 1706.03762)."""

    block: Block

    @nn.compact
    def __call__(self, x: States, mask: Mask, deterministic: bool) -> States:
        block, rows, hidden = self.block, mask.shape[0], x.shape[-1]
        query, key, value = (
            split_heads(dense(hidden, block.dtype, name)(x), rows, block.heads)
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(-1, -2) * (query.shape[-1] ** -0.5)
        weights = attention_weights(scores, mask, block.dtype)
        weights = Dropout(block.attention_dropout)(weights, deterministic)
        return dense(hidden, block.dtype, "output")(join_heads(weights @ value))


class Layer(nn.Module):
    """A post-norm block with plain attention: BERT, RoBERTa, DistilBERT, ELECTRA."""

    block: Block

    @nn.compact
    def __call__(self, x: States, mask: Mask, deterministic: bool) -> States:
        attended = SelfAttention(self.block, name="attention")(x, mask, deterministic)
        return post_norm(self.block, x, attended, deterministic)


def post_norm(block: Block, x: States, attended: States, deterministic: bool) -> States:
    """A post-norm block after attention, in the scope of the calling module."""
    attended = Dropout(block.dropout)(attended, deterministic)
    x = layer_norm(block.norm_eps, block.dtype, "attention_norm")(x + attended)
    up = ACTIVATIONS[block.activation](dense(block.intermediate_size, block.dtype, "up")(x))
    down = dense(x.shape[-1], block.dtype, "down")(up)
    down = Dropout(block.dropout)(down, deterministic)
    return layer_norm(block.norm_eps, block.dtype, "mlp_norm")(x + down)


class Embeddings(nn.Module):
    """The normed sum of word, position and type vectors; a table of size 0 is left out.

    width: of the tables; a dense layer projects another width to `hidden`.
    """

    vocabulary: int
    positions: int
    types: int
    width: int
    hidden: int
    norm_eps: float
    dtype: jnp.dtype
    dropout: float

    @nn.compact
    def __call__(
        self, ids: Int32[Array, " tokens"], positions: Int32[Array, " tokens"], deterministic: bool
    ) -> States:
        x = embed(self.vocabulary, self.width, self.dtype, "word")(ids)
        if self.positions:
            x = x + embed(self.positions, self.width, self.dtype, "position")(positions)
        if self.types:  # every token of a single text has type 0
            types = jnp.zeros_like(ids)
            x = x + embed(self.types, self.width, self.dtype, "type")(types)
        x = layer_norm(self.norm_eps, self.dtype, "norm")(x)
        x = Dropout(self.dropout)(x, deterministic)
        return x if self.width == self.hidden else dense(self.hidden, self.dtype, "project")(x)
