"""Encoder, pool and head as one network: build(experiment) -> (init, apply)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxclf.config import Experiment, Spec
from jaxclf.errors import ConfigError, DataError
from jaxclf.model.encoders import bert
from jaxclf.model.heads import HEADS, POOLS
from jaxclf.types import Batch


class Family(NamedTuple):
    """One encoder architecture: how to read its config, its module, and its names in a file."""

    from_hf: Callable[[Mapping[str, Any]], Any]
    module: Callable[..., nn.Module]
    names: Mapping[str, str]
    surplus: tuple[str, ...]
    prefix: str


FAMILIES = {"bert": Family(bert.from_hf, bert.Bert, bert.NAMES, bert.SURPLUS, bert.PREFIX)}


class Pool(nn.Module):
    spec: Spec

    @nn.compact
    def __call__(self, hidden: Float[Array, "rows length hidden"], batch: Batch) -> Array:
        slots, count = batch.examples.reshape(-1), batch.weight.shape[0]
        first = (batch.positions == 0).reshape(-1)
        tokens = hidden.reshape(len(slots), -1).astype(jnp.float32)
        return POOLS[self.spec.name](tokens, slots, first, count, **self.spec.options)


class Head(nn.Module):
    spec: Spec
    classes: int

    @nn.compact
    def __call__(self, pooled: Float[Array, "slots features"], deterministic: bool) -> Array:
        return HEADS[self.spec.name](pooled, self.classes, deterministic, **self.spec.options)


class Network(nn.Module):
    """Batch -> float32 logits [slots, classes]. The encoder computes in its dtype, pool and head
    in float32."""

    encoder: nn.Module
    pool: Pool
    head: Head

    def __call__(self, batch: Batch, deterministic: bool) -> Float[Array, "slots classes"]:
        hidden = self.encoder(batch.ids, batch.positions, batch.segments, deterministic)
        return self.head(self.pool(hidden, batch), deterministic)


def family_of(hf_config: Mapping[str, Any]) -> Family:
    """The architecture that a config.json names; DataError for one that is not built here."""
    name = hf_config.get("model_type")
    if name not in FAMILIES:
        raise DataError(f"config.json: model_type {name!r}; there is: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def build(
    experiment: Experiment, hf_config: Mapping[str, Any], classes: int
) -> tuple[Callable[[Array, Batch], dict], Callable[..., Array]]:
    """(init, apply) of the experiment's network around the encoder that `hf_config` describes.

    init(key, batch) -> params, all random.
    apply(params, batch, dropout_key=None) -> float32 logits [slots, classes]; dropout is on where
    a key is given.
    """
    family = family_of(hf_config)
    config = family.from_hf(hf_config)
    if experiment.data.max_length > config.max_positions:
        raise ConfigError(
            f"data.max_length={experiment.data.max_length}: {experiment.encoder.name} reads at "
            f"most {config.max_positions} tokens at once; longer texts are read in windows"
        )
    if experiment.head.name == "native" and experiment.pool.name == "mean_max":
        raise ConfigError(
            "head=native takes what is as wide as the encoder, and pool=mean_max is twice as wide; "
            "use head=linear or head=residual"
        )
    network = Network(
        family.module(
            config,
            jnp.dtype(experiment.encoder.dtype),
            experiment.encoder.dropout,
            experiment.encoder.attention_dropout,
        ),
        Pool(experiment.pool),
        Head(experiment.head, classes),
    )

    def init(key: Array, batch: Batch) -> dict:
        return dict(network.init(key, batch, True)["params"])

    def apply(params: dict, batch: Batch, dropout_key: Array | None = None) -> Array:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return network.apply({"params": params}, batch, dropout_key is None, rngs=rngs)  # type: ignore[return-value]

    return init, apply
