"""The network of DeBERTa: attention by content and by distance (He et al. 2021, arXiv 2006.03654).

A distance in a packed row equals the distance in the text, so only the mask depends on segments.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxclf.model.encoders.common import (
    ACTIVATIONS,
    Dropout,
    Embeddings,
    Heads,
    Hidden,
    Mask,
    Rows,
    Scores,
    Settings,
    States,
    dense,
    embed,
    layer_norm,
    mix_values,
    normal_init,
    post_norm,
    same_segment,
    split_heads,
)

Distances = Int[np.ndarray, " distances"]
# Vectors of the distances T-1 … -(T-1), and by head.
Vectors = Float[Array, "distances hidden"]
HeadVectors = Float[Array, "1 heads distances head_dim"]


class Deberta(nn.Module):
    """Token ids -> hidden states, post-norm."""

    settings: Settings

    @nn.compact
    def __call__(self, ids: Rows, positions: Rows, segments: Rows, deterministic: bool) -> Hidden:
        config, dtype, *_ = self.settings
        x = Embeddings(self.settings, name="embeddings")(ids, positions, deterministic)
        mask = same_segment(segments)
        half = config.relative.buckets or config.relative.span
        length = ids.shape[1]
        distances = np.arange(length - 1, -length, -1)  # of a query from a key
        rows = bucket(distances, config.relative.buckets, config.relative.span) + half
        table = embed(2 * half, config.hidden_size, dtype, "relative")
        vectors = table(jnp.asarray(np.clip(rows, 0, 2 * half - 1)))
        if config.relative.is_normed:
            vectors = layer_norm(config.layer_norm_eps, dtype, "relative_norm")(vectors)
        for index in range(config.num_hidden_layers):
            kernel_size = config.relative.kernel_size if index == 0 else 0
            layer = Layer(self.settings, kernel_size, name=f"layer_{index}")
            x = layer(x, vectors, segments, mask, deterministic)
        return x.reshape(*ids.shape, -1)


def bucket(distance: Distances, buckets: int, span: int) -> Distances:
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
    settings: Settings
    kernel_size: int

    @nn.compact
    def __call__(
        self, x: States, vectors: Vectors, segments: Rows, mask: Mask, deterministic: bool
    ) -> States:
        config, dtype, dropout, _ = self.settings
        attended = SelfAttention(self.settings, name="attention")(x, vectors, mask, deterministic)
        y = post_norm(self.settings, x, attended, deterministic)
        if not self.kernel_size:
            return y
        conv = SegmentConv(self.kernel_size, dtype, name="conv")(x, segments)
        conv = Dropout(dropout)(conv, deterministic)
        conv = ACTIVATIONS[config.relative.activation](conv)
        return layer_norm(config.layer_norm_eps, dtype, "conv_norm")(y + conv)


class SelfAttention(nn.Module):
    settings: Settings

    @nn.compact
    def __call__(self, x: States, vectors: Vectors, mask: Mask, deterministic: bool) -> States:
        config, dtype, dropout, _ = self.settings
        rows, hidden, heads = len(mask), config.hidden_size, config.num_attention_heads
        relative = config.relative
        if relative.is_fused:  # only query and value have a bias
            fused = dense(3 * hidden, dtype, "query_key_value", bias=False)(x)
            # The query, key and value of a head are adjacent.
            query, key, value = jnp.split(split_heads(fused, rows, heads), 3, axis=-1)
            query = query + Bias(self.settings, name="query")()
            value = value + Bias(self.settings, name="value")()
            to_key = dense(hidden, dtype, "position_key", bias=False)
            to_query = dense(hidden, dtype, "position_query")
        else:
            layers = [dense(hidden, dtype, name) for name in ("query", "key", "value")]
            query, key, value = (split_heads(layer(x), rows, heads) for layer in layers)
            to_query, to_key, _ = layers
            if not relative.is_shared:
                to_key = dense(hidden, dtype, "position_key")
                to_query = dense(hidden, dtype, "position_query")
        vectors = Dropout(dropout)(vectors, deterministic)
        position_key, position_query = None, None
        if "c2p" in relative.terms:
            position_key = split_heads(to_key(vectors), 1, heads)
        if "p2c" in relative.terms:
            position_query = split_heads(to_query(vectors), 1, heads)
        scores = attention_scores(query, key, position_key, position_query)
        return mix_values(self.settings, scores, value, mask, deterministic)


class Bias(nn.Module):
    """A bias by head."""

    settings: Settings

    @nn.compact
    def __call__(self) -> Float[Array, "1 heads 1 head_dim"]:
        config, dtype, *_ = self.settings
        bias = self.param("bias", nn.initializers.zeros, (config.hidden_size,))
        return jnp.asarray(bias, dtype).reshape(1, config.num_attention_heads, 1, -1)


class SegmentConv(nn.Module):
    """A convolution over the tokens of a segment, with zeros beyond its ends."""

    kernel_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: States, segments: Rows) -> States:
        hidden, length = x.shape[-1], segments.shape[1]
        shape = (self.kernel_size, hidden, hidden)
        kernel = jnp.asarray(self.param("kernel", normal_init, shape), self.dtype)
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, (hidden,)), self.dtype)
        middle = self.kernel_size // 2
        tokens = jnp.pad(x.reshape(*segments.shape, hidden), ((0, 0), (middle, middle), (0, 0)))
        padded_segments = jnp.pad(segments, ((0, 0), (middle, middle)), constant_values=-1)
        total = jnp.broadcast_to(bias, x.shape)
        for offset in range(self.kernel_size):
            is_same = padded_segments[:, offset : offset + length] == segments
            shifted = jnp.where(is_same[..., None], tokens[:, offset : offset + length], 0)
            total = total + shifted.reshape(x.shape) @ kernel[offset]
        return total


def attention_scores(
    query: Heads, key: Heads, to_key: HeadVectors | None, to_query: HeadVectors | None
) -> Scores:
    """Content to content, content to position and position to content, summed and scaled by the
    number of terms."""
    terms = 1 + (to_key is not None) + (to_query is not None)
    total = query @ key.swapaxes(-1, -2)
    if to_key is not None:
        total = total + skew(query @ to_key.swapaxes(-1, -2))
    if to_query is not None:
        # Distances of a key from a query are the negatives.
        backwards = key @ to_query[:, :, ::-1].swapaxes(-1, -2)
        total = total + skew(backwards).swapaxes(-1, -2)
    return total * (query.shape[-1] * terms) ** -0.5


def skew(scores: Float[Array, "rows heads length distances"]) -> Scores:
    """Scores by distance T-1 … -(T-1) -> scores by key: query i and key j have distance i - j.

    Pads and reshapes, because the gradient of a gather is a scatter, which is slow on a CPU.
    """
    rows, heads, length, count = scores.shape
    flat = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(rows, heads, -1)
    flat = flat[:, :, length - 1 : length - 1 + length * count]
    return flat.reshape(rows, heads, length, count)[..., :length]
