"""DeBERTa v2 and v3 (He et al. 2023, arXiv 2111.09543).

Differences from v1: separate projections; one table of distances for all layers, normed, in
logarithmic buckets; optionally content projections shared with distances, and a convolution beside
the first layer.
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
from jaxclf.model.encoders.config_schema import (
    POSITIONS,
    ConfigField,
    raise_config_error,
    read_fields,
)
from jaxclf.model.encoders.deberta import make_block, make_embeddings
from jaxclf.model.encoders.disentangled import attention_scores, distances


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
    buckets: int  # of distances; 0: one for each distance
    shared: bool  # content projections are used for distances too
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
    """DeBERTa's config and the values that v2 adds. Raises DataError for an unsupported value."""
    values = read_fields(config, FIELDS)
    base, buckets = deberta.from_hf(config), max(values["position_buckets"], 0)
    if buckets and not 0 < buckets // 2 < base.span - 1:
        raise_config_error(
            f"position_buckets={buckets} does not divide distances up to {base.span}"
        )
    size = values["conv_kernel_size"]
    if size and size % 2 == 0:
        raise_config_error(f"conv_kernel_size={size} has no middle")
    return Config(
        *base,
        buckets=max(values["position_buckets"], 0),
        shared=values["share_att_key"],
        norm_relative=values["norm_rel_ebd"] == "layer_norm",
        convolution=Convolution(size, values["conv_act"]) if size else None,
    )


def native(config: Mapping[str, Any]) -> Native:
    return deberta.native(config)


class DebertaV2(nn.Module):
    """Token ids -> hidden states, post-norm, computed in `dtype`."""

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
        block = make_block(self)
        x = make_embeddings(self)(ids.reshape(-1), positions.reshape(-1), deterministic)
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
    """The bucket of each distance: near ones have their own, far ones share buckets that grow
    logarithmically up to `span`.

    Computed in float32, as in the reference, because a ceiling rounds the result.
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
        conv = SegmentConv(self.convolution.kernel_size, self.block, name="conv")(x, segments)
        conv = Dropout(self.block.dropout)(conv, deterministic)
        conv = ACTIVATIONS[self.convolution.activation](conv)
        return layer_norm(self.block.norm_eps, self.block.dtype, "conv_norm")(y + conv)


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
        scores = attention_scores(query, key, position_key, position_query)
        weights = attention_weights(scores, mask, block.dtype)
        weights = Dropout(block.attention_dropout)(weights, deterministic)
        return dense(hidden, block.dtype, "output")(join_heads(weights @ value))


class SegmentConv(nn.Module):
    """A convolution over the tokens of a segment, with zeros beyond its ends."""

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
        padded_segments = jnp.pad(segments, ((0, 0), (middle, middle)), constant_values=-1)
        total = jnp.broadcast_to(bias, x.shape)
        for offset in range(self.kernel_size):
            is_same = padded_segments[:, offset : offset + length] == segments
            shifted = jnp.where(is_same[..., None], tokens[:, offset : offset + length], 0)
            total = total + shifted.reshape(x.shape) @ kernel[offset]
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
