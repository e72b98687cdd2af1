"""Rows of CSV and TSV files. The header decides the delimiter."""

import csv
import re
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path

from jaxclf.errors import printable
from jaxclf.text.rows import FileFormatError, Row, RowError
from jaxclf.text.text_file import open_text

DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
DELIMITER_LINE = re.compile(r"sep=.?")  # the first line of some files, for spreadsheets
QUOTED = re.compile(r'"(?:[^"]|"")*"')
# Names of the text's column in data sets that are often used.
TEXT_NAMES = frozenset(
    "body comment comment_text content description document message post question review "
    "sentence text tweet utterance".split()
)


def find_delimiter(path: Path, text_column: str, default: str) -> str:
    """The delimiter under which the header has the text's column, or one that usually holds texts;
    else the default."""
    with open_text(path, "") as file:
        for line in file:
            if line.strip() and not DELIMITER_LINE.fullmatch(line.strip()):
                for names in ({text_column}, TEXT_NAMES):
                    for delimiter in (default, *DELIMITERS):
                        cells = _strip(next(csv.reader([line], delimiter=delimiter)))
                        if names & {*cells, *map(str.lower, cells)}:
                            return delimiter
                break
    return default


def _strip(cells: list[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def delimited_rows(path: Path, delimiter: str, text_column: str) -> Iterator[Row]:
    """The rows below the header, lazily.

    Rows may have empty cells beyond the header, or lack those of columns without a name, whose key
    is "".
    """
    csv.field_size_limit(sys.maxsize)  # a long text is not an error
    is_quoted = delimiter != "\t" or not has_literal_quotes(path)
    with open_text(path, "") as file:
        yield from _rows(file, delimiter, is_quoted, text_column)


def _rows(file: TextIOWrapper, delimiter: str, is_quoted: bool, text_column: str) -> Iterator[Row]:
    quoting = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
    reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not any(cells):
                continue
            if not header:
                if not DELIMITER_LINE.fullmatch(cells[0]):
                    header = _read_header(cells, text_column, line)
                continue
            while len(cells) > len(header) and not cells[-1]:
                cells.pop()
            if not any(header[len(cells) :]):
                cells += [""] * (len(header) - len(cells))
            if len(cells) != len(header):
                reason = (
                    f"{len(cells)} cells under {len(header)} columns; quote a text "
                    f"that holds {delimiter!r} or a line break"
                )
                yield Row(line, RowError(reason))
            else:
                yield Row(line, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        reason = f"{printable(str(error))}; a cell that begins with a quote must end with one"
        raise FileFormatError(start, reason) from None


def _read_header(cells: list[str], text_column: str, line: int) -> list[str]:
    header = _strip(cells)
    names = [name for name in header if name]
    if text_column in names and len(set(names)) == len(names):
        return header
    reason = f"the first line must name the columns: no duplicates, one of them {text_column!r}"
    raise FileFormatError(line, printable(reason) + suggest_text_column(names, text_column))


def suggest_text_column(names: Iterable[str], text_column: str) -> str:
    """The end of a message, where a column that usually holds texts is there in place of another.
    Other names are not shown: without a header they are a text."""
    usual = [name for name in names if name.lower() in TEXT_NAMES]
    if not usual or text_column in names:
        return ""
    return f"; data.text_column={usual[0]} names the column of the texts"


def has_literal_quotes(path: Path) -> bool:
    """Whether a file with tabs was written without quoting: every line has all cells, and a cell
    begins with a quote that does not enclose it."""
    width, is_literal = 0, False
    with open_text(path, "") as file:
        for line in file:
            if not line.strip():
                continue
            cells = line.rstrip("\r\n").split("\t")
            width = width or len(cells)
            if len(cells) != width:
                return False
            if '"' in line and not is_literal:
                is_literal = any(cell[:1] == '"' and not QUOTED.fullmatch(cell) for cell in cells)
    return is_literal
