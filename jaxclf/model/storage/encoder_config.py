"""Read an encoder's config.json, also one from before configs named their architecture."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxclf.errors import DataError
from jaxclf.files.untrusted import read_json
from jaxclf.model.classifier import FAMILIES, OWN_CODE, family_of
from jaxclf.model.storage.tensor_files import open_tensors

CONFIG = "config.json"


def read_hf_config(folder: Path) -> dict[str, Any]:
    """Read config.json. A missing `model_type` is told from the names of the weights. What an
    export says of pool and head is left out: the encoder does not need it.

    Raises DataError for an architecture that is not supported.
    """
    config = read_json(folder, CONFIG)
    if config.get("auto_map") == OWN_CODE:
        config = {name: config[name] for name in config.keys() - {"auto_map", "jaxclf"}}
    if config.get("model_type") is None:
        config["model_type"] = _find_model_type(config, open_tensors(folder), folder / CONFIG)
    family_of(config)
    return config


def _find_model_type(config: Mapping[str, Any], names: Iterable[str], path: Path) -> str:
    """The model_type of the family whose attention layers have these names; of several with the
    same names, the one whose prefix the names have. Raises DataError if they do not tell it."""
    dotted, matching = [f".{name}" for name in names], []
    for model_type, family in FAMILIES.items():
        rows = ("encoder/layer_{i}/attention/query_key_value", "encoder/layer_{i}/attention/query")
        row = next(row for row in rows if row in family.names)
        query = family.names[row].replace("{i}", "0") + ".weight"
        if any(name.endswith(f".{family.prefix}{query}") for name in dotted):
            return model_type
        if any(name.endswith(f".{query}") for name in dotted):
            matching.append(model_type)
    # Without a prefix, RoBERTa's names are BERT's, but its table of types has one row.
    if not matching or (len(matching) > 1 and config.get("type_vocab_size", 2) == 1):
        types = ", ".join(matching or FAMILIES)
        raise DataError(f'{path}: has no model_type; add "model_type" with one of: {types}')
    return matching[0]
