"""The labels of a file's rows as one table: a column for each label."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from jaxclf.errors import did_you_mean, printable
from jaxclf.text.label_values import (
    HOW_TO_WRITE,
    NAN,
    NUMBER,
    alike,
    are_vectors,
    canonical_name,
    from_numbers,
    is_share,
    named,
    parse_lists,
    to_numbers,
    to_share,
)
from jaxclf.text.rows import Problem, RowError, check_unicode

MISSING, UNREADABLE = object(), object()  # in place of a cell
MAX_SUGGESTED = 10  # columns
MIXED = "'labels' lists names in some rows and gives values in others; use one form"


class Columns(dict):
    """The cells of a row's columns that may be labels."""


class LabelTable(NamedTuple):
    """names: the labels. values: 0, 1, a share between them, or NaN where not known.
    notes: what was understood, in words, with how labels are written first."""

    names: tuple[str, ...]
    values: Float32[np.ndarray, "rows classes"]
    notes: list[str]
    left_out: list[str]
    problems: list[Problem]


def make_table(
    lines: Sequence[int], cells: Sequence[Any], labels: tuple[str, ...], is_partial: bool
) -> tuple[LabelTable, list[bool]]:
    """Make the table of the rows that are labeled; and which rows are.

    lines: of the rows in the file. cells: of a row, Columns, an object of values, or what lists its
        labels; None where it is not labeled. labels: the names in order; empty: those of the file.
    is_partial: objects need not have every label.
    """
    cells, form, left_out = _list_of_column(cells, labels)
    is_columns = any(isinstance(cell, Columns) for cell in cells)
    lists = [index for index, cell in enumerate(cells) if not isinstance(cell, dict | None)]
    parsed, separator = parse_lists(
        [cells[index] for index in lists], frozenset(map(canonical_name, labels))
    )
    for index, cell in zip(lists, parsed, strict=True):
        cells[index] = cell
    errors = [
        Problem(line, str(cell))
        for line, cell in zip(lines, cells, strict=True)
        if isinstance(cell, RowError)
    ]
    is_labeled = [cell is not None for cell in cells]
    rows: list[tuple[int, Any]] = [
        (line, cell)
        for line, cell in zip(lines, cells, strict=True)
        if isinstance(cell, dict | list)
    ]
    has_objects = [isinstance(cell, dict) for _, cell in rows]
    if any(has_objects) and not all(has_objects):
        line, _ = rows[has_objects.index(not has_objects[0])]
        errors.append(Problem(line, MIXED))
        rows = []
    if any(has_objects):
        table = _table_of_values(rows, labels, is_columns, is_partial)
    else:
        form = (f"joined by {separator!r}" if separator else "listed by name") + form
        table = _table_of_lists(rows, labels, form)
    return (
        table._replace(problems=errors + table.problems, left_out=left_out + table.left_out),
        is_labeled,
    )


def _list_of_column(
    cells: Sequence[Any], labels: tuple[str, ...]
) -> tuple[list[Any], str, list[str]]:
    """The cells of the column `label` alone, where it lists names and is not a label itself; with a
    note, and the columns that are left out."""
    columns = {name: None for cell in cells if isinstance(cell, Columns) for name in cell}
    if "label" not in columns or not all(isinstance(cell, Columns) for cell in cells):
        return list(cells), "", []
    lists = [cell.get("label") for cell in cells]
    is_column = all(map(is_share, lists)) if not labels else {*labels} <= columns.keys()
    if is_column:
        return list(cells), "", []
    return lists, " in 'label'", [name for name in columns if name != "label"]


