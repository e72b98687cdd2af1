"""JSON values that carry a digest of themselves, so that a changed byte is noticed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jaxclf.files.json_file import without_nan

DIGEST = "digest"


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the key `digest`: SHA-256 of all others."""
    return {**values, DIGEST: _digest(values)}


def is_sealed(values: Any) -> bool:
    """Whether JSON values carry the digest of their other fields."""
    try:
        return isinstance(values, Mapping) and values.get(DIGEST) == _digest(values)
    except RecursionError:  # jaxclf writes nothing that is nested so deeply
        return False


def _digest(values: Mapping[str, Any]) -> str:
    fields = without_nan({name: value for name, value in values.items() if name != DIGEST})
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
