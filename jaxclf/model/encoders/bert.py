"""BERT (Devlin et al. 2019, arXiv 1810.04805); MiniLM has the same architecture."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from jaxclf.model.encoders.common import (
    ACTIVATIONS,
    Block,
    Embeddings,
    Layer,
    Native,
    same_segment,
)
from jaxclf.model.encoders.config_schema import (
    EPSILON,
    LAYERS,
    NEVER,
    POSITIONS,
    SIZE,
    VOCABULARY,
    ConfigField,
    check_heads,
    read_fields,
)


class Config(NamedTuple):
    vocab_size: int
    hidden_size: int
    embedding_size: int
    layers: int
    heads: int
    intermediate_size: int
    activation: str
    positions: int  # rows of the position table
    first_position: int  # the row of a text's first token
    type_vocab_size: int
    norm_eps: float

    @property
    def max_positions(self) -> int:
        """Tokens of the longest window."""
        return self.positions - self.first_position


FIELDS = {
    "vocab_size": VOCABULARY,
    "hidden_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": SIZE,
    "intermediate_size": SIZE,
    "hidden_act": ConfigField(choices=tuple(ACTIVATIONS)),
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": SIZE,
    "layer_norm_eps": EPSILON,
    "position_embedding_type": ConfigField(choices=("absolute",), default="absolute"),
    "is_decoder": NEVER,
    "add_cross_attention": NEVER,
}


def from_hf(config: Mapping[str, Any]) -> Config:
    """Read a Hugging Face config.json. Raises DataError for an unsupported value."""
    values = read_fields(config, FIELDS)
    check_heads(values["hidden_size"], values["num_attention_heads"])
    return Config(
        vocab_size=values["vocab_size"],
        hidden_size=values["hidden_size"],
        embedding_size=values["hidden_size"],
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        intermediate_size=values["intermediate_size"],
        activation=values["hidden_act"],
        positions=values["max_position_embeddings"],
        first_position=0,
        type_vocab_size=values["type_vocab_size"],
        norm_eps=values["layer_norm_eps"],
    )


def native(config: Mapping[str, Any]) -> Native:
    """The head of transformers' classifier for this family."""
    return Native("tanh")


class Bert(nn.Module):
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
        config = self.config
        embeddings = Embeddings(
            vocabulary=config.vocab_size,
            positions=config.positions,
            types=config.type_vocab_size,
            width=config.embedding_size,
            hidden=config.hidden_size,
            norm_eps=config.norm_eps,
            dtype=self.dtype,
            dropout=self.dropout,
            name="embeddings",
        )
        block = Block(
            config.heads,
            config.intermediate_size,
            config.activation,
            config.norm_eps,
            self.dtype,
            self.dropout,
            self.attention_dropout,
        )
        mask = same_segment(segments)
        # Dense layers get 2-D input: its weight gradients are faster than those of 3-D input.
        position_rows = positions.reshape(-1) + config.first_position
        x = embeddings(ids.reshape(-1), position_rows, deterministic)
        for index in range(config.layers):
            x = Layer(block, name=f"layer_{index}")(x, mask, deterministic)
        return x.reshape(*ids.shape, -1)


# Path in our params -> name in a Hugging Face file; `weights.py` reads it in both directions.
NAMES = {
    "encoder/embeddings/word": "embeddings.word_embeddings",
    "encoder/embeddings/position": "embeddings.position_embeddings",
    "encoder/embeddings/type": "embeddings.token_type_embeddings",
    "encoder/embeddings/norm": "embeddings.LayerNorm",
    "encoder/layer_{i}/attention/query": "encoder.layer.{i}.attention.self.query",
    "encoder/layer_{i}/attention/key": "encoder.layer.{i}.attention.self.key",
    "encoder/layer_{i}/attention/value": "encoder.layer.{i}.attention.self.value",
    "encoder/layer_{i}/attention/output": "encoder.layer.{i}.attention.output.dense",
    "encoder/layer_{i}/attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "encoder/layer_{i}/up": "encoder.layer.{i}.intermediate.dense",
    "encoder/layer_{i}/down": "encoder.layer.{i}.output.dense",
    "encoder/layer_{i}/mlp_norm": "encoder.layer.{i}.output.LayerNorm",
    "head/pooler": "bert.pooler.dense",
}

# The last layer of transformers' classifier; only a trained model has it.
CLASSIFIER = {"head/classifier": "classifier"}

# Prefixes of other tensors that a file may have: heads of other tasks, a buffer of old versions.
IGNORED_KEYS = ("cls.", "pooler.", "classifier.", "embeddings.position_ids")

# Prefix of the encoder's tensors in files of task models.
PREFIX = "bert."
