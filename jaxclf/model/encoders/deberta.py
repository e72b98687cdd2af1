"""DeBERTa (He et al. 2021, arXiv 2006.03654): disentangled attention by content and by distance.

A distance in a packed row equals the distance in the text, so only the mask depends on segments.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from jaxclf.model.encoders.common import (
    ACTIVATIONS,
    Block,
    Dropout,
    Embeddings,
    Mask,
    Native,
    States,
    attention_weights,
    dense,
    embed,
    join_heads,
    post_norm,
    same_segment,
    split_heads,
)
from jaxclf.model.encoders.config_schema import (
    EPSILON,
    LAYERS,
    POSITIONS,
    SIZE,
    VOCABULARY,
    ConfigField,
    check_heads,
    raise_config_error,
    read_fields,
)
from jaxclf.model.encoders.disentangled import attention_scores, distances


class Config(NamedTuple):
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    activation: str
    max_positions: int
    positions: int  # rows of the absolute position table; 0: none
    type_vocab_size: int
    norm_eps: float
    span: int  # larger distances share a row of the table
    terms: tuple[str, ...]  # "c2p" (content to position), "p2c", or both


FIELDS = {
    "vocab_size": VOCABULARY,
    "hidden_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": SIZE,
    "intermediate_size": SIZE,
    "hidden_act": ConfigField(choices=tuple(ACTIVATIONS)),
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": SIZE._replace(low=0),
    "layer_norm_eps": EPSILON,
    "relative_attention": ConfigField(choices=(True,)),
    "max_relative_positions": POSITIONS._replace(low=-1, default=-1),
    "position_biased_input": ConfigField(choices=(True, False), default=True),
    "talking_head": ConfigField(choices=(False,), default=False),
}


def from_hf(config: Mapping[str, Any]) -> Config:
    """Read a Hugging Face config.json. Raises DataError for an unsupported value."""
    values = read_fields(config, FIELDS)
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    check_heads(hidden, heads)
    for name, size in (("embedding_size", hidden), ("attention_head_size", hidden // heads)):
        read_fields(config, {name: ConfigField(choices=(size,), default=size)})
    max_distance = values["max_relative_positions"]
    return Config(
        vocab_size=values["vocab_size"],
        hidden_size=hidden,
        layers=values["num_hidden_layers"],
        heads=heads,
        intermediate_size=values["intermediate_size"],
        activation=values["hidden_act"],
        max_positions=values["max_position_embeddings"],
        positions=values["max_position_embeddings"] if values["position_biased_input"] else 0,
        type_vocab_size=values["type_vocab_size"],
        norm_eps=values["layer_norm_eps"],
        span=max_distance if max_distance > 0 else values["max_position_embeddings"],
        terms=_terms(config.get("pos_att_type")),
    )


def _terms(value: Any) -> tuple[str, ...]:
    """`pos_att_type`: a list, or a string such as "p2c|c2p"."""
    terms = [part.strip() for part in value.lower().split("|")] if isinstance(value, str) else value
    if (
        not isinstance(terms, list)
        or not terms
        or any(term not in ("c2p", "p2c") for term in terms)
        or len(set(terms)) < len(terms)
    ):
        raise_config_error(f"pos_att_type={str(value)[:40]!r} is not a list of 'c2p' and 'p2c'")
    return tuple(terms)  # type: ignore[arg-type]


def native(config: Mapping[str, Any]) -> Native:
    act = ConfigField(choices=tuple(ACTIVATIONS), default="gelu")
    return Native(read_fields(config, {"pooler_hidden_act": act})["pooler_hidden_act"])


class Deberta(nn.Module):
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
        table = embed(2 * config.span, config.hidden_size, self.dtype, "relative")
        rows = np.clip(distances(length) + config.span, 0, 2 * config.span - 1)
        relative, mask = table(jnp.asarray(rows)), same_segment(segments)
        for index in range(config.layers):
            x = Layer(block, config.terms, name=f"layer_{index}")(x, relative, mask, deterministic)
        return x.reshape(*ids.shape, -1)


def make_block(module: Any) -> Block:
    """The values that all layers of a DeBERTa share."""
    config = module.config
    return Block(
        config.heads,
        config.intermediate_size,
        config.activation,
        config.norm_eps,
        module.dtype,
        module.dropout,
        module.attention_dropout,
    )


def make_embeddings(module: Any) -> Embeddings:
    config = module.config
    return Embeddings(
        vocabulary=config.vocab_size,
        positions=config.positions,
        types=config.type_vocab_size,
        width=config.hidden_size,
        hidden=config.hidden_size,
        norm_eps=config.norm_eps,
        dtype=module.dtype,
        dropout=module.dropout,
        name="embeddings",
    )


class Layer(nn.Module):
    block: Block
    terms: tuple[str, ...]

    @nn.compact
    def __call__(
        self,
        x: States,
        relative: Float[Array, "distances hidden"],
        mask: Mask,
        deterministic: bool,
    ) -> States:
        attended = SelfAttention(self.block, self.terms, name="attention")(
            x, relative, mask, deterministic
        )
        return post_norm(self.block, x, attended, deterministic)


class SelfAttention(nn.Module):
    """Self-attention with one fused projection; only query and value have a bias."""

    block: Block
    terms: tuple[str, ...]

    @nn.compact
    def __call__(
        self,
        x: States,
        relative: Float[Array, "distances hidden"],
        mask: Mask,
        deterministic: bool,
    ) -> States:
        block, rows, hidden = self.block, mask.shape[0], x.shape[-1]
        fused = dense(3 * hidden, block.dtype, "query_key_value", bias=False)(x)
        # The query, key and value of a head are adjacent.
        query, key, value = jnp.split(split_heads(fused, rows, block.heads), 3, axis=-1)
        query = query + Bias(block, name="query")(hidden)
        value = value + Bias(block, name="value")(hidden)
        relative = Dropout(block.dropout)(relative, deterministic)
        to_key, to_query = None, None
        if "c2p" in self.terms:
            projected = dense(hidden, block.dtype, "position_key", bias=False)(relative)
            to_key = split_heads(projected, 1, block.heads)
        if "p2c" in self.terms:
            projected = dense(hidden, block.dtype, "position_query")(relative)
            to_query = split_heads(projected, 1, block.heads)
        weights = attention_weights(
            attention_scores(query, key, to_key, to_query), mask, block.dtype
        )
        weights = Dropout(block.attention_dropout)(weights, deterministic)
        return dense(hidden, block.dtype, "output")(join_heads(weights @ value))


class Bias(nn.Module):
    """A bias by head."""

    block: Block

    @nn.compact
    def __call__(self, hidden: int) -> Float[Array, "1 heads 1 head_dim"]:
        bias = self.param("bias", nn.initializers.zeros, (hidden,))
        return jnp.asarray(bias, self.block.dtype).reshape(1, self.block.heads, 1, -1)


NAMES = {
    "encoder/embeddings/word": "embeddings.word_embeddings",
    "encoder/embeddings/position": "embeddings.position_embeddings",
    "encoder/embeddings/type": "embeddings.token_type_embeddings",
    "encoder/embeddings/norm": "embeddings.LayerNorm",
    "encoder/relative": "encoder.rel_embeddings",
    "encoder/layer_{i}/attention/query_key_value": "encoder.layer.{i}.attention.self.in_proj",
    "encoder/layer_{i}/attention/query/bias": "encoder.layer.{i}.attention.self.q_bias",
    "encoder/layer_{i}/attention/value/bias": "encoder.layer.{i}.attention.self.v_bias",
    "encoder/layer_{i}/attention/position_key": "encoder.layer.{i}.attention.self.pos_proj",
    "encoder/layer_{i}/attention/position_query": "encoder.layer.{i}.attention.self.pos_q_proj",
    "encoder/layer_{i}/attention/output": "encoder.layer.{i}.attention.output.dense",
    "encoder/layer_{i}/attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "encoder/layer_{i}/up": "encoder.layer.{i}.intermediate.dense",
    "encoder/layer_{i}/down": "encoder.layer.{i}.output.dense",
    "encoder/layer_{i}/mlp_norm": "encoder.layer.{i}.output.LayerNorm",
    "head/pooler": "pooler.dense",
}
CLASSIFIER = {"head/classifier": "classifier"}
# Files of networks without absolute positions may have a table of them.
IGNORED_KEYS = (
    "lm_predictions.",
    "mask_predictions.",
    "cls.",
    "pooler.",
    "classifier.",
    "embeddings.position_embeddings",
    "embeddings.position_ids",
)
PREFIX = "deberta."
