"""Build the network of an experiment: encoder, pool and head."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Experiment, Spec
from jaxclf.model.encoders.bert import BERT, DISTILBERT, ELECTRA, ROBERTA
from jaxclf.model.encoders.common import Family, Native, Settings
from jaxclf.model.encoders.deberta import DEBERTA, DEBERTA_V2
from jaxclf.model.encoders.modernbert import MODERNBERT
from jaxclf.model.heads import HEADS, POOLS
from jaxclf.text.packing import fill
from jaxclf.types import Batch, Mix, Shape, Tokens

# By the `model_type` of a config.json.
FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA._replace(task="XLMRobertaForSequenceClassification"),
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "deberta": DEBERTA,
    "deberta-v2": DEBERTA_V2,
    "modernbert": MODERNBERT,
}

# The code for transformers that an exported model may have beside it, and its entry in `auto_map`.
CODE_FILE = "modeling_jaxclf.py"
OWN_CODE = {"AutoModelForSequenceClassification": "modeling_jaxclf.JaxclfForSequenceClassification"}


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
    family_head: Native

    @nn.compact
    def __call__(self, pooled: Float[Array, "slots features"], deterministic: bool) -> Array:
        return HEADS[self.spec.name](
            pooled, self.classes, deterministic, self.family_head, **self.spec.options
        )


class Network(nn.Module):
    """Batch -> float32 logits [slots, classes]. Pool and head compute in float32."""

    encoder: nn.Module
    pool: Pool
    head: Head

    def __call__(
        self, batch: Batch, deterministic: bool, mix: Mix | None = None
    ) -> Float[Array, "slots classes"]:
        pooled = self.embed(batch, deterministic)
        if mix is not None:
            pooled = mix.lam * pooled + (1 - mix.lam) * pooled[mix.index]
        return self.head(pooled, deterministic)

    def embed(self, batch: Batch, deterministic: bool = True) -> Float[Array, "slots features"]:
        """The pooled vector of each text."""
        hidden = self.encoder(batch.ids, batch.positions, batch.segments, deterministic)
        return self.pool(hidden, batch)


def family_of(hf_config: Mapping[str, Any]) -> Family:
    """The architecture of a config.json. Raises DataError if it is not supported."""
    if hf_config.get("auto_map", OWN_CODE) != OWN_CODE:
        raise DataError("config.json: auto_map names code of the model, which jaxclf does not run")
    if "quantization_config" in hf_config:
        raise DataError("config.json: quantization_config is not supported; give float weights")
    name = hf_config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise DataError(
            f"config.json: model_type {str(name)[:40]!r}; choose from: {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def build(
    experiment: Experiment, hf_config: Mapping[str, Any], classes: int
) -> tuple[Callable[[Array, Batch], dict], Callable[..., Array]]:
    """Build (init, apply) of the experiment's network around the encoder of `hf_config`.

    init(key, batch) -> random params.
    apply(params, batch, dropout_key=None, mix=None) -> float32 logits [slots, classes]; a key
    turns dropout on, a mix mixes pooled texts.
    """
    network = make_network(experiment, hf_config, classes)

    def init(key: Array, batch: Batch) -> dict:
        return dict(network.init(key, batch, True)["params"])

    def apply(
        params: dict, batch: Batch, dropout_key: Array | None = None, mix: Mix | None = None
    ) -> Array:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return network.apply({"params": params}, batch, dropout_key is None, mix, rngs=rngs)  # type: ignore[return-value]

    return init, apply


def make_embed(
    experiment: Experiment, hf_config: Mapping[str, Any], classes: int
) -> Callable[[dict, Batch], Float[Array, "slots features"]]:
    """Make (params, batch) -> the pooled vector of each text, without dropout."""
    network = make_network(experiment, hf_config, classes)
    return lambda params, batch: network.apply({"params": params}, batch, method=network.embed)  # type: ignore[return-value]


def make_network(
    experiment: Experiment,
    hf_config: Mapping[str, Any],
    classes: int,
    vocabulary: int | None = None,
) -> Network:
    """Make the experiment's network as a module.

    vocabulary: rows of the word embeddings; None: as in `hf_config`.
    Raises ConfigError for a window longer than the encoder reads, or a head that does not fit the
    pool.
    """
    family = family_of(hf_config)
    config = family.from_hf(hf_config)
    if vocabulary is not None:
        config = config._replace(vocab_size=vocabulary)
    if experiment.data.max_length > config.max_positions:
        raise ConfigError(
            f"data.max_length={experiment.data.max_length}: {experiment.encoder.name} reads at "
            f"most {config.max_positions} tokens at once; longer texts are read in windows"
        )
    if experiment.head.name == "native" and experiment.pool.name == "mean_max":
        raise ConfigError(
            "head=native needs a pool as wide as the encoder, and pool=mean_max is twice as wide; "
            "use head=linear or head=residual"
        )
    encoder = experiment.encoder
    settings = Settings(
        config, jnp.dtype(encoder.dtype), encoder.dropout, encoder.attention_dropout
    )
    return Network(
        family.module(settings),
        Pool(experiment.pool),
        Head(experiment.head, classes, config.head),
    )


def param_shapes(experiment: Experiment, hf_config: Mapping[str, Any], classes: int) -> Any:
    """Shapes of the network's parameters, without allocating them."""
    init, _ = build(experiment, hf_config, classes)
    no_tokens = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0, np.int32))
    no_labels = np.zeros((0, classes), np.float32)
    shape = Shape(1, experiment.data.max_length, 1)
    batch = fill(no_tokens, no_labels, no_labels, None, shape)
    return jax.eval_shape(init, jax.random.key(0), batch)
