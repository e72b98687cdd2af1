"""BERT (Devlin et al. 2019, arXiv 1810.04805) and the encoders with its network.

MiniLM has the same architecture. RoBERTa (Liu et al. 2019, arXiv 1907.11692) and XLM-R (Conneau et
al. 2020, arXiv 1911.02116) have another head and positions that start after the padding id, ELECTRA
(Clark et al. 2020, arXiv 2003.10555) narrower embeddings, DistilBERT (Sanh et al. 2019,
arXiv 1910.01108) no token types and no pooler.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxclf.model.encoders.common import (
    POST_NORM_NAMES,
    Config,
    Embeddings,
    Family,
    Hidden,
    Layer,
    Native,
    Rows,
    Settings,
    same_segment,
)
from jaxclf.model.encoders.config_schema import (
    ACTIVATION,
    EPSILON,
    NEVER,
    POSITIONS,
    SIZE,
    SIZES,
    VOCABULARY,
    ConfigField,
    check_heads,
    raise_config_error,
    read_fields,
)

FIELDS = {
    **SIZES,
    "hidden_act": ACTIVATION,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": SIZE,
    "layer_norm_eps": EPSILON._replace(default=1e-12),  # the first configs have none
}
FIXED = {
    "position_embedding_type": ConfigField(choices=("absolute",), default="absolute"),
    "is_decoder": NEVER,
    "add_cross_attention": NEVER,
}


def from_hf(config: Mapping[str, Any]) -> Config:
    """Read a Hugging Face config.json. Raises DataError for an unsupported value."""
    values = read_fields(config, FIELDS | FIXED)
    check_heads(values["hidden_size"], values["num_attention_heads"])
    shared = {name: values[name] for name in FIELDS}
    return Config(**shared, embedding_size=values["hidden_size"], head=Native("tanh"))


def _roberta_from_hf(config: Mapping[str, Any]) -> Config:
    plain = from_hf(config)
    padding = read_fields(config, {"pad_token_id": VOCABULARY._replace(low=0, default=1)})
    first = padding["pad_token_id"] + 1
    if first >= plain.max_positions:
        raise_config_error(f"pad_token_id={first - 1} leaves no position of {plain.max_positions}")
    return plain._replace(first_position=first)


def _electra_from_hf(config: Mapping[str, Any]) -> Config:
    width = read_fields(config, {"embedding_size": SIZE})
    return from_hf(config)._replace(**width, head=Native("gelu"))


# BERT's key -> DistilBERT's.
DISTILBERT_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "max_position_embeddings": "max_position_embeddings",
}


def _distilbert_from_hf(config: Mapping[str, Any]) -> Config:
    values = read_fields(config, {key: FIELDS[name] for name, key in DISTILBERT_KEYS.items()})
    check_heads(values["dim"], values["n_heads"])
    return Config(
        **{name: values[key] for name, key in DISTILBERT_KEYS.items()},
        type_vocab_size=0,
        layer_norm_eps=1e-12,
        embedding_size=values["dim"],
        head=Native("relu"),
    )


class Bert(nn.Module):
    """Token ids -> hidden states, post-norm."""

    settings: Settings

    @nn.compact
    def __call__(self, ids: Rows, positions: Rows, segments: Rows, deterministic: bool) -> Hidden:
        mask = same_segment(segments)
        x = Embeddings(self.settings, name="embeddings")(ids, positions, deterministic)
        for index in range(self.settings.config.num_hidden_layers):
            x = Layer(self.settings, name=f"layer_{index}")(x, mask, deterministic)
        return x.reshape(*ids.shape, -1)


NAMES = {
    "encoder/layer_{i}/attention/query": "encoder.layer.{i}.attention.self.query",
    "encoder/layer_{i}/attention/key": "encoder.layer.{i}.attention.self.key",
    "encoder/layer_{i}/attention/value": "encoder.layer.{i}.attention.self.value",
    **POST_NORM_NAMES,
    "head/pooler": "bert.pooler.dense",
    "head/classifier": "classifier",
}
DENSE_HEAD = {"head/pooler": "classifier.dense", "head/classifier": "classifier.out_proj"}
BERT = Family(
    from_hf,
    Bert,
    NAMES,
    prefix="bert.",
    task="BertForSequenceClassification",
)
ROBERTA = Family(
    _roberta_from_hf,
    Bert,
    NAMES | DENSE_HEAD,
    prefix="roberta.",
    task="RobertaForSequenceClassification",
)
ELECTRA = Family(
    _electra_from_hf,
    Bert,
    NAMES | DENSE_HEAD | {"encoder/embeddings/project": "embeddings_project"},
    prefix="electra.",
    task="ElectraForSequenceClassification",
)
DISTILBERT = Family(
    _distilbert_from_hf,
    Bert,
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
    prefix="distilbert.",
    task="DistilBertForSequenceClassification",
)
