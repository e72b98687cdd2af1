"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): BERT's network over narrower embeddings."""

from collections.abc import Mapping
from typing import Any

from jaxclf.model.encoders import bert
from jaxclf.model.encoders.common import Native
from jaxclf.model.encoders.config_schema import SIZE, read_fields

Electra = bert.Bert


def from_hf(config: Mapping[str, Any]) -> bert.Config:
    """BERT's config with the width of the embeddings; another width is projected to the hidden
    size."""
    width = read_fields(config, {"embedding_size": SIZE})
    return bert.from_hf(config)._replace(**width)


def native(config: Mapping[str, Any]) -> Native:
    return Native("gelu")


NAMES = {path: name for path, name in bert.NAMES.items() if path != "head/pooler"} | {
    "encoder/embeddings/project": "embeddings_project",
    "head/pooler": "classifier.dense",
}
CLASSIFIER = {"head/classifier": "classifier.out_proj"}
IGNORED_KEYS = (
    "discriminator_predictions.",
    "generator_predictions.",
    "generator_lm_head.",
    "classifier.",
    "embeddings.position_ids",
)
PREFIX = "electra."
