"""Parts shared by encoders: attention within segments, the post-norm block, embeddings, dropout."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, UInt16

normal_init = nn.initializers.normal(0.02)

Rows = Int32[Array, "rows length"]
Heads = Float[Array, "rows heads length head_dim"]
Scores = Float[Array, "rows heads length length"]
Mask = Bool[Array, "rows 1 length length"]
States = Float[Array, "tokens hidden"]
Hidden = Float[Array, "rows length hidden"]


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x Phi(x) by erf, as in BERT; `jax.nn.gelu` uses erfc, which is slower on a CPU."""
    return x * 0.5 * (1 + jax.lax.erf(x * 2**-0.5))


def gelu_new(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The approximation of `gelu` by tanh."""
    return jax.nn.gelu(x, approximate=True)


# By their names in a config.json; transformers has several names for some.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    **dict.fromkeys(("gelu", "gelu_python"), gelu),
    **dict.fromkeys(
        ("gelu_new", "gelu_accurate", "gelu_fast", "gelu_python_tanh", "gelu_pytorch_tanh"),
        gelu_new,
    ),
    "relu": jax.nn.relu,
    **dict.fromkeys(("silu", "swish"), jax.nn.silu),
    "tanh": jnp.tanh,
}


class Native(NamedTuple):
    """The head of transformers' classifier for a family: a dense layer, an activation, an optional
    layer norm, the classifier."""

    activation: str
    bias: bool = True
    norm_eps: float | None = None
    norm_bias: bool = True


class Family(NamedTuple):
    """One encoder architecture.

    from_hf: config.json -> the values that `module` is built from, among them `vocab_size`,
        `num_hidden_layers`, `max_positions` (tokens of the longest window) and `head` (Native).
    names: path in our params -> name in a Hugging Face file; `weights.py` reads it in both
        directions.
    prefix: of the encoder's tensors in files of task models.
    task: name of transformers' classifier class.
    ignored_keys: the encoder's tensors that a file may have and the network does not use.
    """

    from_hf: Callable[[Mapping[str, Any]], Any]
    module: Callable[..., nn.Module]
    names: Mapping[str, str]
    prefix: str
    task: str
    ignored_keys: tuple[str, ...] = ("embeddings.position_ids",)  # a buffer of old versions


class Relative(NamedTuple):
    """How DeBERTa attends by the distance of two tokens."""

    span: int  # larger distances share a row of the table
    terms: tuple[str, ...]  # "c2p" (content to position), "p2c", or both
    is_fused: bool = True  # one projection for query, key and value, as in version 1
    buckets: int = 0  # of distances; 0: one for each distance
    is_shared: bool = False  # content projections are used for distances too
    is_normed: bool = False  # the table of distances
    kernel_size: int = 0  # of the convolution beside the first layer; 0: none
    activation: str = ""  # of the convolution


class Config(NamedTuple):
    """The values of BERT, its descendants and DeBERTa, under their names in BERT's config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    max_position_embeddings: int
    type_vocab_size: int  # 0: no table
    layer_norm_eps: float
    embedding_size: int  # of the tables; a dense layer projects another size to the hidden size
    head: Native
    first_position: int = 0  # the row of a text's first token in the table of positions
    has_positions: bool = True  # a table of absolute positions
    relative: Relative | None = None

    @property
    def max_positions(self) -> int:
        return self.max_position_embeddings - self.first_position


class Settings(NamedTuple):
    """What an encoder and its layers are built from."""

    config: Any
    dtype: jnp.dtype  # of the computation
    dropout: float
    attention_dropout: float


def same_segment(segments: Rows) -> Mask:
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


def split_heads(x: States, rows: int, heads: int) -> Heads:
    """[rows, heads, length, head_dim], for batched matrix products, which are fast on a CPU."""
    return x.reshape(rows, x.shape[0] // rows, heads, -1).transpose(0, 2, 1, 3)


def join_heads(x: Heads) -> States:
    rows, heads, length, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(rows * length, heads * width)


def attention_weights(scores: Array, mask: Array, dtype: jnp.dtype) -> Array:
    """Softmax over the keys that the mask allows, computed in float32."""
    scores = jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores).astype(dtype)


def mix_values(
    settings: Settings, scores: Scores, value: Heads, mask: Mask, deterministic: bool
) -> States:
    """Attention after its scores, in the scope of the calling module."""
    weights = attention_weights(scores, mask, settings.dtype)
    weights = Dropout(settings.attention_dropout)(weights, deterministic)
    output = dense(settings.config.hidden_size, settings.dtype, "output")
    return output(join_heads(weights @ value))


class SelfAttention(nn.Module):
    """Multi-head attention within segments (Vaswani et al. 2017, arXiv 1706.03762)."""

    settings: Settings

    @nn.compact
    def __call__(self, x: States, mask: Mask, deterministic: bool) -> States:
        config, dtype, *_ = self.settings
        query, key, value = (
            split_heads(
                dense(config.hidden_size, dtype, name)(x), len(mask), config.num_attention_heads
            )
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(-1, -2) * (query.shape[-1] ** -0.5)
        return mix_values(self.settings, scores, value, mask, deterministic)


class Layer(nn.Module):
    """A post-norm block with plain attention: BERT, RoBERTa, DistilBERT, ELECTRA."""

    settings: Settings

    @nn.compact
    def __call__(self, x: States, mask: Mask, deterministic: bool) -> States:
        attended = SelfAttention(self.settings, name="attention")(x, mask, deterministic)
        return post_norm(self.settings, x, attended, deterministic)


def post_norm(settings: Settings, x: States, attended: States, deterministic: bool) -> States:
    """A post-norm block after attention, in the scope of the calling module."""
    config, dtype, dropout, _ = settings
    attended = Dropout(dropout)(attended, deterministic)
    x = layer_norm(config.layer_norm_eps, dtype, "attention_norm")(x + attended)
    up = ACTIVATIONS[config.hidden_act](dense(config.intermediate_size, dtype, "up")(x))
    down = dense(config.hidden_size, dtype, "down")(up)
    down = Dropout(dropout)(down, deterministic)
    return layer_norm(config.layer_norm_eps, dtype, "mlp_norm")(x + down)


class Embeddings(nn.Module):
    """The normed sum of word, position and type vectors."""

    settings: Settings

    @nn.compact
    def __call__(self, ids: Rows, positions: Rows, deterministic: bool) -> States:
        # Dense layers get 2-D input: its weight gradients are faster than those of 3-D input.
        ids, positions = ids.reshape(-1), positions.reshape(-1)
        config, dtype, dropout, _ = self.settings
        width = config.embedding_size
        x = embed(config.vocab_size, width, dtype, "word")(ids)
        if config.has_positions:
            table = embed(config.max_position_embeddings, width, dtype, "position")
            x = x + table(positions + config.first_position)
        if config.type_vocab_size:  # every token of a single text has type 0
            x = x + embed(config.type_vocab_size, width, dtype, "type")(jnp.zeros_like(ids))
        x = layer_norm(config.layer_norm_eps, dtype, "norm")(x)
        x = Dropout(dropout)(x, deterministic)
        hidden = config.hidden_size
        return x if width == hidden else dense(hidden, dtype, "project")(x)


# The names that BERT and DeBERTa share.
POST_NORM_NAMES = {
    "encoder/embeddings/word": "embeddings.word_embeddings",
    "encoder/embeddings/position": "embeddings.position_embeddings",
    "encoder/embeddings/type": "embeddings.token_type_embeddings",
    "encoder/embeddings/norm": "embeddings.LayerNorm",
    "encoder/layer_{i}/attention/output": "encoder.layer.{i}.attention.output.dense",
    "encoder/layer_{i}/attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "encoder/layer_{i}/up": "encoder.layer.{i}.intermediate.dense",
    "encoder/layer_{i}/down": "encoder.layer.{i}.output.dense",
    "encoder/layer_{i}/mlp_norm": "encoder.layer.{i}.output.LayerNorm",
}
