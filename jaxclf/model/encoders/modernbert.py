"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): rotary positions, local and global attention,
gated units, pre-norm, no bias."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from jaxclf.model.encoders.common import (
    ACTIVATIONS,
    Dropout,
    Heads,
    Native,
    States,
    dense,
    embed,
    join_heads,
    layer_norm,
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
from jaxclf.model.encoders.long_attention import (
    Segments,
    attention_probs,
    global_attention,
    local_attention,
    weigh_and_drop,
)


class Config(NamedTuple):
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    activation: str
    max_positions: int
    norm_eps: float
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    local: tuple[bool, ...]  # by layer
    reach: int  # of a local layer: tokens that a token attends to on either side
    local_base: float  # base of the rotary frequencies
    global_base: float


EITHER = ConfigField(choices=(True, False), default=False)
BASE = ConfigField(1, 1e9, integer=False)
FIELDS = {
    "vocab_size": VOCABULARY,
    "hidden_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": SIZE,
    "intermediate_size": SIZE,
    "hidden_activation": ConfigField(choices=tuple(ACTIVATIONS), default="gelu"),
    "max_position_embeddings": POSITIONS,
    "norm_eps": EPSILON._replace(default=1e-5),
    "norm_bias": EITHER,
    "attention_bias": EITHER,
    "mlp_bias": EITHER,
    "local_attention": ConfigField(2, 2**20, default=128),
    "global_attn_every_n_layers": ConfigField(1, 256, default=3),
    "local_rope_theta": BASE._replace(default=10_000.0),
    "global_rope_theta": BASE._replace(default=160_000.0),
}


