"""Rows of JSON, JSON lines, CSV, TSV, Parquet and Arrow, each with its line.

Files are read lazily: memory holds little more than one row.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from jaxclf.errors import DataError, did_you_mean, printable
from jaxclf.text.delimited import DELIMITERS, delimited_rows, find_delimiter
from jaxclf.text.parquet import iter_arrow, iter_rows
from jaxclf.text.rows import FileFormatError, Row, RowError
from jaxclf.text.text_file import (
    CHUNK,
    detect_encoding,
    is_packed,
    max_size,
    open_text,
    too_large,
)

BLANK = re.compile(r"[ \t\r\n]*")
# Where a buffer ends within an element, the parser stops at most this many characters before it.
CUT_SHORT = 16
TOO_DEEP = "not JSON: nested too deeply, or a number is too long"


def open_rows(path: Path, text_column: str) -> tuple[str, Iterator[Row]]:
    """What a file or folder is, in words, and its rows. The last row may be an error of the file.

    text_column: the name by which the header of a CSV file is known. Raises DataError.
    """
    if path.is_dir():
        rows = enumerate(iter_arrow(path), 1)
        return "a saved dataset", (Row(number, fields) for number, fields in rows)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    ending = Path(path.stem if is_packed(path) else path.name).suffix.lower()
    if ending in CONVERSIONS:
        raise DataError(f"{path}: {CONVERSIONS[ending]}")
    if ending not in FORMATS or (is_packed(path) and ending == ".parquet"):
        raise DataError(f"{path}: unknown ending {path.suffix!r}" + did_you_mean(ending, FORMATS))
    name, rows = FORMATS[ending](path, text_column)
    return name, _to_its_end(_limit_size(path, rows))


def _to_its_end(rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except FileFormatError as error:
        yield Row(error.line, RowError(str(error)))


def _limit_size(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a file. Raises DataError if they are far larger than the file."""
    size, limit = 0, max_size(path)
    for row in rows:
        if isinstance(row.fields, dict):
            labels = row.fields.get("labels")
            for value in (*row.fields.values(), *(labels if isinstance(labels, list) else ())):
                size += len(value) if isinstance(value, str) else 0
        if size > limit:
            raise too_large(path, size)
        yield row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        duplicate, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise RowError(f"duplicate key '{printable(duplicate)}' in an object")
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _read_json(path: Path, text_column: str) -> tuple[str, Iterator[Row]]:
    is_list = _starts_a_list(path)

    def rows() -> Iterator[Row]:
        with open_text(path, "\n") as file:
            yield from _json_list(file) if is_list else _json_lines(file)

    return "a JSON list" if is_list else "JSON lines", rows()


def _starts_a_list(path: Path) -> bool:
    # Bytes that are not text are reported when the rows are read.
    with open_text(path, "\n", errors="replace") as file:
        while chunk := file.read(CHUNK):
            if chunk := chunk.lstrip():
                return chunk.startswith("[")
    return False


def _json_list(file: TextIOWrapper) -> Iterator[Row]:
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


def _json_lines(file: TextIOWrapper) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield Row(number, json.loads(line.removesuffix("\n"), object_pairs_hook=_unique))
        except json.JSONDecodeError as error:
            if line.strip() == "{":
                reason = "an object of several lines; write one object a line, or a list of objects"
                raise FileFormatError(number, reason) from None
            yield Row(number, RowError(f"not JSON: {error.msg}"))
        except RowError as error:
            yield Row(number, error)
        except (RecursionError, ValueError):
            yield Row(number, RowError(TOO_DEEP))


def _read_delimited(path: Path, text_column: str, default: str) -> tuple[str, Iterator[Row]]:
    delimiter, encoding = find_delimiter(path, text_column, default), detect_encoding(path)
    details = [DELIMITERS[delimiter]] if delimiter != default else []
    details += [] if encoding.startswith("utf-8") else [encoding.upper()]
    name = ("CSV" if default == "," else "TSV") + (f" ({', '.join(details)})" if details else "")
    return name, delimited_rows(path, delimiter, text_column)


def _read_csv(path: Path, text_column: str) -> tuple[str, Iterator[Row]]:
    return _read_delimited(path, text_column, ",")


def _read_tsv(path: Path, text_column: str) -> tuple[str, Iterator[Row]]:
    return _read_delimited(path, text_column, "\t")


def _read_parquet(path: Path, text_column: str) -> tuple[str, Iterator[Row]]:
    rows = enumerate(iter_rows(path, max_size(path)), 1)
    return "Parquet", (Row(number, fields) for number, fields in rows)


FORMATS = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}

_WORKBOOK = "a workbook; save its sheet as 'CSV UTF-8'"
_PICKLE = (
    "a pickle runs code when it is opened; write the table with DataFrame.to_parquet, or with "
    "DataFrame.to_json(path, orient='records', lines=True)"
)
_PACKED = "a packed file; unpack it (of packed files, .csv.gz, .jsonl.gz and the like are read)"
_ARROW = "an Arrow file; write the table with DataFrame.to_parquet or pyarrow.parquet.write_table"
CONVERSIONS = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), _WORKBOOK),
    **dict.fromkeys((".pkl", ".pickle"), _PICKLE),
    **dict.fromkeys((".zip", ".bz2", ".xz", ".zst", ".7z"), _PACKED),
    **dict.fromkeys((".arrow", ".feather"), _ARROW),
}
