"""Rows of JSON, JSON lines, CSV, TSV and Parquet files, each with its line.

Files are read lazily: memory holds little more than one row.
"""

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jaxclf.errors import DataError, printable
from jaxclf.text.parquet import iter_rows

CHUNK = 2**16  # characters or bytes read at a time
# Characters of all texts and listed labels, and their ratio to the file's bytes: a file beyond both
# was made to fill the memory.
MAX_EXPANDED, MAX_RATIO = 2**26, 200
BLANK = re.compile(r"[ \t\r\n]*")
# Where a buffer ends within an element, the parser stops at most this many characters before it.
CUT_SHORT = 16
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # of the error handler "surrogateescape"
TOO_DEEP = "not JSON: nested too deeply, or a number is too long"


def max_size(path: Path) -> int:
    """The most characters or bytes that the rows of a file may have."""
    return max(MAX_EXPANDED, MAX_RATIO * path.stat().st_size)


class RowError(Exception):
    """An error of one row; `read` adds the file and the line.

    unknown: a label name for which the message may suggest another.
    """

    def __init__(self, reason: str, unknown: str = ""):
        super().__init__(reason)
        self.unknown = unknown


class FileFormatError(Exception):
    """An error after which the rest of the file cannot be read."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


class Row(NamedTuple):
    line: int
    fields: Any  # a dict where the row is well formed, a RowError where it is not


def _from_text(path: Path, parse: Callable[[TextIO], Iterator[Row]], newline: str) -> Iterator[Row]:
    """The rows that `parse` yields of a UTF-8 file. newline: as for `open`."""
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        try:
            yield from parse(file)
        except UnicodeDecodeError:
            line = _first_bad_line(path, newline)
            raise DataError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None


def _first_bad_line(path: Path, newline: str) -> int:
    """The line with the first byte that is not UTF-8; lines end where the parser's do."""
    line, previous = 1, ""
    with path.open(encoding="utf-8", errors="surrogateescape", newline=newline) as file:
        while piece := file.readline(CHUNK):
            if not piece.isascii() and ESCAPED_BYTE.search(piece):
                break
            is_split = piece == "\n" and previous.endswith("\r")  # by the limit of readline
            line += piece.endswith(("\n", "\r") if newline == "" else "\n") and not is_split
            previous = piece
    return line


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        duplicate, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise RowError(f"duplicate key '{printable(duplicate)}' in an object")
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _read_json(path: Path) -> tuple[str, Iterator[Row]]:
    if _starts_a_list(path):
        return "a JSON list", _from_text(path, _json_list, "\n")
    return "JSON lines", _from_text(path, _json_lines, "\n")


def _starts_a_list(path: Path) -> bool:
    # Bytes that are not UTF-8 are reported when the rows are read.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while chunk := file.read(CHUNK):
            if chunk := chunk.lstrip():
                return chunk.startswith("[")
    return False


def _json_list(file: TextIO) -> Iterator[Row]:
    """One row per element, each with the line it starts on."""
    text, at = "", 0  # the buffer; text[at:] is not parsed yet
    line, counted = 1, 0  # the line of text[counted]

    def read_more() -> bool:
        nonlocal text
        chunk = file.read(max(CHUNK, len(text)))
        text += chunk
        return bool(chunk)

    def next_character() -> str:
        """The next character that is not white space, "" at the end of the file."""
        nonlocal at
        while True:
            at = BLANK.match(text, at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if at < len(text) or not read_more():
                return text[at : at + 1]

    def next_element() -> Any:
        nonlocal at
        while True:
            try:
                fields, end = DECODER.raw_decode(text, at)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos > len(text) - CUT_SHORT
                if is_cut and read_more():
                    continue
                error_line = line + text.count("\n", counted, error.pos)
                raise FileFormatError(error_line, f"not JSON: {error.msg}") from None
            except RowError as error:
                raise FileFormatError(line, str(error)) from None
            except (RecursionError, ValueError):
                raise FileFormatError(line, TOO_DEEP) from None
            # Else the buffer may end within a number.
            if end < len(text) - CUT_SHORT or not read_more():
                at = end
                return fields

    while "[" not in text:
        read_more()
    at = text.index("[") + 1
    while next_character() != "]":
        line, counted = line + text.count("\n", counted, at), at
        if at > len(text) // 2:
            text, at, counted = text[at:], 0, 0
        yield Row(line, next_element())
        after = next_character()
        line, counted = line + text.count("\n", counted, at), at
        if after == ",":
            at += 1
        elif after != "]":
            raise FileFormatError(line, "not JSON: expected ',' or ']' after a row")
    at += 1
    if next_character():
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
        except RowError as error:
            yield Row(number, error)
        except (RecursionError, ValueError):
            yield Row(number, RowError(TOO_DEEP))


def _delimited(file: TextIO, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a long text is not an error
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
                        line,
                        "the first line must name the columns: no duplicates, one of them 'text'",
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
        raise FileFormatError(start, printable(str(error))) from None


def _read_parquet(path: Path) -> tuple[str, Iterator[Row]]:
    rows = enumerate(iter_rows(path, max_size(path)), 1)
    return "Parquet", (Row(number, fields) for number, fields in rows)


FORMATS = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": lambda path: ("CSV", _from_text(path, partial(_delimited, delimiter=","), "")),
    ".tsv": lambda path: ("TSV", _from_text(path, partial(_delimited, delimiter="\t"), "")),
    ".parquet": _read_parquet,
}
