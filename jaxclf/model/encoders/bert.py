"""BERT (Devlin et al. 2019, arXiv 1810.04805), which MiniLM is too."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from jaxclf.errors import DataError
from jaxclf.model.encoders.common import (
    Dropout,
    SelfAttention,
    dense,
    gelu,
    layer_norm,
    normal_init,
    same_segment,
)


class Config(NamedTuple):
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_positions: int
    type_vocab_size: int
    norm_eps: float


def from_hf(config: Mapping[str, Any]) -> Config:
    """The values of a Hugging Face config.json; DataError where it asks for what is not built
    here."""
    if config.get("hidden_act") != "gelu":
        raise DataError(
            f"config.json: hidden_act {config.get('hidden_act')!r}; only 'gelu' is built"
        )
    kind = config.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise DataError(f"config.json: position_embedding_type {kind!r}; only 'absolute' is built")
    return Config(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=config["type_vocab_size"],
        norm_eps=config["layer_norm_eps"],
    )


class Bert(nn.Module):
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
        mask = same_segment(segments)
        # Tokens stay on one axis through the dense layers: 2-D weight gradients are the fast ones.
        x = Embeddings(self.config, self.dtype, self.dropout, name="embeddings")(
            ids.reshape(-1), positions.reshape(-1), deterministic
        )
        for index in range(self.config.layers):
            x = Layer(
                self.config,
                self.dtype,
                self.dropout,
                self.attention_dropout,
                name=f"layer_{index}",
            )(x, mask, deterministic)
        return x.reshape(*ids.shape, -1)


class Embeddings(nn.Module):
    config: Config
    dtype: jnp.dtype
    dropout: float

    @nn.compact
    def __call__(
        self, ids: Int32[Array, " tokens"], positions: Int32[Array, " tokens"], deterministic: bool
    ) -> Float[Array, "tokens hidden"]:
        def table(size: int, name: str) -> nn.Embed:
            return nn.Embed(
                size,
                self.config.hidden_size,
                dtype=self.dtype,
                embedding_init=normal_init,
                name=name,
            )

        x = (
            table(self.config.vocab_size, "word")(ids)
            + table(self.config.max_positions, "position")(positions)
            + table(self.config.type_vocab_size, "type")(jnp.zeros_like(ids))
        )
        x = layer_norm(self.config.norm_eps, self.dtype, "norm")(x)
        return Dropout(self.dropout)(x, deterministic)


class Layer(nn.Module):
    config: Config
    dtype: jnp.dtype
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "tokens hidden"],
        mask: Bool[Array, "rows 1 length length"],
        deterministic: bool,
    ) -> Float[Array, "tokens hidden"]:
        config = self.config
        attended = SelfAttention(
            config.heads, self.attention_dropout, self.dtype, name="attention"
        )(x, mask, deterministic)
        attended = Dropout(self.dropout)(attended, deterministic)
        x = layer_norm(config.norm_eps, self.dtype, "attention_norm")(x + attended)
        raised = gelu(dense(config.intermediate_size, self.dtype, "up")(x))
        lowered = dense(config.hidden_size, self.dtype, "down")(raised)
        lowered = Dropout(self.dropout)(lowered, deterministic)
        return layer_norm(config.norm_eps, self.dtype, "mlp_norm")(x + lowered)


# Path in our params -> name in a Hugging Face file; `weights.py` reads it forwards and backwards.
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
    "head/pooler": "pooler.dense",
}

# What a pretrained file may hold beyond that: heads of the pretraining tasks, and a buffer of old
# versions.
SURPLUS = ("cls.", "pooler.", "embeddings.position_ids")

# The name that task models put before every tensor of the encoder.
PREFIX = "bert."
