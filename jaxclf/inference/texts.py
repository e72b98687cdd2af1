"""The texts that a caller passes: a list or what stands for one, or the column of a DataFrame.

pandas and polars are recognized by their methods and never imported.
"""

import math
from collections.abc import Iterable, Mapping, Set
from typing import Any

from jaxclf.errors import DataError, did_you_mean


def is_frame(data: Any) -> bool:
    """Whether data is a DataFrame of pandas or polars."""
    return hasattr(data, "columns") and (hasattr(data, "assign") or hasattr(data, "with_columns"))


def text_column(frame: Any, name: str) -> Any:
    """The column of texts of a DataFrame. Raises DataError if it has none of this name."""
    columns = list(map(str, frame.columns))
    if name not in columns:
        raise DataError(
            f"the DataFrame has no column {name!r}; rename the column of texts, or give it "
            f"alone{did_you_mean(name, columns)}"
        )
    return frame[name]


def with_columns(frame: Any, columns: Mapping[str, Any]) -> Any:
    """A copy of a DataFrame with further columns, float or bool arrays [rows]."""
    if hasattr(frame, "assign"):  # pandas
        return frame.assign(**columns)
    return type(frame)({name: frame[name] for name in frame.columns} | dict(columns))


def validate_texts(texts: Any) -> list[str]:
    """The texts as a list. Raises DataError for a text that cannot be classified."""
    if isinstance(texts, str | bytes | Mapping | Set) or not isinstance(texts, Iterable):
        raise DataError(
            f"{type(texts).__name__} in place of texts; give a string or a list of them"
        )
    texts = list(texts)
    for index, text in enumerate(texts):
        if text is None or (isinstance(text, float) and math.isnan(text)):
            raise DataError(f"text {index} is missing ({text})")
        if not isinstance(text, str):
            raise DataError(f"text {index} is a {type(text).__name__}, not a string")
        if not text.strip():
            raise DataError(f"text {index} is empty")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"text {index} contains a lone surrogate")
    return texts
