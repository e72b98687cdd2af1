"""RoBERTa (Liu et al. 2019, arXiv 1907.11692) and XLM-R (Conneau et al. 2020, arXiv 1911.02116).

BERT's network with another head; positions start after the padding id.
"""

from collections.abc import Mapping
from typing import Any

from jaxclf.model.encoders import bert
from jaxclf.model.encoders.common import Config, Family
from jaxclf.model.encoders.config_schema import VOCABULARY, raise_config_error, read_fields


def from_hf(config: Mapping[str, Any]) -> Config:
    """BERT's config, with positions that start after the padding id, as in fairseq."""
    plain = bert.from_hf(config)
    padding = read_fields(config, {"pad_token_id": VOCABULARY._replace(low=0, default=1)})
    first = padding["pad_token_id"] + 1
    if first >= plain.max_positions:
        raise_config_error(f"pad_token_id={first - 1} leaves no position of {plain.max_positions}")
    return plain._replace(first_position=first)


FAMILY = Family(
    from_hf,
    bert.Bert,
    bert.NAMES | bert.DENSE_HEAD,
    ignored_keys=("lm_head.", "pooler.", "classifier.", "embeddings.position_ids"),
    prefix="roberta.",
    task="RobertaForSequenceClassification",
)
