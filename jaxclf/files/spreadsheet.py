"""CSV cells that a spreadsheet does not compute."""

import re

FORMULA = re.compile(r"[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def escape_name(name: str) -> str:
    """An apostrophe before a name that a spreadsheet would compute."""
    return f"'{name}" if FORMULA.match(name) else name


def escape_cell(cell: str) -> str:
    """An apostrophe before a cell of a user's file that is a formula; numbers stay as they are."""
    return cell if NUMBER.fullmatch(cell) else escape_name(cell)
