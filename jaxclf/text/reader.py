"""Data files as Examples. Every error names its file and line."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.errors import DataError, did_you_mean, printable
from jaxclf.text.formats import FORMATS, FileFormatError, Row, RowError, max_size
from jaxclf.types import Examples

MAX_REASONS = 10  # in one message
MAX_LINES = 5  # named for one reason
NOT_LABELS = ("id", "text", "group", "split", "labels")
SPLIT_NAMES = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test",
}  # fmt: skip


class ParsedRow(NamedTuple):
    line: int
    id: str
    text: str
    group: str
    labels: dict[str, float]
    split: str


class Problem(NamedTuple):
    """The reason why a row is refused. unknown: as for RowError."""

    line: int
    reason: str
    unknown: str = ""


NO_ROWS = Problem(1, "no rows")


class LabelList(dict):
    """Labels that a row lists by name: unlisted labels are 0."""


def read(path: str | Path, labels: tuple[str, ...] = (), labeled: bool = True) -> Examples:
    """Read one file.

    labels: the label names in order. Empty: those of the file, which are the keys or columns of its
        first row, or, where rows list names, all names in alphabetical order.
    labeled: False reads texts and ids alone, for prediction.

    Raises DataError with a line `file:line: reason` for each reason, with its number of rows.
    """
    path = Path(path)
    format_name, rows = _open(path)
    parsed: list[ParsedRow] = []
    errors: list[Problem] = []
    seen: set[str] = set()
    for row in _valid_rows(rows, labeled, errors):
        if row.id in seen:
            reason = f"duplicate id '{printable(row.id)}'; ids must be unique"
            errors.append(Problem(row.line, reason))
        else:
            seen.add(row.id)
            parsed.append(row)
    if not parsed and not errors:
        errors.append(NO_ROWS)

    if any(row.split for row in parsed):
        reason = "no split; write train, val or test"
        errors += [Problem(row.line, reason) for row in parsed if not row.split]
    names = labels or _label_names([row.labels for row in parsed])
    if labeled:
        known = frozenset(names)
        for row in parsed:
            try:
                _check_labels(row.labels, names, known)
            except RowError as error:
                errors.append(Problem(row.line, str(error), error.unknown))
    if errors:
        raise _data_error(path, errors, names)
    if not labeled:
        names = ()
    elif not names:
        raise DataError(f"{path}: no row has a label; name the labels with data.labels=a,b,c")

    matrix = np.array([[row.labels.get(name, 0) for name in names] for row in parsed], np.float32)
    is_known = ~np.isnan(matrix)
    layout = "listed by name" if isinstance(parsed[0].labels, LabelList) else "by column"
    groups = tuple(row.group for row in parsed)
    notes = (f", labels {layout}" if labeled else "") + (", in groups" if any(groups) else "")
    return Examples(
        tuple(row.id for row in parsed),
        tuple(row.text for row in parsed),
        np.where(is_known, matrix, 0).astype(np.float32),
        is_known.astype(np.float32),
        names,
        f"{path.name}: {len(parsed):,} rows, {format_name}{notes}",
        groups if any(groups) else (),
        tuple(row.split for row in parsed if row.split),
        tuple(row.line for row in parsed),
        str(path),
    )


def stream(path: str | Path) -> Iterator[ParsedRow]:
    """The texts of one file, row by row, for prediction. Memory holds one row.

    Ids may repeat: a row is known by its position. Raises DataError after ten rows with errors, or
    at the end of the file.
    """
    path = Path(path)
    _, rows = _open(path)
    errors: list[Problem] = []
    is_empty = True
    for row in _valid_rows(rows, False, errors, MAX_REASONS):
        is_empty = False
        yield row
    if is_empty and not errors:
        errors.append(NO_ROWS)
    if errors:
        raise _data_error(path, errors, is_complete=len(errors) < MAX_REASONS)


def _open(path: Path) -> tuple[str, Iterator[Row]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix not in FORMATS:
        raise DataError(
            f"{path}: unknown ending {path.suffix!r}" + did_you_mean(path.suffix, FORMATS)
        )
    name, rows = FORMATS[path.suffix](path)
    return name, _limit_size(path, rows)


def _limit_size(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows of a file. Raises DataError if they are far larger than the file."""
    size, limit = 0, max_size(path)
    for row in rows:
        if isinstance(row.fields, dict):
            for value in (*row.fields.values(), *_as_list(row.fields.get("labels"))):
                size += len(value) if isinstance(value, str) else 0
        if size > limit:
            raise DataError(
                f"{path}:{row.line}: {size:,} characters up to here, too many for a file of its "
                "size; divide it, or store it as JSON lines"
            )
        yield row


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _valid_rows(
    rows: Iterator[Row],
    labeled: bool,
    errors: list[Problem],
    max_errors: int = sys.maxsize,
) -> Iterator[ParsedRow]:
    """The rows without errors. Appends the errors of other rows, and ends at `max_errors`."""
    try:
        for index, row in enumerate(rows):
            try:
                yield _parse(row, str(index), labeled)
            except RowError as error:
                errors.append(Problem(row.line, str(error)))
                if len(errors) == max_errors:
                    return
    except FileFormatError as error:  # the rest of the file cannot be read
        errors.append(Problem(error.line, str(error)))


