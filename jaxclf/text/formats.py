"""The rows of a file: JSON, JSON lines, CSV, TSV and Parquet -> rows as parsed, each with its
line."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.errors import DataError


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
