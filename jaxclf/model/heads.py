"""Pools and heads: from hidden states to logits.

A pool reduces the tokens of an example to one vector, a head maps that to logits. Both are plain
functions, called inside a Flax module's scope; keyword-only parameters are the options of an
experiment.
"""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from jaxclf.model.encoders.common import (
    ACTIVATIONS,
    Dropout,
    Native,
    dense,
    gelu,
    layer_norm,
    normal_init,
)
from jaxclf.types import Bound

Hidden = Float[Array, "tokens hidden"]
Slots = Int32[Array, " tokens"]  # the example a token belongs to; `count` for padding
First = Bool[Array, " tokens"]  # whether a token is the first of its window
Pooled = Float[Array, "slots features"]


def _sum(values: Float[Array, "tokens *rest"], slots: Slots, count: int):
    # Padding falls into one more bin, which is dropped, so its gradient is exactly zero.
    return jax.ops.segment_sum(values, slots, num_segments=count + 1)[:count]


def _mean_where(
    hidden: Hidden, is_used: Bool[Array, " tokens"], slots: Slots, count: int
) -> Pooled:
    weight = is_used.astype(jnp.float32)[:, None]
    return _sum(hidden * weight, slots, count) / jnp.maximum(_sum(weight, slots, count), 1)


def cls(hidden: Hidden, slots: Slots, first: First, count: int) -> Pooled:
    """The first token, averaged over the windows of a long text."""
    return _mean_where(hidden, first, slots, count)


def mean(hidden: Hidden, slots: Slots, first: First, count: int) -> Pooled:
    """The mean of all tokens."""
    return _mean_where(hidden, jnp.ones_like(first), slots, count)


def mean_max(hidden: Hidden, slots: Slots, first: First, count: int) -> Pooled:
    """Mean and elementwise maximum of all tokens, side by side."""
    highest = jax.ops.segment_max(hidden, slots, num_segments=count + 1)[:count]
    is_used = _sum(jnp.ones_like(hidden[:, :1]), slots, count) > 0
    return jnp.concatenate(
        [mean(hidden, slots, first, count), jnp.where(is_used, highest, 0)], axis=-1
    )


def attention(
    hidden: Hidden,
    slots: Slots,
    first: First,
    count: int,
    *,
    hidden_dim: Annotated[int, Bound(1, 2**20)] = 128,
) -> Pooled:
    """Tokens weighed by a learned score, a softmax over each example (Yang et al. 2016, NAACL,
    "Hierarchical Attention Networks"). hidden_dim: units of the scoring layer."""
    score = nn.Dense(1, use_bias=False, kernel_init=normal_init, name="score")(
        jnp.tanh(dense(hidden_dim, jnp.dtype("float32"), "project")(hidden))
    )[:, 0]
    highest = jax.ops.segment_max(score, slots, num_segments=count + 1)
    weight = jnp.exp(score - jax.lax.stop_gradient(highest)[slots])[:, None]
    total = _sum(weight, slots, count)
    return _sum(hidden * weight, slots, count) / jnp.where(total > 0, total, 1)


def _classify(
    x: Pooled, classes: int, deterministic: bool, dropout: float, dropout_samples: int
) -> Float[Array, "slots classes"]:
    """Dropout and the last layer. In training, the mean logits of `dropout_samples` dropout masks
    (Inoue 2019, arXiv 1905.09788, averages the losses instead)."""
    layer = dense(classes, x.dtype, "classifier")
    draws = [
        layer(Dropout(dropout)(x, deterministic))
        for _ in range(1 if deterministic else dropout_samples)
    ]
    return sum(draws[1:], start=draws[0]) / len(draws)


def native(
    pooled: Pooled,
    classes: int,
    deterministic: bool,
    family_head: Native,
    *,
    dropout: Annotated[float, Bound(0, 1)] = 0.1,
    dropout_samples: Annotated[int, Bound(1, 2**10)] = 1,
) -> Float[Array, "slots classes"]:
    """The head of transformers' classifier for the encoder's family: a dense layer, pretrained in
    some families, an activation, an optional layer norm, dropout, a linear layer."""
    x = dense(pooled.shape[-1], pooled.dtype, "pooler", family_head.bias)(pooled)
    x = ACTIVATIONS[family_head.activation](x)
    if family_head.norm_eps is not None:
        x = layer_norm(family_head.norm_eps, x.dtype, "norm", family_head.norm_bias)(x)
    return _classify(x, classes, deterministic, dropout, dropout_samples)


def linear(
    pooled: Pooled,
    classes: int,
    deterministic: bool,
    family_head: Native,
    *,
    dropout: Annotated[float, Bound(0, 1)] = 0.1,
    dropout_samples: Annotated[int, Bound(1, 2**10)] = 1,
) -> Float[Array, "slots classes"]:
    """Dropout and a linear layer."""
    return _classify(pooled, classes, deterministic, dropout, dropout_samples)


def residual(
    pooled: Pooled,
    classes: int,
    deterministic: bool,
    family_head: Native,
    *,
    blocks: Annotated[int, Bound(0, 2**10)] = 1,
    dropout: Annotated[float, Bound(0, 1)] = 0.1,
    dropout_samples: Annotated[int, Bound(1, 2**10)] = 1,
) -> Float[Array, "slots classes"]:
    """Residual blocks `x + dense(gelu(dense(norm(x))))`, a layer norm and a linear layer."""
    width, x = pooled.shape[-1], pooled
    for block in range(blocks):
        y = layer_norm(1e-6, x.dtype, f"block_{block}_norm")(x)
        y = gelu(dense(width, x.dtype, f"block_{block}_up")(y))
        y = dense(width, x.dtype, f"block_{block}_down")(Dropout(dropout)(y, deterministic))
        x = x + Dropout(dropout)(y, deterministic)
    x = layer_norm(1e-6, x.dtype, "norm")(x)
    return _classify(x, classes, deterministic, dropout, dropout_samples)


POOLS = {"cls": cls, "mean": mean, "mean_max": mean_max, "attention": attention}
HEADS = {"native": native, "linear": linear, "residual": residual}
