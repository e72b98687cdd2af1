"""Data files -> Examples: JSON, JSON lines, CSV, TSV and Parquet, every fault as `file:line:
reason`."""

import csv
import io
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


class Fault(Exception):
    """What is wrong with one row and what to do; `read` adds the place."""


class Broken(Exception):
    """A fault after which the rest of the file cannot be read."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


class Row(NamedTuple):
    line: int
    fields: Any  # as parsed; a dict where the row is well formed, a Fault where it is not


class Parsed(NamedTuple):
    line: int
    id: str
    text: str
    labels: dict[str, float]


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

    parsed: list[Parsed] = []
    faults: list[tuple[int, str]] = []
    seen: set[str] = set()
    try:
        for index, row in enumerate(rows):
            try:
                one = _parse(row, str(index), labelled)
                if one.id in seen:
                    raise Fault(f"id {one.id!r} stands on two rows; ids must be unique")
                seen.add(one.id)
                parsed.append(one)
            except Fault as fault:
                faults.append((row.line, str(fault)))
    except Broken as broken:  # nothing can be read from there on
        faults.append((broken.line, str(broken)))
    if not parsed and not faults:
        faults.append((1, "no rows"))

    names = labels or _names([one.labels for one in parsed])
    if labelled:
        for one in parsed:
            try:
                _hold(one.labels, names)
            except Fault as fault:
                faults.append((one.line, str(fault)))
    if faults:
        lines = [f"{path}:{line}: {reason}" for line, reason in sorted(faults)]
        more = len(lines) - FAULTS_SHOWN
        raise DataError(
            "\n".join(lines[:FAULTS_SHOWN] + ([f"and {more} more"] if more > 0 else []))
        )
    if not labelled:
        names = ()
    elif not names:
        raise DataError(f"{path}: no row carries a label; name them with data.labels=a,b,c")

    matrix = np.array([[one.labels.get(name, 0) for name in names] for one in parsed], np.float32)
    known = ~np.isnan(matrix)
    where = "listed by name" if isinstance(parsed[0].labels, Listed) else "by column"
    return Examples(
        tuple(one.id for one in parsed),
        tuple(one.text for one in parsed),
        np.where(known, matrix, 0).astype(np.float32),
        known.astype(np.float32),
        names,
        f"{path.name}: {len(parsed):,} rows, {form}" + (f", labels {where}" if labelled else ""),
    )


class Listed(dict):
    """Labels that came as a list of names: what is not listed is 0."""


def _parse(row: Row, number: str, labelled: bool) -> Parsed:
    """One row, or the Fault that it is."""
    fields = row.fields
    if isinstance(fields, Fault):
        raise fields
    if not isinstance(fields, dict):
        raise Fault('a row must be an object {"text": …, "labels": …}')
    text = fields.get("text")
    if not isinstance(text, str):
        raise Fault("no 'text' column or key" if text is None else "'text' must be a string")
    if not text.strip():
        raise Fault("the text is empty; remove the row")
    name = fields.get("id")
    if name is not None and not isinstance(name, str | int):
        raise Fault("'id' must be a string or a number")
    name = number if name in (None, "") else str(name)
    _whole("text", text)
    _whole("id", name)
    return Parsed(row.line, name, text, _labels(fields) if labelled else {})


def _whole(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Fault(
            f"the {what} holds half of a surrogate pair; write the character itself"
        ) from None


def _labels(fields: dict[str, Any]) -> dict[str, float]:
    """By name: 0, 1, or NaN where not known."""
    found = fields.get("labels")
    if found is None:
        found = {key: value for key, value in fields.items() if key not in ("id", "text", "labels")}
    if isinstance(found, list | dict):
        if not all(isinstance(name, str) for name in found):
            raise Fault("'labels' must list label names")
        for name in found:
            _whole("label", name)
    if isinstance(found, list):
        return Listed(dict.fromkeys(found, 1.0))
    if not isinstance(found, dict):
        raise Fault("'labels' must be an object of 0, 1 or null, or a list of names")
    return {name: _value(name, value) for name, value in found.items()}


def _value(name: str, value: Any) -> float:
    if value is None or value == "":
        return float("nan")
    if value in (0, 1) or value in ("0", "1"):
        return float(value)
    shown = f"is {value!r}; it " if isinstance(value, int | float) else ""
    raise Fault(f"label {name!r} {shown}must be 0, 1, or empty where not known")


def _names(rows: list[dict[str, float]]) -> tuple[str, ...]:
    """The label names that rows of a file set: the first row's keys, or all that are listed."""
    if any(isinstance(labels, Listed) for labels in rows):
        return tuple(sorted({name for labels in rows for name in labels}))
    return tuple(next((labels for labels in rows if labels), {}))


def _hold(labels: dict[str, float], names: tuple[str, ...]) -> None:
    """Fault where a label is a stranger or, where rows give values, one is missing."""
    for name in labels:
        if name not in names:
            raise Fault(f"unknown label {name!r}" + did_you_mean(name, names))
    if not isinstance(labels, Listed):
        for name in names:
            if name not in labels:
                raise Fault(f"no label {name!r}; give 0, 1, or leave it empty where not known")


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
        return "a JSON list", _json_list(text)
    return "JSON lines", _json_lines(text)


def _json_list(text: str) -> Iterator[Row]:
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
            raise Broken(error.lineno, f"not JSON: {error.msg}") from None
        except Fault as fault:
            raise Broken(line, str(fault)) from None
        except (RecursionError, ValueError):
            raise Broken(line, "not JSON: nested too deep, or a number too long") from None
        yield Row(line, fields)
        at = skip(at)
        if text[at : at + 1] == ",":
            at = skip(at + 1)
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            raise Broken(line, "not JSON: expected ',' or ']' after a row")
    if text[at + 1 :].strip():
        after = skip(at + 1)
        line += text.count("\n", counted, after)
        raise Broken(line, "text after the closing ']'")


def _json_lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield Row(number, json.loads(line, object_pairs_hook=_unique))
        except json.JSONDecodeError as error:
            yield Row(number, Fault(f"not JSON: {error.msg}"))
        except Fault as fault:
            yield Row(number, fault)
        except (RecursionError, ValueError):
            yield Row(number, Fault("not JSON: nested too deep, or a number too long"))


def _read_delimited(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a long text is no error
    lines = io.StringIO(_open_text(path), newline="")
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
                    raise Broken(
                        line, "the first line must name the columns, each once, and 'text'"
                    )
            elif len(cells) != len(header):
                reason = (
                    f"{len(cells)} cells under {len(header)} columns; quote a text "
                    f"that holds {delimiter!r} or a line break"
                )
                yield Row(line, Fault(reason))
            else:
                yield Row(line, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise Broken(start, str(error)) from None


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow; pip install 'jaxclf[parquet]'") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
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
