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
    Family,
    Heads,
    Hidden,
    Native,
    Rows,
    Settings,
    States,
    dense,
    embed,
    join_heads,
    layer_norm,
    split_heads,
)
from jaxclf.model.encoders.config_schema import (
    ACTIVATION,
    EITHER,
    EPSILON,
    POSITIONS,
    SIZES,
    ConfigField,
    check_heads,
    raise_config_error,
    read_fields,
)
from jaxclf.model.encoders.long_attention import global_attention, local_attention, weigh_and_drop

KINDS = ("sliding_attention", "full_attention")
BASE = ConfigField(1, 1e9, integer=False)
FIELDS = {
    **SIZES,
    "hidden_activation": ACTIVATION._replace(default="gelu"),
    "max_position_embeddings": POSITIONS,
    "norm_eps": EPSILON._replace(default=1e-5),
    "norm_bias": EITHER,
    "attention_bias": EITHER,
    "mlp_bias": EITHER,
}
LOCAL_FIELDS = {
    "local_attention": ConfigField(2, 2**20, default=128),
    "global_attn_every_n_layers": ConfigField(1, 256, default=3),
    "local_rope_theta": BASE._replace(default=10_000.0),
    "global_rope_theta": BASE._replace(default=160_000.0),
}
HEAD_FIELDS = {
    "classifier_activation": FIELDS["hidden_activation"],
    "classifier_bias": EITHER,
    "norm_eps": FIELDS["norm_eps"],
    "norm_bias": EITHER,
}


class Config(NamedTuple):
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_activation: str
    max_positions: int
    norm_eps: float
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    is_local: tuple[bool, ...]  # by layer
    reach: int  # of a local layer: tokens that a token attends to on either side
    local_base: float  # base of the rotary frequencies
    global_base: float
    head: Native


def from_hf(config: Mapping[str, Any]) -> Config:
    """Read a Hugging Face config.json of transformers 4 or 5. Raises DataError for an unsupported
    value."""
    values = read_fields(config, FIELDS | LOCAL_FIELDS)
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
        kinds = [KINDS[index % every == 0] for index in range(layers)]
    if not (isinstance(kinds, list) and len(kinds) == layers and all(k in KINDS for k in kinds)):
        raise_config_error(
            f"layer_types is not a list of {layers} of {' and '.join(map(repr, KINDS))}"
        )
    return Config(
        *(values[name] for name in FIELDS),
        is_local=tuple(kind == KINDS[0] for kind in kinds),
        reach=values["local_attention"] // 2,
        local_base=_base(config, KINDS[0], values["local_rope_theta"]),
        global_base=_base(config, KINDS[1], values["global_rope_theta"]),
        head=Native(*read_fields(config, HEAD_FIELDS).values()),
    )


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


class ModernBert(nn.Module):
    """Token ids -> hidden states, pre-norm."""

    settings: Settings

    @nn.compact
    def __call__(self, ids: Rows, positions: Rows, segments: Rows, deterministic: bool) -> Hidden:
        x = Embeddings(self.settings, name="embeddings")(ids.reshape(-1), deterministic)
        for index, is_local in enumerate(self.settings.config.is_local):
            layer = Layer(self.settings, is_local, index > 0, name=f"layer_{index}")
            x = layer(x, positions, segments, deterministic)
        return norm(self.settings, "norm")(x).reshape(*ids.shape, -1)


def norm(settings: Settings, name: str) -> nn.LayerNorm:
    return layer_norm(settings.config.norm_eps, settings.dtype, name, settings.config.norm_bias)


class Embeddings(nn.Module):
    settings: Settings

    @nn.compact
    def __call__(self, ids: Int32[Array, " tokens"], deterministic: bool) -> States:
        config, dtype, dropout, _ = self.settings
        x = embed(config.vocab_size, config.hidden_size, dtype, "word")(ids)
        return Dropout(dropout)(norm(self.settings, "norm")(x), deterministic)


class Layer(nn.Module):
    settings: Settings
    is_local: bool
    has_attention_norm: bool  # not the first layer, whose input is normed

    @nn.compact
    def __call__(self, x: States, positions: Rows, segments: Rows, deterministic: bool) -> States:
        config, dtype, dropout, _ = self.settings
        attention = SelfAttention(self.settings, self.is_local, name="attention")
        normed = norm(self.settings, "attention_norm")(x) if self.has_attention_norm else x
        attended = attention(normed, positions, segments, deterministic)
        x = x + Dropout(dropout)(attended, deterministic)
        up = dense(2 * config.intermediate_size, dtype, "up", config.mlp_bias)
        passed, gate = jnp.split(up(norm(self.settings, "mlp_norm")(x)), 2, axis=-1)
        activated = ACTIVATIONS[config.hidden_activation](passed)
        gated = Dropout(dropout)(activated * gate, deterministic)
        return x + dense(config.hidden_size, dtype, "down", config.mlp_bias)(gated)


class SelfAttention(nn.Module):
    settings: Settings
    is_local: bool

    @nn.compact
    def __call__(self, x: States, positions: Rows, segments: Rows, deterministic: bool) -> States:
        config, dtype, _, dropout = self.settings
        fused = dense(3 * config.hidden_size, dtype, "query_key_value", config.attention_bias)(x)
        query, key, value = (
            split_heads(part, len(segments), config.num_attention_heads)
            for part in jnp.split(fused, 3, axis=-1)
        )
        base = config.local_base if self.is_local else config.global_base
        angles = rotary_angles(positions, query.shape[-1], base)
        query, key = rotate(query, angles), rotate(key, angles)
        dropout_key = None if deterministic or not dropout else self.make_rng("dropout")
        weigh = functools.partial(weigh_and_drop, dtype, dropout, dropout_key)
        if self.is_local:
            mixed = local_attention(query, key, value, segments, config.reach, weigh)
        else:
            mixed = global_attention(query, key, value, segments, weigh)
        output = dense(config.hidden_size, dtype, "output", config.attention_bias)
        return output(join_heads(mixed))


def rotary_angles(positions: Rows, width: int, base: float) -> Float[Array, "rows 1 length half"]:
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


MODERNBERT = Family(
    from_hf,
    ModernBert,
    names={
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
        "head/classifier": "classifier",
    },
    prefix="model.",
    task="ModernBertForSequenceClassification",
)
