"""The style of a CSV or TSV file, so that an output can have it too."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jaxclf.files.spreadsheet import NUMBER
from jaxclf.text.delimited import find_delimiter, has_literal_quotes
from jaxclf.text.text_file import detect_encoding, open_text

SAMPLE = 20  # rows whose quoting is compared
STYLES = (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)


class Style(NamedTuple):
    """quoting: one of the csv module's constants."""

    delimiter: str
    encoding: str = "utf-8"
    newline: str = "\n"
    quoting: int = csv.QUOTE_MINIMAL


class _Number(float):
    """A number as it was written. The csv module leaves it without quotes."""

    text: str

    def __str__(self) -> str:
        return self.text


def _to_number(cell: str) -> str | _Number:
    if not NUMBER.fullmatch(cell):
        return cell
    number = _Number(cell)
    number.text = cell
    return number


def read_style(path: Path, text_column: str, default: str) -> Style:
    """The style of a file; of its quoting, the csv module's that reproduces the first rows.

    default: the delimiter of the file's ending.
    """
    delimiter = find_delimiter(path, text_column or "text", default)
    encoding, lines = detect_encoding(path), []

    def record(file: Iterable[str]) -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    with open_text(path, "") as file:
        rows = list(islice(csv.reader(record(file), delimiter=delimiter), SAMPLE))
    newline = next((end for end in ("\r\n", "\n", "\r") if "".join(lines[:1]).endswith(end)), "\n")
    style = Style(delimiter, encoding, newline)
    if delimiter == "\t" and has_literal_quotes(path):
        return style._replace(quoting=csv.QUOTE_NONE)
    head = "".join(lines).rstrip("\r\n")
    for quoting in STYLES:
        written = "".join(format_rows(rows, style._replace(quoting=quoting)))
        if written.rstrip("\r\n") == head:
            return style._replace(quoting=quoting)
    return style


def format_rows(rows: Iterable[Sequence[str]], style: Style) -> list[str]:
    """Each row as text, its newline included."""
    lines = []
    for row in rows:
        cells: Sequence[str | _Number] = row
        if style.quoting == csv.QUOTE_NONNUMERIC:
            cells = [*map(_to_number, row)]
        file = io.StringIO(newline="")
        csv.writer(
            file,
            delimiter=style.delimiter,
            lineterminator="\r\n",  # the module quotes cells that hold one of these alone
            quoting=style.quoting,  # pyright: ignore[reportArgumentType]
            quotechar=None if style.quoting == csv.QUOTE_NONE else '"',
        ).writerow(cells)
        lines.append(file.getvalue()[:-2] + style.newline)
    return lines
