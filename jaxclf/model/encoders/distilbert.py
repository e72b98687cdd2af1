"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT's network without token types and
pooler."""

from collections.abc import Mapping
from typing import Any

from jaxclf.model.encoders import bert
from jaxclf.model.encoders.common import ACTIVATIONS, Native
from jaxclf.model.encoders.config_schema import (
    LAYERS,
    POSITIONS,
    SIZE,
    VOCABULARY,
    ConfigField,
    check_heads,
    read_fields,
)

DistilBert = bert.Bert

FIELDS = {
    "vocab_size": VOCABULARY,
    "dim": SIZE,
    "n_layers": LAYERS,
    "n_heads": SIZE,
    "hidden_dim": SIZE,
    "activation": ConfigField(choices=tuple(ACTIVATIONS)),
    "max_position_embeddings": POSITIONS,
}


def from_hf(config: Mapping[str, Any]) -> bert.Config:
    """Read a DistilBERT config.json, whose keys differ from BERT's. Raises DataError for an
    unsupported value."""
    values = read_fields(config, FIELDS)
    check_heads(values["dim"], values["n_heads"])
    return bert.Config(
        vocab_size=values["vocab_size"],
        hidden_size=values["dim"],
        embedding_size=values["dim"],
        layers=values["n_layers"],
        heads=values["n_heads"],
        intermediate_size=values["hidden_dim"],
        activation=values["activation"],
        positions=values["max_position_embeddings"],
        first_position=0,
        type_vocab_size=0,
        norm_eps=1e-12,
    )


def native(config: Mapping[str, Any]) -> Native:
    return Native("relu")


NAMES = {
    "encoder/embeddings/word": "embeddings.word_embeddings",
    "encoder/embeddings/position": "embeddings.position_embeddings",
    "encoder/embeddings/norm": "embeddings.LayerNorm",
    "encoder/layer_{i}/attention/query": "transformer.layer.{i}.attention.q_lin",
    "encoder/layer_{i}/attention/key": "transformer.layer.{i}.attention.k_lin",
    "encoder/layer_{i}/attention/value": "transformer.layer.{i}.attention.v_lin",
    "encoder/layer_{i}/attention/output": "transformer.layer.{i}.attention.out_lin",
    "encoder/layer_{i}/attention_norm": "transformer.layer.{i}.sa_layer_norm",
    "encoder/layer_{i}/up": "transformer.layer.{i}.ffn.lin1",
    "encoder/layer_{i}/down": "transformer.layer.{i}.ffn.lin2",
    "encoder/layer_{i}/mlp_norm": "transformer.layer.{i}.output_layer_norm",
    "head/pooler": "pre_classifier",
}
CLASSIFIER = {"head/classifier": "classifier"}
IGNORED_KEYS = (
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "pre_classifier.",
    "classifier.",
    "embeddings.position_ids",
)
PREFIX = "distilbert."
