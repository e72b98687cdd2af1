"""A row of a data file with its line, and the errors of rows and files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.errors import DataError, did_you_mean

MAX_REASONS = 10  # in one message
MAX_LINES = 5  # named for one reason


class RowError(Exception):
    """An error of one row; `read` adds the file and the line."""


class FileFormatError(Exception):
    """An error after which the rest of the file cannot be read."""

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


class Row(NamedTuple):
    line: int
    fields: Any  # a dict where the row is well formed, a RowError where it is not


class Problem(NamedTuple):
    """The reason why a row is refused.

    unknown: a label name for which the message may suggest another.
    """

    line: int
    reason: str
    unknown: str = ""


def data_error(
    path: Path, problems: Sequence[Problem], names: Sequence[str] = (), is_complete: bool = True
) -> DataError:
    """One line for each reason, with its number of rows and its first lines in the file.

    names: the labels that there are.
    """
    lines_by_reason: dict[tuple[str, str], list[int]] = {}
    for line, reason, unknown in sorted(problems):
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


def check_unicode(field: str, value: str) -> None:
    """Raises RowError for half of a surrogate pair."""
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError:
        raise RowError(
            f"the {field} holds half of a surrogate pair; write the character itself"
        ) from None
