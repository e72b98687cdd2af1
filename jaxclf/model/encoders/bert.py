"""BERT (Devlin et al. 2019, arXiv 1810.04805); MiniLM has the same architecture."""

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
    ConfigField,
    check_heads,
    read_fields,
)

FIELDS = {
    **SIZES,
    "hidden_act": ACTIVATION,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": SIZE,
    "layer_norm_eps": EPSILON,
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
# Names of the head in RoBERTa and ELECTRA.
DENSE_HEAD = {"head/pooler": "classifier.dense", "head/classifier": "classifier.out_proj"}
FAMILY = Family(
    from_hf,
    Bert,
    NAMES,
    ignored_keys=("cls.", "pooler.", "classifier.", "embeddings.position_ids"),
    prefix="bert.",
    task="BertForSequenceClassification",
)
