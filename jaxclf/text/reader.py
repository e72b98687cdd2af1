"""Data files as Examples. Every error names its file and line."""

import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.errors import DataError, printable
from jaxclf.text.annotation_tools import join_questions
from jaxclf.text.annotators import agreement, first_rows, merge_rows
from jaxclf.text.label_table import Columns, LabelTable, make_table
from jaxclf.text.label_values import named
from jaxclf.text.parsed_rows import NAMELESS, Choice, ParsedRow, Reading, open_reading
from jaxclf.text.rows import MAX_REASONS, Problem, RowError, data_error
from jaxclf.types import Examples

log = logging.getLogger(__name__)


def read(
    path: str | Path,
    labels: tuple[str, ...] = (),
    labeled: bool = True,
    text_column: str = "",
    ignore_columns: Iterable[str] = (),
    label_column: str = "",
) -> Examples:
    """Read one file, or a folder that `datasets` saved.

    labels: the label names in order; other columns are left out. Empty: those of the file, which
        are the keys or columns of its first row, or, where rows list names, all names in
        alphabetical order.
    labeled: False reads texts and ids alone, for prediction.
    text_column: the name of the text's column or key; "": `text`.
    label_column: that of the column which lists the labels; "": `labels`.

    Rows without a text or without labels are left out, and `source` counts them. Rows with the same
    id and text are answers of several annotators: a label is the share of those who gave it.

    Raises DataError with a line `file:line: reason` for each reason, with its number of rows.
    """
    path = Path(path)
    reading = open_reading(
        path, Choice(text_column, frozenset(ignore_columns), label_column), labeled
    )
    rows, problems = [row for row in reading.rows if row.text], reading.problems
    table = LabelTable((), np.zeros((len(rows), 0), np.float32), [], [], [])
    if labeled:
        table, is_labeled = _read_labels(reading, rows, labels, ignore_columns)
        problems += table.problems
        if not all(is_labeled):
            reading.left_out["not labeled"] += len(rows) - sum(is_labeled)
            rows = list(itertools.compress(rows, is_labeled))
    first, texts = first_rows([row.id for row in rows])
    if len(first) < len(rows):
        problems += _find_duplicates(rows, first, texts)
    if any(row.split for row in rows):
        reason = "no split; write train, val or test"
        problems += [Problem(row.line, reason) for row in rows if not row.split]
    if not rows and not problems:
        problems.append(_no_rows(reading))
    if problems:
        raise data_error(path, problems, table.names)
    if labeled and not table.names:
        raise DataError(f"{path}: no row has a label; name the labels with data.labels=a,b,c")

    values, alphas = table.values, ()
    if len(first) < len(rows):
        values, alphas = merge_rows(values, texts), agreement(values, texts)
        table.notes.append(
            f"texts with several annotators: {int((np.bincount(texts) > 1).sum()):,}, whose labels "
            "are the share of those who gave them"
        )
        rows = [rows[index] for index in first]
    is_known = ~np.isnan(values)
    groups = tuple(row.group for row in rows) if any(row.group for row in rows) else ()
    return Examples(
        tuple(row.id for row in rows),
        tuple(row.text for row in rows),
        np.where(is_known, values, 0).astype(np.float32),
        is_known.astype(np.float32),
        table.names,
        _describe(path, reading, len(rows), table, bool(groups)),
        groups,
        tuple(row.split for row in rows if row.split),
        tuple(row.line for row in rows),
        str(path),
        alphas,
    )


def stream(
    path: str | Path, text_column: str = "", ignore_columns: Iterable[str] = ()
) -> Iterator[ParsedRow]:
    """The texts of one file, row by row, for prediction. Memory holds one row.

    A row without a text has the text "". Ids may repeat: a row is known by its position. Raises
    DataError after ten rows with errors, or at the end of the file.
    """
    path = Path(path)
    choice = Choice(text_column, frozenset(ignore_columns))
    reading = open_reading(path, choice, False, MAX_REASONS)
    is_empty = True
    for row in reading.rows:
        is_empty = is_empty and not row.text
        yield row
    problems = reading.problems
    if is_empty and not problems:
        problems.append(_no_rows(reading))
    if problems:
        raise data_error(path, problems, is_complete=len(problems) < MAX_REASONS)


def _read_labels(
    reading: Reading, rows: list[ParsedRow], labels: tuple[str, ...], ignored: Iterable[str]
) -> tuple[LabelTable, list[bool]]:
    """The labels of the rows, and which rows have labels."""
    cells = [row.labels for row in rows]
    if reading.is_of_tool:
        try:
            cells = join_questions(cells, ignored)
        except RowError as error:
            reading.problems.append(Problem(rows[0].line, str(error)))
            cells = [None] * len(rows)
    elif not all(isinstance(cell, Columns) for cell in cells):  # rows without a key `labels`
        cells = [
            None if isinstance(cell, Columns) and cell.keys() <= reading.unused.keys() else cell
            for cell in cells
        ]
    return make_table([row.line for row in rows], cells, labels, reading.is_of_tool)


def _find_duplicates(rows: list[ParsedRow], first: Any, texts: Any) -> list[Problem]:
    """Rows whose id is that of another text."""
    return [
        Problem(
            row.line,
            f"duplicate id '{printable(row.id)}' of another text; ids must be unique; "
            "data.ignore_columns=id numbers the rows instead",
        )
        for row, text in zip(rows, texts, strict=True)
        if row.text != rows[first[text]].text
    ]


def _describe(path: Path, reading: Reading, count: int, table: LabelTable, has_groups: bool) -> str:
    """What was understood of a file, in one line."""
    words = [f"{count:,} row{'s' * (count != 1)}", reading.form]
    notes = table.notes
    if reading.is_of_tool and table.names:
        words.append(f"{len(table.names)} label{'s' * (len(table.names) != 1)}")
        notes = notes[1:]
    elif notes:
        words.append(f"labels {notes[0]}")
        notes = notes[1:]
    words += ["in groups"] * has_groups
    left_out = [*_left_out(reading)]
    if unused := [
        name for name in (*reading.unused, *table.left_out) if not NAMELESS.fullmatch(name)
    ]:
        left_out.append(f"column{'s' * (len(unused) > 1)} {named(unused)}")
    if len(unused) < len(reading.unused) + len(table.left_out):
        left_out.append("a column without a name")
    if left_out:
        notes = [f"left out: {', '.join(left_out)}", *notes]
    return "; ".join([f"{path.name}: {', '.join(words)}", *notes])


def _no_rows(reading: Reading) -> Problem:
    left_out = ", ".join(_left_out(reading))
    return Problem(1, f"no row is left; {left_out}" if left_out else "no rows")


def _left_out(reading: Reading) -> list[str]:
    """The rows that are left out, by their reasons."""
    return [
        f"{count:,} row{'s' * (count > 1)} {reason}" for reason, count in reading.left_out.items()
    ]
