"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT's network without token types and
pooler."""

from collections.abc import Mapping
from typing import Any

from jaxclf.model.encoders import bert
from jaxclf.model.encoders.common import Config, Family, Native
from jaxclf.model.encoders.config_schema import check_heads, read_fields

# BERT's key -> DistilBERT's.
KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "max_position_embeddings": "max_position_embeddings",
}


def from_hf(config: Mapping[str, Any]) -> Config:
    """Read a Hugging Face config.json. Raises DataError for an unsupported value."""
    values = read_fields(config, {key: bert.FIELDS[name] for name, key in KEYS.items()})
    check_heads(values["dim"], values["n_heads"])
    return Config(
        **{name: values[key] for name, key in KEYS.items()},
        type_vocab_size=0,
        layer_norm_eps=1e-12,
        embedding_size=values["dim"],
        head=Native("relu"),
    )


FAMILY = Family(
    from_hf,
    bert.Bert,
    names={
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
        "head/classifier": "classifier",
    },
    ignored_keys=(
        "vocab_transform.",
        "vocab_layer_norm.",
        "vocab_projector.",
        "pre_classifier.",
        "classifier.",
        "embeddings.position_ids",
    ),
    prefix="distilbert.",
    task="DistilBertForSequenceClassification",
)
