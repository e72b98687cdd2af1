"""DeBERTa v2 and v3 (He et al. 2023, arXiv 2111.09543).

Against v1: projections apart, one table of distances for all layers, normed and in logarithmic
buckets, content projections that may serve distances too, and in some a convolution beside the
first layer.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from jaxclf.model.encoders import deberta
from jaxclf.model.encoders.common import (
    ACTIVATIONS,
    Block,
    Dropout,
    Mask,
    Native,
    States,
    attention_weights,
    dense,
    embed,
    join_heads,
    layer_norm,
    normal_init,
    post_norm,
    same_segment,
    split_heads,
)
from jaxclf.model.encoders.config_schema import POSITIONS, ConfigField, read_fields, refuse
from jaxclf.model.encoders.deberta import block_of, embeddings_of
from jaxclf.model.encoders.disentangled import distances, scores


class Convolution(NamedTuple):
    kernel_size: int
    activation: str


class Config(NamedTuple):
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    activation: str
    max_positions: int
    positions: int
    type_vocab_size: int
    norm_eps: float
    span: int
    terms: tuple[str, ...]
    buckets: int  # distances told apart; 0: each distance is its own
    shared: bool  # the content's projections serve distances too
    norm_relative: bool
    convolution: Convolution | None


FIELDS = {
    "position_buckets": POSITIONS._replace(low=-1, default=-1),
    "share_att_key": ConfigField(choices=(True, False), default=False),
    "norm_rel_ebd": ConfigField(choices=("none", "layer_norm"), default="none"),
    "conv_kernel_size": ConfigField(0, 63, default=0),
    "conv_groups": ConfigField(choices=(1,), default=1),
    "conv_act": ConfigField(choices=tuple(ACTIVATIONS), default="tanh"),
}


def from_hf(config: Mapping[str, Any]) -> Config:
    """As DeBERTa's, and what is new."""
    found = read_fields(config, FIELDS)
    base, buckets = deberta.from_hf(config), max(found["position_buckets"], 0)
    if buckets and not 0 < buckets // 2 < base.span - 1:
        refuse([f"position_buckets={buckets} does not divide distances up to {base.span}"])
    size = found["conv_kernel_size"]
    if size and size % 2 == 0:
        refuse([f"conv_kernel_size={size} has no middle"])
    return Config(
        *base,
        buckets=max(found["position_buckets"], 0),
        shared=found["share_att_key"],
        norm_relative=found["norm_rel_ebd"] == "layer_norm",
        convolution=Convolution(size, found["conv_act"]) if size else None,
    )


def native(config: Mapping[str, Any]) -> Native:
    return deberta.native(config)


class DebertaV2(nn.Module):
    """Token ids -> hidden states, post-norm, all in float32 or `dtype`."""

    config: Config
    dtype: jnp.dtype
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(
        self,
        ids: Int32[Array, "rows length"],
        positions: Int32[Array, "rows length"],
        segments: Int32[Array, "rows length"],
        deterministic: bool,
    ) -> Float[Array, "rows length hidden"]:
        config, length = self.config, ids.shape[1]
        block = block_of(self)
        x = embeddings_of(self)(ids.reshape(-1), positions.reshape(-1), deterministic)
        mask = same_segment(segments)
        half = config.buckets or config.span
        table = embed(2 * half, config.hidden_size, self.dtype, "relative")
        rows = bucket(distances(length), config.buckets, config.span) + half
        relative = table(jnp.asarray(np.clip(rows, 0, 2 * half - 1)))
        if config.norm_relative:
            relative = layer_norm(config.norm_eps, self.dtype, "relative_norm")(relative)
        for index in range(config.layers):
            x = Layer(
                block,
                config.terms,
                config.shared,
                config.convolution if index == 0 else None,
                name=f"layer_{index}",
            )(x, relative, segments, mask, deterministic)
        return x.reshape(*ids.shape, -1)


def bucket(
    distance: Int[np.ndarray, " distances"], buckets: int, span: int
) -> Int[np.ndarray, " distances"]:
    """Near distances as they are, far ones in `buckets` that grow logarithmically up to `span`.

    In float32 as the reference has it, since a ceiling decides.
    """
    middle = buckets // 2
    if not buckets:
        return distance
    far = np.maximum(np.abs(distance), middle).astype(np.float32)
    scale = np.log(np.float32((span - 1) / middle))
    steps = np.ceil(np.log(far / np.float32(middle)) / scale * np.float32(middle - 1))
    logarithmic = np.sign(distance) * (steps.astype(np.int64) + middle)
    return np.where(np.abs(distance) <= middle, distance, logarithmic)