def from_hf(config: Mapping[str, Any]) -> Config:
    """Read a Hugging Face config.json of transformers 4 or 5. Raises DataError for an unsupported
    value."""
    values = read_fields(config, FIELDS)
    hidden, heads, layers = (
        values[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    check_heads(hidden, heads)
    if hidden // heads % 2:
        raise_config_error(f"heads of {hidden // heads} units cannot be rotated in pairs")
    if config.get("rope_scaling") is not None:
        raise_config_error("rope_scaling is not supported")
    every = values["global_attn_every_n_layers"]
    kinds = config.get("layer_types")
    if kinds is None:
        local = tuple(index % every > 0 for index in range(layers))
    elif isinstance(kinds, list) and len(kinds) == layers and all(kind in KINDS for kind in kinds):
        local = tuple(kind == KINDS[0] for kind in kinds)
    else:
        raise_config_error(
            f"layer_types is not a list of {layers} of {' and '.join(map(repr, KINDS))}"
        )
    return Config(
        vocab_size=values["vocab_size"],
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        intermediate_size=values["intermediate_size"],
        activation=values["hidden_activation"],
        max_positions=values["max_position_embeddings"],
        norm_eps=values["norm_eps"],
        norm_bias=values["norm_bias"],
        attention_bias=values["attention_bias"],
        mlp_bias=values["mlp_bias"],
        local=local,
        reach=values["local_attention"] // 2,
        local_base=_base(config, KINDS[0], values["local_rope_theta"]),
        global_base=_base(config, KINDS[1], values["global_rope_theta"]),
    )


KINDS = ("sliding_attention", "full_attention")


def _base(config: Mapping[str, Any], kind: str, default: float) -> float:
    """The rotary base in `rope_parameters` of transformers 5, or the default."""
    rope = config.get("rope_parameters") or {}
    rope = rope.get(kind) or {} if isinstance(rope, Mapping) else rope
    if not isinstance(rope, Mapping):
        raise_config_error("rope_parameters is not an object")
    fields = {
        "rope_type": ConfigField(choices=("default",), default="default"),
        "rope_theta": BASE._replace(default=default),
    }
    return float(read_fields(rope, fields)["rope_theta"])


def native(config: Mapping[str, Any]) -> Native:
    fields = {
        "classifier_activation": ConfigField(choices=tuple(ACTIVATIONS), default="gelu"),
        "classifier_bias": EITHER,
        "norm_eps": FIELDS["norm_eps"],
        "norm_bias": EITHER,
    }
    return Native(*read_fields(config, fields).values())  # in the order of Native's fields


class ModernBert(nn.Module):
    """Token ids -> hidden states, pre-norm, computed in `dtype`."""

    config: Config
    dtype: jnp.dtype
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(
        self,
        ids: Int32[Array, "rows length"],
        positions: Int32[Array, "rows length"],
        segments: Segments,
        deterministic: bool,
    ) -> Float[Array, "rows length hidden"]:
        config = self.config
        x = Embeddings(config, self.dtype, self.dropout, name="embeddings")(
            ids.reshape(-1), deterministic
        )
        for index, local in enumerate(config.local):
            x = Layer(
                config,
                local,
                index > 0,
                self.dtype,
                self.dropout,
                self.attention_dropout,
                name=f"layer_{index}",
            )(x, positions, segments, deterministic)
        x = layer_norm(config.norm_eps, self.dtype, "norm", config.norm_bias)(x)
        return x.reshape(*ids.shape, -1)


class Embeddings(nn.Module):
    config: Config
    dtype: jnp.dtype
    dropout: float

    @nn.compact
    def __call__(self, ids: Int32[Array, " tokens"], deterministic: bool) -> States:
        config = self.config
        x = embed(config.vocab_size, config.hidden_size, self.dtype, "word")(ids)
        x = layer_norm(config.norm_eps, self.dtype, "norm", config.norm_bias)(x)
        return Dropout(self.dropout)(x, deterministic)


class Layer(nn.Module):
    config: Config
    local: bool
    has_attention_norm: bool  # not the first layer, whose input is normed
    dtype: jnp.dtype
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(
        self, x: States, positions: Segments, segments: Segments, deterministic: bool
    ) -> States:
        config = self.config

        def norm(name: str) -> nn.LayerNorm:
            return layer_norm(config.norm_eps, self.dtype, name, config.norm_bias)

        attended = SelfAttention(
            config, self.local, self.dtype, self.attention_dropout, name="attention"
        )(
            norm("attention_norm")(x) if self.has_attention_norm else x,
            positions,
            segments,
            deterministic,
        )
        x = x + Dropout(self.dropout)(attended, deterministic)
        raised = dense(2 * config.intermediate_size, self.dtype, "up", config.mlp_bias)(
            norm("mlp_norm")(x)
        )
        passed, gate = jnp.split(raised, 2, axis=-1)
        gated = Dropout(self.dropout)(ACTIVATIONS[config.activation](passed) * gate, deterministic)
        return x + dense(config.hidden_size, self.dtype, "down", config.mlp_bias)(gated)


class SelfAttention(nn.Module):
    config: Config
    local: bool
    dtype: jnp.dtype
    dropout: float

    @nn.compact
    def __call__(
        self, x: States, positions: Segments, segments: Segments, deterministic: bool
    ) -> States:
        config, (rows, _) = self.config, segments.shape
        fused = dense(3 * config.hidden_size, self.dtype, "query_key_value", config.attention_bias)(
            x
        )
        query, key, value = (
            split_heads(part, rows, config.heads) for part in jnp.split(fused, 3, axis=-1)
        )
        angles = rotary_angles(
            positions, query.shape[-1], config.local_base if self.local else config.global_base
        )
        query, key = rotate(query, angles), rotate(key, angles)
        weigh = functools.partial(attention_probs, self.dtype)
        if not deterministic and self.dropout:
            dropout_key = self.make_rng("dropout")
            weigh = functools.partial(weigh_and_drop, self.dtype, self.dropout, dropout_key)
        if self.local:
            mixed = local_attention(query, key, value, segments, config.reach, weigh)
        else:
            mixed = global_attention(query, key, value, segments, weigh)
        output = dense(config.hidden_size, self.dtype, "output", config.attention_bias)
        return output(join_heads(mixed))


def rotary_angles(
    positions: Segments, width: int, base: float
) -> Float[Array, "rows 1 length half"]:
    """Position times frequency (Su et al. 2021, arXiv 2104.09864)."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequencies = jnp.asarray(1 / np.float32(base) ** exponents)
    return (positions[:, None, :, None] * frequencies[None, None, None]).astype(jnp.float32)


def rotate(x: Heads, angles: Float[Array, "rows 1 length half"]) -> Heads:
    """Rotate the pairs (x[i], x[i + half]) by their angles, in float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


NAMES = {
    "encoder/embeddings/word": "embeddings.tok_embeddings",
    "encoder/embeddings/norm": "embeddings.norm",
    "encoder/layer_{i}/attention_norm": "layers.{i}.attn_norm",
    "encoder/layer_{i}/attention/query_key_value": "layers.{i}.attn.Wqkv",
    "encoder/layer_{i}/attention/output": "layers.{i}.attn.Wo",
    "encoder/layer_{i}/mlp_norm": "layers.{i}.mlp_norm",
    "encoder/layer_{i}/up": "layers.{i}.mlp.Wi",
    "encoder/layer_{i}/down": "layers.{i}.mlp.Wo",
    "encoder/norm": "final_norm",
    "head/pooler": "head.dense",
    "head/norm": "head.norm",
}
CLASSIFIER = {"head/classifier": "classifier"}
IGNORED_KEYS = ("head.", "decoder.", "classifier.")
PREFIX = "model."
