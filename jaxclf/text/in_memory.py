"""Data that a program holds, written as JSON lines for the reader.

DataFrames and datasets are recognized by their methods; their libraries are never imported.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxclf.errors import ConfigError, DataError
from jaxclf.files.atomic import write_bytes

MISSING_TYPES = ("NAType", "NaTType")  # of pandas


def write_data(path: Path, data: Any, labels: tuple[str, ...] = ()) -> Path:
    """Write data as JSON lines. Returns the path.

    data: rows, which are a DataFrame of pandas or polars, a `datasets.Dataset` or a list of dicts;
        a pair (texts, labels of each text); or a mapping of the names of splits to rows or pairs.
    labels: the names of the columns, where the labels of the texts are a matrix without names.
    Raises DataError for data of another form, ConfigError if the file has other data.
    """
    lines = (json.dumps(_plain(row)) + "\n" for row in _iter_rows(data, labels))
    content = "".join(lines).encode()
    if not path.exists():
        return write_bytes(path, content)
    if path.read_bytes() != content:
        raise ConfigError(f"{path.parent}: holds a run of other data; give another out")
    return path


def _iter_rows(data: Any, labels: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    if isinstance(data, Mapping):
        for split, part in data.items():
            yield from ({**row, "split": split} for row in _iter_rows(part, labels))
        return
    is_pair = isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], Mapping)
    rows = _label(data[0], data[1], labels) if is_pair else _records(data)
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"row {index} is a {type(row).__name__}, not a dict; give a file, a DataFrame, a "
                "dataset, a list of dicts or a pair (texts, labels)"
            )
        yield row


def _records(data: Any) -> Iterable[Any]:
    """The rows of a table."""
    if hasattr(data, "to_dicts"):  # polars
        return data.to_dicts()
    if hasattr(data, "to_pylist"):  # pyarrow
        return data.to_pylist()
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        return data.to_dict("records")
    if not isinstance(data, Iterable):
        raise DataError(f"a {type(data).__name__} is not data; give a file or a DataFrame")
    classes = _class_names(data)
    return ({**row, **_named(row, classes)} for row in data) if classes else data


def _class_names(data: Any) -> dict[str, list[str]]:
    """The names of the class ids in each column of a `datasets.Dataset`."""
    names = {}
    for column, feature in (getattr(data, "features", None) or {}).items():
        element = getattr(feature, "feature", feature)  # of a column of lists
        if hasattr(element, "names"):
            names[column] = element.names
    return names


def _named(row: Mapping[str, Any], classes: Mapping[str, list[str]]) -> dict[str, Any]:
    """The columns of class ids with the names of the classes; -1 is a class that is not known."""

    def name(ids: Any, names: list[str]) -> Any:
        if isinstance(ids, list):
            return [names[index] for index in ids]
        return None if ids is None or ids < 0 else names[ids]

    return {column: name(row[column], names) for column, names in classes.items()}


def _label(texts: Any, labels: Any, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """A row for each text with its labels."""
    if hasattr(labels, "columns"):  # a DataFrame of label columns
        labels = _records(labels)
    elif len(getattr(labels, "shape", ())) == 2:
        if len(names) != labels.shape[1]:
            raise DataError(
                f"labels of {labels.shape[1]} columns without names; name them with "
                "**{'data.labels': ('a', 'b', …)}"
            )
        matrix = labels.toarray() if hasattr(labels, "toarray") else labels  # of scipy.sparse
        labels = [dict(zip(names, row, strict=True)) for row in matrix.tolist()]
    texts = list(texts["text"] if hasattr(texts, "columns") else texts)
    labels = list(labels)
    if len(texts) != len(labels):
        raise DataError(f"{len(texts):,} texts, but labels of {len(labels):,}")
    for text, values in zip(texts, labels, strict=True):
        yield {"text": text, "labels": [values] if isinstance(values, str) else values}


def _plain(value: Any) -> Any:
    """A value as JSON has it: NaN is null, an array a list, a date its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # an array or number of numpy
        return _plain(value.tolist())
    if type(value).__name__ in MISSING_TYPES or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
