"""DeBERTa (He et al. 2021, arXiv 2006.03654): attention by content and by distance, disentangled.

Distances in a packed row are distances in the text, so only the mask knows of segments.
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
    read_fields,
    refuse,
)
from jaxclf.model.encoders.disentangled import distances, scores


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
    span: int  # farthest distance told apart
    terms: tuple[str, ...]  # of "c2p" (content to position) and "p2c"


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
    """The values of a Hugging Face config.json; DataError where it asks for what is not built
    here."""
    found = read_fields(config, FIELDS)
    hidden, heads = found["hidden_size"], found["num_attention_heads"]
    check_heads(hidden, heads)
    for name, only in (("embedding_size", hidden), ("attention_head_size", hidden // heads)):
        read_fields(config, {name: ConfigField(choices=(only,), default=only)})
    furthest = found["max_relative_positions"]
    return Config(
        vocab_size=found["vocab_size"],
        hidden_size=hidden,
        layers=found["num_hidden_layers"],
        heads=heads,
        intermediate_size=found["intermediate_size"],
        activation=found["hidden_act"],
        max_positions=found["max_position_embeddings"],
        positions=found["max_position_embeddings"] if found["position_biased_input"] else 0,
        type_vocab_size=found["type_vocab_size"],
        norm_eps=found["layer_norm_eps"],
        span=furthest if furthest > 0 else found["max_position_embeddings"],
        terms=_terms(config.get("pos_att_type")),
    )


def _terms(given: Any) -> tuple[str, ...]:
    """`pos_att_type`, a list or a string such as "p2c|c2p"."""
    terms = [part.strip() for part in given.lower().split("|")] if isinstance(given, str) else given
    if (
        not isinstance(terms, list)
        or not terms
        or any(one not in ("c2p", "p2c") for one in terms)
        or len(set(terms)) < len(terms)
    ):
        refuse([f"pos_att_type={str(given)[:40]!r} is not of 'c2p' and 'p2c'"])
    return tuple(terms)  # type: ignore[arg-type]


def native(config: Mapping[str, Any]) -> Native:
    act = ConfigField(choices=tuple(ACTIVATIONS), default="gelu")
    return Native(read_fields(config, {"pooler_hidden_act": act})["pooler_hidden_act"])


class Deberta(nn.Module):
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
        table = embed(2 * config.span, config.hidden_size, self.dtype, "relative")
        rows = np.clip(distances(length) + config.span, 0, 2 * config.span - 1)
        relative, mask = table(jnp.asarray(rows)), same_segment(segments)
        for index in range(config.layers):
            x = Layer(block, config.terms, name=f"layer_{index}")(x, relative, mask, deterministic)
        return x.reshape(*ids.shape, -1)


def block_of(module: Any) -> Block:
    """What the layers of a DeBERTa have in common."""
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


def embeddings_of(module: Any) -> Embeddings:
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
    """One fused projection without bias; query and value have theirs apart."""

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
        # Each head's query, key and value lie side by side.
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
        weights = attention_weights(scores(query, key, to_key, to_query), mask, block.dtype)
        weights = Dropout(block.attention_dropout)(weights, deterministic)
        return dense(hidden, block.dtype, "output")(join_heads(weights @ value))


class Bias(nn.Module):
    """A bias alone, by heads."""

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
# Files of a network without absolute positions may still hold a table of them.
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
