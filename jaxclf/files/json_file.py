"""JSON files that jaxclf itself wrote. Files from elsewhere are read by `untrusted.py`."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxclf.errors import DataError
from jaxclf.files.atomic import write_text


def read_json(path: Path) -> Any:
    """The value a JSON file holds. Raises DataError if it is missing, not UTF-8 or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def write_json(path: Path, values: Any) -> Path:
    """Write JSON whole or not at all; NaN becomes null."""
    text = json.dumps(without_nan(values), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def without_nan(value: Any) -> Any:
    """The value with None for NaN and lists for tuples, as JSON has it."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
