"""The texts of a data file with their ids, groups and labels as the file has them."""

import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.errors import printable
from jaxclf.text.annotation_tools import Tool, read_answers, recognize
from jaxclf.text.delimited import suggest_text_column
from jaxclf.text.formats import open_rows
from jaxclf.text.label_table import Columns
from jaxclf.text.prediction_columns import is_prediction
from jaxclf.text.rows import Problem, Row, RowError, check_unicode

NUM_RECOGNIZED = 20  # records whose keys tell an annotation tool
NOT_LABELS = ("id", "text", "group", "split", "labels")
SPLIT_NAMES = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test",
}  # fmt: skip
NAMELESS = re.compile(r"\s*(Unnamed: \d+)?")  # no name, and what pandas makes of it
WHOLE_NUMBER = re.compile(r"(-?\d+)\.0")


class ParsedRow(NamedTuple):
    """text: "" where there is none. labels: as the file has them; None where they are not read or
    not there. fields: the row as it is in the file; empty where labels are read.
    """

    line: int
    id: str
    text: str
    group: str
    labels: Any
    split: str = ""
    fields: Mapping[str, Any] = {}


class Choice(NamedTuple):
    """The columns that the user names: that of the text ("" for `text`), those to leave out, and
    that which lists the labels ("" for `labels`)."""

    text_column: str
    ignored: frozenset[str]
    label_column: str = ""


class Reading(NamedTuple):
    """A file's form and its rows, with what is known of the rows so far."""

    form: str
    rows: Iterator[ParsedRow]
    is_of_tool: bool
    problems: list[Problem]
    left_out: Counter[str]  # reasons why rows are
    unused: dict[str, None]  # columns, in order


def open_reading(
    path: Path, choice: Choice, labeled: bool, max_problems: int = sys.maxsize
) -> Reading:
    """Open a file. Of each text, one row alone is read where labels are not. Rows end after
    `max_problems`."""
    form, rows = open_rows(path, choice.text_column or "text")
    head = list(itertools.islice(rows, NUM_RECOGNIZED))
    name, tool = recognize(row.fields for row in head) or ("", None)
    reading = Reading(name or form, iter(()), tool is not None, [], Counter(), {})

    def parsed() -> Iterator[ParsedRow]:
        for number, row in enumerate(itertools.chain(head, rows)):
            try:
                if tool:
                    yield from _parse_task(row, str(number), name, tool, choice, labeled, reading)
                else:
                    yield _parse(row, str(number), choice, labeled, reading)
            except RowError as error:
                reading.problems.append(Problem(row.line, str(error)))
                if len(reading.problems) == max_problems:
                    return

    return reading._replace(rows=parsed())


def _fields(row: Row) -> dict[str, Any]:
    """Raises RowError."""
    if isinstance(row.fields, RowError):
        raise row.fields
    if not isinstance(row.fields, dict):
        raise RowError('a row must be an object {"text": …, "labels": …}')
    return row.fields


def _parse(row: Row, number: str, choice: Choice, labeled: bool, reading: Reading) -> ParsedRow:
    """Raises RowError."""
    fields = _fields(row)
    if choice.ignored:
        fields = {key: value for key, value in fields.items() if key not in choice.ignored}
    text_column = choice.text_column or "text"
    if text_column not in fields:
        reason = f"no '{printable(text_column)}' column or key"
        if lists := [key for key, value in fields.items() if _holds_rows(value)]:
            raise RowError(f"{reason}; write the list under {printable(lists[0])!r} alone")
        raise RowError(reason + suggest_text_column(fields, text_column))
    text = _text(fields[text_column], text_column)
    row_id, group = _identifier("id", fields), _identifier("group", fields)
    if not text:
        reading.left_out["without a text"] += 1
    labels = None
    if labeled and text:
        columns, unused = _sort_columns(tuple(row.fields), choice)
        reading.unused.update(unused)
        label_column = choice.label_column or "labels"
        if label_column in fields:
            labels = fields[label_column]
        elif choice.label_column:
            raise RowError(f"no '{printable(label_column)}' column or key")
        else:
            labels = Columns({key: fields[key] for key in columns})
    split = _split(fields) if labeled else ""
    kept = {} if labeled else row.fields
    return ParsedRow(row.line, row_id or number, text, group, labels, split, kept)


def _holds_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _split(fields: dict[str, Any]) -> str:
    """train, val or test; "" where the row has none."""
    value = str(fields.get("split") or "").strip()
    if value and value.lower() not in SPLIT_NAMES:
        raise RowError(f"unknown split '{printable(value)}'; write train, val or test")
    return SPLIT_NAMES.get(value.lower(), "")


@lru_cache(maxsize=2**10)
def _sort_columns(keys: tuple[str, ...], choice: Choice) -> tuple[tuple[str, ...], dict[str, None]]:
    """The columns that may be labels, and those that are not read."""
    special = {*NOT_LABELS, choice.text_column, choice.label_column} - choice.ignored
    if choice.text_column and choice.text_column != "text":
        special.discard("text")
    others = [key for key in keys if not is_prediction(key) and (key not in special or not key)]
    labels = ()
    if not choice.label_column and ("labels" in choice.ignored or "labels" not in keys):
        labels = tuple(
            key
            for key in others
            if key not in choice.ignored and key != "text" and not NAMELESS.fullmatch(key)
        )
    return labels, dict.fromkeys(key for key in others if key not in labels)


def _parse_task(
    row: Row,
    number: str,
    name: str,
    tool: Tool,
    choice: Choice,
    labeled: bool,
    reading: Reading,
) -> Iterator[ParsedRow]:
    """A row for each answer to a task; one row where there is no text or labels are not read."""
    for answer in read_answers(name, tool, _fields(row), choice.text_column):
        text = _text(answer.text, choice.text_column or "text")
        row_id = _identifier("id", {"id": answer.id}) or number
        if not text:
            reading.left_out["without a text"] += 1
        if not labeled or not text:
            kept = {} if labeled else row.fields
            yield ParsedRow(row.line, row_id, text, "", None, fields=kept)
            return
        if answer.labels is None:
            reading.left_out[answer.reason] += 1
        else:
            yield ParsedRow(row.line, row_id, text, "", answer.labels)


def _text(value: Any, column: str) -> str:
    """The text, "" where there is none. Raises RowError."""
    if isinstance(value, dict):
        raise RowError(
            f"{column!r} is an object; write one row for each text "
            "(pandas: to_json(path, orient='records', lines=True))"
        )
    if not isinstance(value, str | None):
        raise RowError(f"{printable(column)!r} must be a string")
    if not value or value.isspace():
        return ""
    check_unicode("text", value)
    return value


def _identifier(key: str, fields: dict[str, Any]) -> str:
    """The value of a key as a string, "" where it is missing; 3.0, as pandas writes it, is "3"."""
    value = fields.get(key)
    if value is None or value != value:
        return ""
    if not isinstance(value, str | int | float):
        raise RowError(f"{key!r} must be a string or a number")
    name = str(value)
    check_unicode(key, name)
    if name.endswith(".0") and (number := WHOLE_NUMBER.fullmatch(name)):
        return number[1]
    return name