class Layer(nn.Module):
    block: Block
    terms: tuple[str, ...]
    shared: bool
    convolution: Convolution | None

    @nn.compact
    def __call__(
        self,
        x: States,
        relative: Float[Array, "distances hidden"],
        segments: Int32[Array, "rows length"],
        mask: Mask,
        deterministic: bool,
    ) -> States:
        attended = SelfAttention(self.block, self.terms, self.shared, name="attention")(
            x, relative, mask, deterministic
        )
        y = post_norm(self.block, x, attended, deterministic)
        if self.convolution is None:
            return y
        beside = Neighbours(self.convolution.kernel_size, self.block, name="conv")(x, segments)
        beside = Dropout(self.block.dropout)(beside, deterministic)
        beside = ACTIVATIONS[self.convolution.activation](beside)
        return layer_norm(self.block.norm_eps, self.block.dtype, "conv_norm")(y + beside)


class SelfAttention(nn.Module):
    block: Block
    terms: tuple[str, ...]
    shared: bool

    @nn.compact
    def __call__(
        self,
        x: States,
        relative: Float[Array, "distances hidden"],
        mask: Mask,
        deterministic: bool,
    ) -> States:
        block, rows, hidden = self.block, mask.shape[0], x.shape[-1]
        to_query, to_key = dense(hidden, block.dtype, "query"), dense(hidden, block.dtype, "key")
        query = split_heads(to_query(x), rows, block.heads)
        key = split_heads(to_key(x), rows, block.heads)
        value = split_heads(dense(hidden, block.dtype, "value")(x), rows, block.heads)
        relative = Dropout(block.dropout)(relative, deterministic)
        position_key, position_query = None, None
        if "c2p" in self.terms:
            project = to_key if self.shared else dense(hidden, block.dtype, "position_key")
            position_key = split_heads(project(relative), 1, block.heads)
        if "p2c" in self.terms:
            project = to_query if self.shared else dense(hidden, block.dtype, "position_query")
            position_query = split_heads(project(relative), 1, block.heads)
        found = scores(query, key, position_key, position_query)
        weights = attention_weights(found, mask, block.dtype)
        weights = Dropout(block.attention_dropout)(weights, deterministic)
        return dense(hidden, block.dtype, "output")(join_heads(weights @ value))


class Neighbours(nn.Module):
    """A convolution over the tokens of a segment; beyond its ends are zeros, as at a text's."""

    kernel_size: int
    block: Block

    @nn.compact
    def __call__(self, x: States, segments: Int32[Array, "rows length"]) -> States:
        hidden, dtype = x.shape[-1], self.block.dtype
        shape = (self.kernel_size, hidden, hidden)
        kernel = jnp.asarray(self.param("kernel", normal_init, shape), dtype)
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, (hidden,)), dtype)
        middle = self.kernel_size // 2
        length = segments.shape[1]
        tokens = jnp.pad(x.reshape(*segments.shape, hidden), ((0, 0), (middle, middle), (0, 0)))
        owners = jnp.pad(segments, ((0, 0), (middle, middle)), constant_values=-1)
        total = jnp.broadcast_to(bias, x.shape)
        for offset in range(self.kernel_size):
            own = owners[:, offset : offset + length] == segments
            there = jnp.where(own[..., None], tokens[:, offset : offset + length], 0)
            total = total + there.reshape(x.shape) @ kernel[offset]
        return total


NAMES = {
    "encoder/embeddings/word": "embeddings.word_embeddings",
    "encoder/embeddings/position": "embeddings.position_embeddings",
    "encoder/embeddings/type": "embeddings.token_type_embeddings",
    "encoder/embeddings/norm": "embeddings.LayerNorm",
    "encoder/relative": "encoder.rel_embeddings",
    "encoder/relative_norm": "encoder.LayerNorm",
    "encoder/layer_0/conv": "encoder.conv.conv",
    "encoder/layer_0/conv_norm": "encoder.conv.LayerNorm",
    "encoder/layer_{i}/attention/query": "encoder.layer.{i}.attention.self.query_proj",
    "encoder/layer_{i}/attention/key": "encoder.layer.{i}.attention.self.key_proj",
    "encoder/layer_{i}/attention/value": "encoder.layer.{i}.attention.self.value_proj",
    "encoder/layer_{i}/attention/position_key": "encoder.layer.{i}.attention.self.pos_key_proj",
    "encoder/layer_{i}/attention/position_query": "encoder.layer.{i}.attention.self.pos_query_proj",
    "encoder/layer_{i}/attention/output": "encoder.layer.{i}.attention.output.dense",
    "encoder/layer_{i}/attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "encoder/layer_{i}/up": "encoder.layer.{i}.intermediate.dense",
    "encoder/layer_{i}/down": "encoder.layer.{i}.output.dense",
    "encoder/layer_{i}/mlp_norm": "encoder.layer.{i}.output.LayerNorm",
    "head/pooler": "pooler.dense",
}
CLASSIFIER = {"head/classifier": "classifier"}
IGNORED_KEYS = deberta.IGNORED_KEYS
PREFIX = "deberta."
