"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): BERT's network over narrower embeddings."""

from collections.abc import Mapping
from typing import Any

from jaxclf.model.encoders import bert
from jaxclf.model.encoders.common import Config, Family, Native
from jaxclf.model.encoders.config_schema import SIZE, read_fields


def from_hf(config: Mapping[str, Any]) -> Config:
    """BERT's config with the width of the embeddings."""
    width = read_fields(config, {"embedding_size": SIZE})
    return bert.from_hf(config)._replace(**width, head=Native("gelu"))


FAMILY = Family(
    from_hf,
    bert.Bert,
    bert.NAMES | bert.DENSE_HEAD | {"encoder/embeddings/project": "embeddings_project"},
    ignored_keys=(
        "discriminator_predictions.",
        "generator_predictions.",
        "generator_lm_head.",
        "classifier.",
        "embeddings.position_ids",
    ),
    prefix="electra.",
    task="ElectraForSequenceClassification",
)
