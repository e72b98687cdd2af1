"""The labels of rows, as they are written in cells, columns, objects and lists, as numbers."""

import ast
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from jaxclf.errors import printable
from jaxclf.text.rows import RowError

NAN = math.nan
VALUES = {
    **dict.fromkeys(("", "nan", "null", "none", "na", "n/a", "<na>"), NAN),
    **dict.fromkeys(("1", "true", "yes", "t", "y"), 1.0),
    **dict.fromkeys(("0", "false", "no", "f", "n"), 0.0),
}
NOT_LABELED = ("nan", "null", "<na>")  # in a cell that lists names
SEPARATORS = "|;,#"  # the first one that occurs joins the names of a file
MAX_LITERAL = 10_000  # characters of a list in a cell
BRACKETS = {"[": "]", "(": ")", "{": "}"}
NUMBER = re.compile(r"-?\d+(\.\d*)?|-?\.\d+")
BETWEEN_ITEMS = re.compile(r"(?<=['\".\d])\s+(?=['\"\d])")
HOW_TO_WRITE = (
    "must be 0, 1, a share between them, true or false, yes or no, or empty where not known"
)


def to_share(cell: Any) -> float:
    """A label's value: 0, 1, the share between them of annotators who gave the label, or NaN where
    it is not known. Raises ValueError for any other value."""
    if isinstance(cell, str):
        word = cell.strip().lower()
        if word in VALUES:
            return VALUES[word]
        value = float(word.replace(",", "."))
    elif isinstance(cell, int | float):
        value = float(min(max(cell, -1), 2))  # an integer may be too large for a float
        value = NAN if cell != cell else value
    elif cell is None:
        return NAN
    else:
        raise ValueError
    if not math.isnan(value) and not 0 <= value <= 1:
        raise ValueError
    return value


@lru_cache(maxsize=2**14)
def canonical_name(name: str) -> str:
    """A label's name without white space around it, in Unicode's form NFC."""
    return unicodedata.normalize("NFC", name).strip()


def is_share(cell: Any) -> bool:
    try:
        to_share(cell)
    except ValueError:
        return False
    return True


def parse_lists(cells: Sequence[Any], known: frozenset[str]) -> tuple[list[Any], str]:
    """What each cell lists: names or numbers, an object, or a RowError; and the separator of joined
    names.

    A cell is a list, a number or a string: one name, names joined by a separator, or a list as
    Python, JSON or numpy write it. known: names that are not split. None: not labeled.
    """
    parsed = [_parse_cell(cell, known) for cell in cells]
    joined = [cell for cell in parsed if isinstance(cell, str)]
    separator = next((mark for mark in SEPARATORS if _joins(mark, joined)), "")
    lists: list[Any] = []
    for cell in parsed:
        if isinstance(cell, str):
            parts = cell.split(separator) if separator else [cell]
            cell = [part.strip() for part in parts if part.strip()]
        lists.append(cell)
    names = {name.strip() for cell in lists if isinstance(cell, list) for name in map(str, cell)}
    for index, cell in enumerate(parsed):
        if isinstance(cell, str) and any(
            _is_joined(name, names) for name in lists[index] if canonical_name(name) not in known
        ):
            reason = f"names are not joined by '{separator}' here, but elsewhere; use one mark"
            lists[index] = RowError(f"{reason}, or name the labels with data.labels=a,b,c")
    return lists, separator


def _is_joined(name: str, names: set[str]) -> bool:
    """Whether a part of a name is another name."""
    splits = [name.split(mark) for mark in SEPARATORS if mark in name]
    return any(part.strip() in names for parts in splits for part in parts)


def _joins(mark: str, cells: list[str]) -> bool:
    """Whether a mark joins names. "C#" is a name, so both sides of # must have one."""
    pattern = re.compile(r"\S\s*#\s*\S") if mark == "#" else re.compile(re.escape(mark))
    return any(pattern.search(cell) for cell in cells)


def _parse_cell(cell: Any, known: frozenset[str]) -> Any:
    if isinstance(cell, bool | int | float):
        return None if cell != cell else [cell]
    if not isinstance(cell, str):
        return cell if isinstance(cell, list | dict | None) else RowError("'labels' must be a list")
    cell = cell.strip()
    if cell.lower() in NOT_LABELED and cell not in known:
        return None
    if canonical_name(cell) in known:
        return [cell]
    if cell == "set()":  # of Python
        return []
    if len(cell) > 1 and BRACKETS.get(cell[0]) == cell[-1]:
        return _parse_literal(cell)
    return cell


def _parse_literal(cell: str) -> Any:
    """A list as Python, JSON, numpy or others write it; the string itself where it is none."""
    if len(cell) > MAX_LITERAL:
        return RowError(f"a list of {len(cell):,} characters in a cell; store it as JSON lines")
    text = cell if "," in cell else BETWEEN_ITEMS.sub(", ", cell)  # numpy writes no commas
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(value, set):
            return sorted(value, key=str)
        if isinstance(value, dict | list | tuple):
            return value if isinstance(value, dict) else list(value)
    if cell[0] != "[":
        return cell
    return [part.strip() for part in cell[1:-1].split(",") if part.strip()]


def to_numbers(lists: Sequence[list[Any]], known: frozenset[str]) -> list[list[float]] | None:
    """The lists with numbers for their items; None where they list names."""
    items = {item for row in lists for item in row if isinstance(item, str)}
    if any(not NUMBER.fullmatch(item) for item in items) or (items and items <= known):
        return None
    if not any(lists) or not all(
        isinstance(item, str | int | float) for row in lists for item in row
    ):
        return None
    return [
        [_clip(float(item) if isinstance(item, str) else item) for item in row] for row in lists
    ]


def _clip(number: int | float) -> float:
    """A number as a float, for which an integer may be too large."""
    return float(min(max(number, -1), 2**53))


def are_vectors(lists: Sequence[list[float]], count: int) -> bool:
    """Whether lists of numbers are vectors of a value for each label, not lists of class ids.

    Class ids do not repeat in a list, and are whole numbers.
    """
    filled = [row for row in lists if row]
    if any(len(set(row)) < len(row) or any(0 < item < 1 for item in row) for row in filled):
        return True
    if any(item > 1 for row in filled for item in row):
        return False
    return {len(row) for row in filled} in ({count}, {2})


def from_numbers(row: list[float], names: Sequence[str], is_vector: bool) -> list[float]:
    """A row's values from a vector or from class ids. Raises RowError."""
    if is_vector:
        if len(row) != len(names):
            raise RowError(f"a list of {len(row)} values for {len(names)} labels")
        if not all(0 <= value <= 1 for value in row):
            raise RowError("a list of values that are not all in [0, 1]")
        return row
    values = [0.0] * len(names)
    for item in row:
        if not 0 <= item < len(names) or item != int(item):
            raise RowError(f"a class id that is not one of 0 to {len(names) - 1}")
        values[int(item)] = 1.0
    return values


def alike(names: Iterable[str]) -> list[str]:
    """The names that differ from others in case only."""
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.casefold(), []).append(name)
    return [name for group in folded.values() if len(group) > 1 for name in group]


def named(names: Iterable[str], limit: int = 5) -> str:
    """Names for a message: 'a', 'b' and 3 more."""
    quoted = [repr(printable(name)) for name in names]
    more = f" and {len(quoted) - limit:,} more" if len(quoted) > limit else ""
    return ", ".join(quoted[:limit]) + more
