"""Data files -> Examples: JSON, JSON lines, CSV, TSV and Parquet, every fault as `file:line:
reason`."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.config import did_you_mean
from jaxclf.errors import DataError
from jaxclf.types import Examples

FAULTS_SHOWN = 10


class Row(NamedTuple):
    line: int
    fields: Any  # as parsed; a dict where the row is well formed


class Fault(Exception):
    """What is wrong with one row and what to do; `read` adds the place."""


def read(path: str | Path, labels: tuple[str, ...] = (), labelled: bool = True) -> Examples:
    """Read one file.

    labels: the label names in order; empty: those of the file (the keys or columns of its first
        row, or, where rows list names, the names in alphabetical order).
    labelled: False reads texts and ids alone, for prediction.

    Raises DataError with up to ten lines `file:line: reason`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix not in FORMATS:
        raise DataError(
            f"{path}: unknown ending {path.suffix!r}" + did_you_mean(path.suffix, FORMATS)
        )
    form, rows = FORMATS[path.suffix](path)

    ids, texts, values, faults = [], [], [], []
    names: tuple[str, ...] = ()
    for index, row in enumerate(rows):
        try:
            name, text, found = _parse(row.fields, str(index))
            if labelled:
                if not names:
                    names = labels or _names(found)
                values.append(_align(found, names or None))
            ids.append(name)
            texts.append(text)
        except Fault as fault:
            faults.append(f"{path}:{row.line}: {fault}")
    if not ids and not faults:
        faults.append(f"{path}:1: no rows")
    seen: dict[str, int] = {}
    for index, name in enumerate(ids):
        if seen.setdefault(name, index) != index:
            faults.append(f"{path}: id {name!r} stands on two rows; ids must be unique")
    if faults:
        more = len(faults) - FAULTS_SHOWN
        shown = faults[:FAULTS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        raise DataError("\n".join(shown))

    if labelled and not names:
        names = tuple(sorted({name for found in values for name in found}))
        if not names:
            raise DataError(f"{path}: no row carries a label; name them with data.labels=a,b,c")
    matrix = np.array(
        [[found.get(name, 0) for name in names] for found in values]
        if labelled
        else [[]] * len(ids),
        np.float32,
    ).reshape(len(ids), len(names))
    known = ~np.isnan(matrix)
    return Examples(
        tuple(ids),
        tuple(texts),
        np.where(known, matrix, 0).astype(np.float32),
        known.astype(np.float32),
        names,
        f"{path.name}: {len(ids):,} rows, {form}"
        + (
            f", labels {'listed by name' if _is_listed(values) else 'by column'}"
            if labelled
            else ""
        ),
    )


class Listed(dict):
    """Labels that came as a list of names: what is not listed is 0."""


def _is_listed(values: list[dict[str, float]]) -> bool:
    return bool(values) and isinstance(values[0], Listed)


def _parse(fields: Any, number: str) -> tuple[str, str, dict[str, float]]:
    """(id, text, labels by name) of one parsed row."""
    if not isinstance(fields, dict):
        raise Fault('a row must be an object {"text": …, "labels": …}')
    text = fields.get("text")
    if not isinstance(text, str):
        raise Fault("no 'text' column or key" if text is None else "'text' must be a string")
    if not text.strip():
        raise Fault("the text is empty; remove the row")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Fault("the text holds half of a surrogate pair; write the character itself") from None
    name = fields.get("id")
    if name is not None and not isinstance(name, str | int):
        raise Fault("'id' must be a string or a number")
    return number if name is None else str(name), text, _labels(fields)


def _labels(fields: dict[str, Any]) -> dict[str, float]:
    """By name: 0, 1, or NaN where not known."""
    found = fields.get("labels")
    if found is None:
        found = {key: value for key, value in fields.items() if key not in ("id", "text", "labels")}
    if isinstance(found, list):
        if not all(isinstance(name, str) for name in found):
            raise Fault("'labels' must list label names")
        return Listed(dict.fromkeys(found, 1.0))
    if not isinstance(found, dict):
        raise Fault("'labels' must be an object of 0, 1 or null, or a list of names")
    return {name: _value(name, value) for name, value in found.items()}


def _value(name: str, value: Any) -> float:
    if value is None or value == "":
        return float("nan")
    if value in (0, 1) or value in ("0", "1"):
        return float(value)
    raise Fault(f"label {name!r} is {value!r}; it must be 0, 1, or empty where not known")


def _names(found: dict[str, float]) -> tuple[str, ...]:
    return () if isinstance(found, Listed) else tuple(found)


def _align(found: dict[str, float], names: tuple[str, ...] | None) -> dict[str, float]:
    """The same labels, once none of them is a stranger and, where rows name all, none is
    missing."""
    if names is None:
        return found
    for name in found:
        if name not in names:
            raise Fault(f"unknown label {name!r}" + did_you_mean(name, names))
    if not isinstance(found, Listed):
        for name in names:
            if name not in found:
                raise Fault(f"no label {name!r}; give 0, 1, or leave it empty where not known")
    return found


def _open_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
        raise Fault(f"key {twice!r} stands twice in one object")
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _read_json(path: Path) -> tuple[str, Iterator[Row]]:
    text = _open_text(path)
    if text.lstrip().startswith("["):
        return "a JSON list", _json_list(path, text)
    return "JSON lines", _json_lines(path, text)


def _json_list(path: Path, text: str) -> Iterator[Row]:
    """One Row per element, each with the line it starts on."""
    at, line, counted = text.index("[") + 1, 1, 0

    def skip(at: int) -> int:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        return at

    at = skip(at)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            fields, at = DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
        except Fault as fault:
            raise DataError(f"{path}:{line}: {fault}") from None
        yield Row(line, fields)
        at = skip(at)
        if text[at : at + 1] == ",":
            at = skip(at + 1)
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            raise DataError(f"{path}:{line}: not JSON: expected ',' or ']' after a row")
    if text[at + 1 :].strip():
        raise DataError(f"{path}: text after the closing ']'")


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield Row(number, json.loads(line, object_pairs_hook=_unique))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error.msg}") from None
        except Fault as fault:
            raise DataError(f"{path}:{number}: {fault}") from None


def _read_delimited(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a long text is no error
    lines = _open_text(path).splitlines(keepends=True)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = cells
                if "text" not in header or len(set(header)) < len(header):
                    raise DataError(
                        f"{path}:1: the first line must name the columns, each once, and 'text'"
                    )
            elif len(cells) != len(header):
                raise DataError(
                    f"{path}:{line}: {len(cells)} cells under {len(header)} columns; quote a text "
                    f"that holds {delimiter!r} or a line break"
                )
            else:
                yield Row(line, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from None


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow; pip install 'jaxclf[parquet]'") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: not Parquet: {error}") from None
    return (Row(number, fields) for number, fields in enumerate(_records(table), 1))


def _records(table: Any) -> Iterable[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()


FORMATS = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": lambda path: ("CSV", _read_delimited(path, ",")),
    ".tsv": lambda path: ("TSV", _read_delimited(path, "\t")),
    ".parquet": lambda path: ("Parquet", _read_parquet(path)),
}