@lru_cache(maxsize=2**10)
def _canonical_names(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Raises RowError for a name that is blank or occurs twice."""
    names = tuple(map(canonical_name, keys))
    for name in names:
        check_unicode("label", name)
        if not name:
            raise RowError("a label has no name")
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise RowError(f"duplicate label '{printable(twice)}'")
    return names


def _table_of_values(
    rows: Sequence[tuple[int, Any]], labels: tuple[str, ...], is_columns: bool, is_partial: bool
) -> LabelTable:
    problems, lines, objects = [], [], []
    for line, row in rows:
        try:
            objects.append(dict(zip(_canonical_names(tuple(row)), row.values(), strict=True)))
            lines.append(line)
        except RowError as error:
            problems.append(Problem(line, str(error)))
    names = tuple(map(canonical_name, labels)) or _names_of(objects, is_partial)
    known, left_out, unknown_lines = frozenset(names), {}, set()
    for line, row in zip(lines, objects, strict=True):
        if not row.keys() <= known:
            unknown = [name for name in row if name not in known]
            left_out.update(dict.fromkeys(unknown))
            if not labels:
                reason = f"unknown label '{printable(unknown[0])}'"
                problems.append(Problem(line, reason, unknown[0]))
                unknown_lines.add(line)  # that it lacks a label is then no news
    values = np.full((len(lines), len(names)), NAN, np.float32)
    faulty = {}
    for column, name in enumerate(names):
        cells = [row.get(name, MISSING) for row in objects]
        values[:, column], bad = _read_column(cells, is_partial)
        if bad:
            faulty[column] = (cells, bad)
    good = [name for column, name in enumerate(names) if column not in faulty]
    for column, (cells, bad) in faulty.items():
        shown = next((cell for cell in cells if cell in bad and cell is not MISSING), MISSING)
        reason = _why_not(names[column], shown, good if is_columns else None)
        missing = f"no label '{printable(names[column])}'"
        missing += did_you_mean(names[column], left_out) if left_out else "; write 0, 1, or null"
        problems += [
            Problem(line, missing if cell is MISSING else reason)
            for line, cell in zip(lines, cells, strict=True)
            if cell in bad and not (cell is MISSING and line in unknown_lines)
        ]
    if is_columns and not labels and not problems:
        problems = _find_scores(names, values, lines)
    notes = ["by column" if not is_partial else ""]
    return LabelTable(labels or names, values, notes, [*left_out] if labels else [], problems)


def _names_of(objects: list[dict], is_partial: bool) -> tuple[str, ...]:
    if is_partial:
        return tuple(sorted({name for row in objects for name in row}))
    return tuple(next((row for row in objects if row), {}))


def _read_column(cells: list[Any], is_partial: bool) -> tuple[list[float], set[Any]]:
    """The values of a label's cells, and the cells that have none."""
    try:
        distinct = set(cells)
    except TypeError:  # lists and objects
        cells[:] = [cell if getattr(cell, "__hash__", None) else UNREADABLE for cell in cells]
        distinct = set(cells)
    shares, bad = {MISSING: NAN}, set()
    if not is_partial and MISSING in distinct:
        bad.add(MISSING)
    for cell in distinct - {MISSING}:
        try:
            shares[cell] = to_share(cell)
        except ValueError:
            shares[cell] = NAN
            bad.add(cell)
    return [shares[cell] for cell in cells], bad


def _why_not(name: str, cell: Any, columns: list[str] | None) -> str:
    """Why a cell is not a label's value. columns: those that are labels; None for an object."""
    is_number = isinstance(cell, int | float) or (isinstance(cell, str) and NUMBER.fullmatch(cell))
    shown = f"is {printable(str(cell))}; it " if is_number else ""
    reason = f"label '{printable(name)}' {shown}{HOW_TO_WRITE}"
    if columns is None:
        return reason
    if not columns and not is_number:
        column = printable(name)
        return (
            f"{reason}; data.label_column={column} reads it as lists of names; "
            f"data.ignore_columns={column} leaves it out"
        )
    suggested = columns if 0 < len(columns) <= MAX_SUGGESTED else ["a", "b", "c"]
    listed = printable(",".join(suggested))
    return (
        f"{reason}; data.labels={listed} names the label columns; "
        f"data.ignore_columns={printable(name)} leaves this one out"
    )


def _find_scores(names: tuple[str, ...], values: np.ndarray, lines: Sequence[int]) -> list[Problem]:
    """Columns of fractions that are never 0 or 1, beside columns of 0 and 1 alone: they may be
    scores of something else."""
    is_known = ~np.isnan(values)
    is_whole = (values == 0) | (values == 1)
    only_whole = (is_whole | ~is_known).all(axis=0) & is_known.any(axis=0)
    never_whole = ~is_whole.any(axis=0) & is_known.any(axis=0)
    if not only_whole.any():
        return []
    labels = printable(",".join(np.array(names)[only_whole][:MAX_SUGGESTED]))
    return [
        Problem(
            lines[int(is_known[:, column].argmax())],
            f"column '{name}' has fractions alone beside columns of 0 and 1: a label or a score? "
            f"data.labels={labels} names the label columns; data.ignore_columns={name} leaves this "
            "one out",
        )
        for column, name in enumerate(map(printable, names))
        if never_whole[column]
    ]


def _table_of_lists(rows: list[tuple[int, list]], labels: tuple[str, ...], form: str) -> LabelTable:
    known = {canonical_name(name): index for index, name in enumerate(labels)}
    numbers = to_numbers([row for _, row in rows], frozenset(known))
    if numbers is not None:
        return _table_of_numbers([line for line, _ in rows], numbers, labels)
    spellings: dict[str, set[str]] = {}
    lists, problems = [], []
    for line, row in rows:
        lists.append(names := [])
        for name in row:
            if not isinstance(name, str) or not name.strip():
                problems.append(Problem(line, "'labels' must list label names"))
                break
            try:
                check_unicode("label", name)
            except RowError as error:
                problems.append(Problem(line, str(error)))
                break
            names.append(canonical_name(name))
            spellings.setdefault(names[-1], set()).add(name)
            if known and names[-1] not in known:
                problems.append(Problem(line, f"unknown label '{printable(name)}'", name))
                break
    index = known or {name: column for column, name in enumerate(sorted(spellings))}
    values = np.zeros((len(rows), len(index)), np.float32)
    if not problems:
        for row, names in enumerate(lists):
            values[row, [index[name] for name in names]] = 1
    notes = [form, *_notes_on_names(spellings, values, tuple(index), "','" in form)]
    return LabelTable(labels or tuple(index), values, notes, [], problems)


def _table_of_numbers(
    lines: list[int], lists: list[list[float]], labels: tuple[str, ...]
) -> LabelTable:
    problems, values = [], np.zeros((len(lines), len(labels)), np.float32)
    if not labels:
        reason = "labels are numbers; data.labels=a,b,c names the labels in order"
        return LabelTable((), values, [], [], [Problem(line, reason) for line in lines])
    is_vector = are_vectors(lists, len(labels))
    for row, (line, numbers) in enumerate(zip(lines, lists, strict=True)):
        try:
            values[row] = from_numbers(numbers, labels, is_vector)
        except RowError as error:
            problems.append(Problem(line, str(error)))
    return LabelTable(labels, values, ["as vectors" if is_vector else "as class ids"], [], problems)


def _notes_on_names(
    spellings: dict[str, set[str]], values: np.ndarray, names: tuple[str, ...], has_commas: bool
) -> Iterable[str]:
    if several := [name for name in spellings if len(spellings[name]) > 1]:
        yield f"one label for every spelling of {named(several)} (white space, Unicode form)"
    if similar := alike(spellings):
        yield f"labels that differ in case only: {named(similar)}"
    if has_commas:
        together: dict[bytes, list[str]] = {}
        for column, name in enumerate(names):
            if values[:, column].sum() > 1:
                together.setdefault(values[:, column].tobytes(), []).append(name)
        for group in together.values():
            if len(group) > 1:
                yield f"{named(group)} occur only together; if they are one name, join names by '|'"