def _data_error(
    path: Path, errors: list[Problem], names: tuple[str, ...] = (), is_complete: bool = True
) -> DataError:
    """One line for each reason, with its number of rows and its first lines in the file.

    names: the labels that there are.
    """
    lines_by_reason: dict[tuple[str, str], list[int]] = {}
    for line, reason, unknown in sorted(errors):
        lines_by_reason.setdefault((reason, unknown), []).append(line)
    messages = []
    for (reason, unknown), lines in list(lines_by_reason.items())[:MAX_REASONS]:
        message = f"{path}:{lines[0]}: {reason}{did_you_mean(unknown, names) if unknown else ''}"
        if len(lines) > 1:
            numbers = ", ".join(map(str, lines[:MAX_LINES])) + ", …" * (len(lines) > MAX_LINES)
            message += f" ({len(lines):,} rows: lines {numbers})"
        messages.append(message)
    if len(lines_by_reason) > MAX_REASONS:
        messages.append(f"and {len(lines_by_reason) - MAX_REASONS:,} more reasons")
    if not is_complete:
        messages.append("the rest of the file was not read")
    return DataError("\n".join(messages))


def _parse(row: Row, number: str, labeled: bool) -> ParsedRow:
    """Raises RowError."""
    fields = row.fields
    if isinstance(fields, RowError):
        raise fields
    if not isinstance(fields, dict):
        raise RowError('a row must be an object {"text": …, "labels": …}')
    text = fields.get("text")
    if not isinstance(text, str):
        raise RowError("no 'text' column or key" if text is None else "'text' must be a string")
    if not text or text.isspace():
        raise RowError("the text is empty; remove the row")
    _check_unicode("text", text)
    name, group = _identifier("id", fields), _identifier("group", fields)
    labels, split = (_labels(fields), _split(fields)) if labeled else ({}, "")
    return ParsedRow(row.line, name or number, text, group, labels, split)


def _split(fields: dict[str, Any]) -> str:
    """train, val or test; "" where the row has none."""
    value = str(fields.get("split") or "").strip()
    if value and value.lower() not in SPLIT_NAMES:
        raise RowError(f"unknown split '{printable(value)}'; write train, val or test")
    return SPLIT_NAMES.get(value.lower(), "")


def _identifier(key: str, fields: dict[str, Any]) -> str:
    """The value of a key as a string, "" where it is missing."""
    value = fields.get(key)
    if value is not None and not isinstance(value, str | int):
        raise RowError(f"{key!r} must be a string or a number")
    _check_unicode(key, name := "" if value is None else str(value))
    return name


def _check_unicode(field: str, value: str) -> None:
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError:
        raise RowError(
            f"the {field} holds half of a surrogate pair; write the character itself"
        ) from None


def _labels(fields: dict[str, Any]) -> dict[str, float]:
    """By name: 0, 1, or NaN where not known."""
    labels = fields.get("labels")
    if labels is None:
        labels = {key: value for key, value in fields.items() if key not in NOT_LABELS}
    if isinstance(labels, list | dict):
        if not all(isinstance(name, str) for name in labels):
            raise RowError("'labels' must list label names")
        for name in labels:
            _check_unicode("label", name)
    if isinstance(labels, list):
        return LabelList(dict.fromkeys(labels, 1.0))
    if not isinstance(labels, dict):
        raise RowError("'labels' must be an object of 0, 1 or null, or a list of names")
    return {name: _label_value(name, value) for name, value in labels.items()}


def _label_value(name: str, value: Any) -> float:
    if value is None or value == "":
        return float("nan")
    if value in (0, 1) or value in ("0", "1"):
        return float(value)
    shown = f"is {printable(repr(value))}; it " if isinstance(value, int | float) else ""
    raise RowError(f"label '{printable(name)}' {shown}must be 0, 1, or empty where not known")


def _label_names(rows: list[dict[str, float]]) -> tuple[str, ...]:
    """The label names of a file: the first row's keys, or all listed names."""
    if any(isinstance(labels, LabelList) for labels in rows):
        return tuple(sorted({name for labels in rows for name in labels}))
    return tuple(next((labels for labels in rows if labels), {}))


def _check_labels(labels: dict[str, float], names: tuple[str, ...], known: frozenset[str]) -> None:
    """Raises RowError for an unknown label and, where rows have values, for a missing label."""
    for name in labels:
        if name not in known:
            raise RowError(f"unknown label '{printable(name)}'", name)
    if not isinstance(labels, LabelList):
        for name in names:
            if name not in labels:
                reason = "write 0, 1, or leave it empty where not known"
                raise RowError(f"no label '{printable(name)}'; {reason}")
