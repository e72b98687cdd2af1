"""RoBERTa (Liu et al. 2019, arXiv 1907.11692) and XLM-R (Conneau et al. 2020, arXiv 1911.02116).

BERT's network; positions start after the padding's, and the head is another.
"""

from collections.abc import Mapping
from typing import Any

from jaxclf.model.encoders import bert
from jaxclf.model.encoders.common import Native
from jaxclf.model.encoders.config_schema import VOCABULARY, read_fields, refuse

Roberta = bert.Bert


def from_hf(config: Mapping[str, Any]) -> bert.Config:
    """As BERT's, with the row where positions start: fairseq counts from the padding's id on."""
    plain = bert.from_hf(config)
    padding = read_fields(config, {"pad_token_id": VOCABULARY._replace(low=0, default=1)})
    first = padding["pad_token_id"] + 1
    if first >= plain.positions:
        refuse([f"pad_token_id={first - 1} leaves no position of {plain.positions}"])
    return plain._replace(first_position=first)


def native(config: Mapping[str, Any]) -> Native:
    return Native("tanh")


NAMES = {path: name for path, name in bert.NAMES.items() if path != "head/pooler"} | {
    "head/pooler": "classifier.dense"
}
CLASSIFIER = {"head/classifier": "classifier.out_proj"}
IGNORED_KEYS = ("lm_head.", "pooler.", "classifier.", "embeddings.position_ids")
PREFIX = "roberta."
