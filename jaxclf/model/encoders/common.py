"""What encoders share: block-diagonal attention, dropout, exact GELU, layer norm."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

normal_init = nn.initializers.normal(0.02)


def same_segment(segments: Int32[Array, "rows length"]) -> Bool[Array, "rows 1 length length"]:
    """Who may attend to whom: tokens of one segment. Padding (0) sees padding, so that no softmax
    is empty."""
    return (segments[:, :, None] == segments[:, None, :])[:, None]


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x Phi(x) by erf, as BERT has it (`jax.nn.gelu` goes by erfc, slower on CPU)."""
    return x * 0.5 * (1 + jax.lax.erf(x * 2**-0.5))


def layer_norm(eps: float, dtype: jnp.dtype, name: str) -> nn.LayerNorm:
    """Layer norm by the two-pass variance: the fast one is off by 2e-3 where the mean is 100."""
    return nn.LayerNorm(eps, dtype=dtype, use_fast_variance=False, name=name)


def dense(features: int, dtype: jnp.dtype, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, kernel_init=normal_init, name=name)


class Dropout(nn.Module):
    """Zero a share `rate` of the elements, scale up the rest; 16 random bits decide an element."""

    rate: float

    def __call__(self, x: Float[Array, "*shape"], deterministic: bool) -> Float[Array, "*shape"]:
        if deterministic or self.rate == 0:
            return x
        bits = jax.random.bits(self.make_rng("dropout"), x.shape, jnp.uint16)
        keep = bits >= jnp.uint16(round(self.rate * 2**16))
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros((), x.dtype))


class SelfAttention(nn.Module):
    """Multi-head attention within segments (Vaswani et al. 2017, arXiv 1706.03762)."""

    heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "tokens hidden"],
        mask: Bool[Array, "rows 1 length length"],
        deterministic: bool,
    ) -> Float[Array, "tokens hidden"]:
        rows, _, length, _ = mask.shape
        hidden = x.shape[-1]

        def split(name: str) -> Float[Array, "rows heads length head_dim"]:
            projected = dense(hidden, self.dtype, name)(x)
            # [rows, heads, length, head_dim]: batched matrix products are the fast form on a CPU.
            return projected.reshape(rows, length, self.heads, -1).transpose(0, 2, 1, 3)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.swapaxes(-1, -2) * (query.shape[-1] ** -0.5)
        scores = jnp.where(mask, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        weights = Dropout(self.dropout)(weights, deterministic)
        mixed = (weights @ value).transpose(0, 2, 1, 3).reshape(rows * length, hidden)
        return dense(hidden, self.dtype, "output")(mixed)
