"""Data files -> Examples, every fault as `file:line: reason`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.errors import DataError, did_you_mean
from jaxclf.text.formats import FORMATS, FileFormatError, Row, RowError
from jaxclf.types import Examples

FAULTS_SHOWN = 10
NO_ROWS = (1, "no rows")
# Columns and keys that are no labels.
RESERVED = ("id", "text", "group", "labels")


class Parsed(NamedTuple):
    line: int
    id: str
    text: str
    group: str
    labels: dict[str, float]


def read(path: str | Path, labels: tuple[str, ...] = (), labelled: bool = True) -> Examples:
    """Read one file.

    labels: the label names in order; empty: those of the file (the keys or columns of its first
        row, or, where rows list names, the names in alphabetical order).
    labelled: False reads texts and ids alone, for prediction.

    Raises DataError with up to ten lines `file:line: reason`.
    """
    path = Path(path)
    form, rows = _open(path)
    parsed: list[Parsed] = []
    faults: list[tuple[int, str]] = []
    seen: set[str] = set()
    for one in _good(rows, labelled, faults):
        if one.id in seen:
            faults.append((one.line, f"id {one.id!r} stands on two rows; ids must be unique"))
        else:
            seen.add(one.id)
            parsed.append(one)
    if not parsed and not faults:
        faults.append(NO_ROWS)

    names = labels or _names([one.labels for one in parsed])
    if labelled:
        for one in parsed:
            try:
                _hold(one.labels, names)
            except RowError as fault:
                faults.append((one.line, str(fault)))
    if faults:
        more = len(faults) - FAULTS_SHOWN
        raise _refusal(path, faults, f"and {more} more" if more > 0 else "")
    if not labelled:
        names = ()
    elif not names:
        raise DataError(f"{path}: no row carries a label; name them with data.labels=a,b,c")

    matrix = np.array([[one.labels.get(name, 0) for name in names] for one in parsed], np.float32)
    known = ~np.isnan(matrix)
    where = "listed by name" if isinstance(parsed[0].labels, Listed) else "by column"
    groups = tuple(one.group for one in parsed)
    found = (f", labels {where}" if labelled else "") + (", in groups" if any(groups) else "")
    return Examples(
        tuple(one.id for one in parsed),
        tuple(one.text for one in parsed),
        np.where(known, matrix, 0).astype(np.float32),
        known.astype(np.float32),
        names,
        f"{path.name}: {len(parsed):,} rows, {form}{found}",
        groups if any(groups) else (),
    )


def stream(path: str | Path) -> Iterator[Parsed]:
    """The texts of one file, row by row, for prediction: whatever the file's size, a row is all
    that is held of it.

    Ids may stand twice: a row is known by its place. Raises DataError once rows are found faulty,
    ten at most, as `file:line: reason`.
    """
    path = Path(path)
    _, rows = _open(path)
    faults: list[tuple[int, str]] = []
    found = False
    for one in _good(rows, False, faults, FAULTS_SHOWN):
        found = True
        yield one
    if not found and not faults:
        faults.append(NO_ROWS)
    if faults:
        raise _refusal(path, faults, "and perhaps more" if len(faults) == FAULTS_SHOWN else "")


def _open(path: Path) -> tuple[str, Iterator[Row]]:
    """The form of a file in words, and its rows."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix not in FORMATS:
        raise DataError(
            f"{path}: unknown ending {path.suffix!r}" + did_you_mean(path.suffix, FORMATS)
        )
    return FORMATS[path.suffix](path)


def _good(
    rows: Iterator[Row], labelled: bool, faults: list[tuple[int, str]], most: int = sys.maxsize
) -> Iterator[Parsed]:
    """The rows that can be used; what is wrong with others enters `faults`, where `most` end it."""
    try:
        for index, row in enumerate(rows):
            try:
                yield _parse(row, str(index), labelled)
            except RowError as fault:
                faults.append((row.line, str(fault)))
                if len(faults) == most:
                    return
    except FileFormatError as broken:  # nothing can be read from there on
        faults.append((broken.line, str(broken)))


def _refusal(path: Path, faults: list[tuple[int, str]], more: str) -> DataError:
    lines = [f"{path}:{line}: {reason}" for line, reason in sorted(faults)[:FAULTS_SHOWN]]
    return DataError("\n".join([*lines, more] if more else lines))


class Listed(dict):
    """Labels that came as a list of names: what is not listed is 0."""


def _parse(row: Row, number: str, labelled: bool) -> Parsed:
    """One row, or the Fault that it is."""
    fields = row.fields
    if isinstance(fields, RowError):
        raise fields
    if not isinstance(fields, dict):
        raise RowError('a row must be an object {"text": …, "labels": …}')
    text = fields.get("text")
    if not isinstance(text, str):
        raise RowError("no 'text' column or key" if text is None else "'text' must be a string")
    if not text.strip():
        raise RowError("the text is empty; remove the row")
    _whole("text", text)
    name, group = _name("id", fields), _name("group", fields)
    return Parsed(row.line, name or number, text, group, _labels(fields) if labelled else {})


def _name(key: str, fields: dict[str, Any]) -> str:
    """The value as a string, "" where there is none."""
    value = fields.get(key)
    if value is not None and not isinstance(value, str | int):
        raise RowError(f"{key!r} must be a string or a number")
    _whole(key, name := "" if value is None else str(value))
    return name


def _whole(what: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(
            f"the {what} holds half of a surrogate pair; write the character itself"
        ) from None


def _labels(fields: dict[str, Any]) -> dict[str, float]:
    """By name: 0, 1, or NaN where not known."""
    found = fields.get("labels")
    if found is None:
        found = {key: value for key, value in fields.items() if key not in RESERVED}
    if isinstance(found, list | dict):
        if not all(isinstance(name, str) for name in found):
            raise RowError("'labels' must list label names")
        for name in found:
            _whole("label", name)
    if isinstance(found, list):
        return Listed(dict.fromkeys(found, 1.0))
    if not isinstance(found, dict):
        raise RowError("'labels' must be an object of 0, 1 or null, or a list of names")
    return {name: _value(name, value) for name, value in found.items()}


def _value(name: str, value: Any) -> float:
    if value is None or value == "":
        return float("nan")
    if value in (0, 1) or value in ("0", "1"):
        return float(value)
    shown = f"is {value!r}; it " if isinstance(value, int | float) else ""
    raise RowError(f"label {name!r} {shown}must be 0, 1, or empty where not known")


def _names(rows: list[dict[str, float]]) -> tuple[str, ...]:
    """The label names that rows of a file set: the first row's keys, or all that are listed."""
    if any(isinstance(labels, Listed) for labels in rows):
        return tuple(sorted({name for labels in rows for name in labels}))
    return tuple(next((labels for labels in rows if labels), {}))


def _hold(labels: dict[str, float], names: tuple[str, ...]) -> None:
    """Fault where a label is a stranger or, where rows give values, one is missing."""
    for name in labels:
        if name not in names:
            raise RowError(f"unknown label {name!r}" + did_you_mean(name, names))
    if not isinstance(labels, Listed):
        for name in names:
            if name not in labels:
                raise RowError(f"no label {name!r}; give 0, 1, or leave it empty where not known")
