"""The rows of a file: JSON, JSON lines, CSV, TSV and Parquet -> rows as parsed, each with its
line.

A file is read as its rows are asked for, and no more of it is held than a row needs.
"""

import codecs
import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jaxclf.errors import DataError

CHUNK = 2**16  # characters or bytes read at a time
PARQUET_ROWS = 1024  # rows decoded at a time
BLANK = re.compile(r"[ \t\r\n]*")
# Where what is held ends within an element, the parser stops within so many characters of that end.
CUT_SHORT = 16


class RowError(Exception):
    """What is wrong with one row and what to do; `read` adds the place."""


class FileFormatError(Exception):
    """A fault after which the rest of the file cannot be read."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


class Row(NamedTuple):
    line: int
    fields: Any  # as parsed; a dict where the row is well formed, a Fault where it is not


def _from_text(path: Path, parse: Callable[[TextIO], Iterator[Row]], newline: str) -> Iterator[Row]:
    """What `parse` finds in a UTF-8 file; newline: where its lines end, as `open` has it."""
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        try:
            yield from parse(file)
        except UnicodeDecodeError:
            line = _first_bad_line(path)
            raise DataError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None


def _first_bad_line(path: Path) -> int:
    """The line on which a file ceases to be UTF-8."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return line + error.object.count(b"\n", 0, error.start)
            line += chunk.count(b"\n")
    return line  # it ends within a character


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(key for key, _ in pairs if [k for k, _ in pairs].count(key) > 1)
        raise RowError(f"key {twice!r} stands twice in one object")
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _read_json(path: Path) -> tuple[str, Iterator[Row]]:
    if _starts_a_list(path):
        return "a JSON list", _from_text(path, _json_list, "\n")
    return "JSON lines", _from_text(path, _json_lines, "\n")


def _starts_a_list(path: Path) -> bool:
    # What is not UTF-8 is reported where the rows are read.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while chunk := file.read(CHUNK):
            if chunk := chunk.lstrip():
                return chunk.startswith("[")
    return False


def _json_list(file: TextIO) -> Iterator[Row]:
    """One Row per element, each with the line it starts on."""
    text, at = "", 0  # what is held of the file; text[at:] is not parsed yet
    line, counted = 1, 0  # the line of text[counted]

    def more() -> bool:
        nonlocal text
        found = file.read(max(CHUNK, len(text)))
        text += found
        return bool(found)

    def upcoming() -> str:
        """The next character that is no white space; none at the end of the file."""
        nonlocal at
        while True:
            at = BLANK.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if at < len(text) or not more():
                return text[at : at + 1]

    def element() -> Any:
        nonlocal at
        while True:
            try:
                fields, end = DECODER.raw_decode(text, at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(text) - CUT_SHORT
                if cut and more():
                    continue
                where = line + text.count("\n", counted, error.pos)
                raise FileFormatError(where, f"not JSON: {error.msg}") from None
            except RowError as fault:
                raise FileFormatError(line, str(fault)) from None
            except (RecursionError, ValueError):
                raise FileFormatError(
                    line, "not JSON: nested too deep, or a number too long"
                ) from None
            if end < len(text) - CUT_SHORT or not more():  # else a number may go on
                at = end
                return fields

    while "[" not in text:
        more()
    at = text.index("[") + 1
    while upcoming() != "]":
        line, counted = line + text.count("\n", counted, at), at
        if at > len(text) // 2:
            text, at, counted = text[at:], 0, 0
        yield Row(line, element())
        after = upcoming()
        line, counted = line + text.count("\n", counted, at), at
        if after == ",":
            at += 1
        elif after != "]":
            raise FileFormatError(line, "not JSON: expected ',' or ']' after a row")
    at += 1
    if upcoming():
        line += text.count("\n", counted, at)
        raise FileFormatError(line, "text after the closing ']'")


def _json_lines(file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield Row(number, json.loads(line.removesuffix("\n"), object_pairs_hook=_unique))
        except json.JSONDecodeError as error:
            yield Row(number, RowError(f"not JSON: {error.msg}"))
        except RowError as fault:
            yield Row(number, fault)
        except (RecursionError, ValueError):
            yield Row(number, RowError("not JSON: nested too deep, or a number too long"))


def _read_delimited(path: Path, delimiter: str) -> Iterator[Row]:
    return _from_text(path, lambda file: _delimited(file, delimiter), "")


def _delimited(file: TextIO, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a long text is no error
    reader = csv.reader(file, delimiter=delimiter, strict=True)
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
                    raise FileFormatError(
                        line, "the first line must name the columns, each once, and 'text'"
                    )
            elif len(cells) != len(header):
                reason = (
                    f"{len(cells)} cells under {len(header)} columns; quote a text "
                    f"that holds {delimiter!r} or a line break"
                )
                yield Row(line, RowError(reason))
            else:
                yield Row(line, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise FileFormatError(start, str(error)) from None


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow; pip install 'jaxclf[parquet]'") from None
    number = 0
    try:
        # A row group may be the whole file: it is read piece by piece.
        with pyarrow.parquet.ParquetFile(path, buffer_size=CHUNK, pre_buffer=False) as file:
            for batch in file.iter_batches(PARQUET_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(number, fields)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not Parquet: {error}") from None


FORMATS = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": lambda path: ("CSV", _read_delimited(path, ",")),
    ".tsv": lambda path: ("TSV", _read_delimited(path, "\t")),
    ".parquet": lambda path: ("Parquet", _read_parquet(path)),
}
