"""Named columns of equal length: what a figure draws and what its CSV file holds.

A label without a defined value has one row of NaN, which is an empty cell in the CSV.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from jaxclf.files.atomic import write_text

Columns = dict[str, np.ndarray]


def rows_by_label(columns: Columns) -> dict[str, Columns]:
    """The rows of each label, in order."""
    labels = columns["label"]
    return {
        str(name): select_rows(columns, labels == name) for name in dict.fromkeys(labels.tolist())
    }


def select_rows(columns: Columns, mask: np.ndarray) -> Columns:
    """The rows where the mask is true."""
    return {name: values[mask] for name, values in columns.items()}


def stack_rows(header: str, parts: Iterable[tuple]) -> Columns:
    """Columns from parts that are placed below each other; a scalar is repeated in every row of its
    part.

    header: names of the columns, separated by spaces.
    """
    arrays = [np.broadcast_arrays(*map(np.atleast_1d, part)) for part in parts]
    return {
        name: np.concatenate([part[index] for part in arrays]) if arrays else np.zeros(0)
        for index, name in enumerate(header.split())
    }


def save_columns(path: Path, columns: Columns) -> None:
    """Write a CSV file with every number to its last bit; NaN becomes an empty cell."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*(values.tolist() for values in columns.values()), strict=True):
        writer.writerow(["" if value != value else value for value in row])
    write_text(path, file.getvalue())


def split_chosen(rows: Columns) -> tuple[Columns, Columns]:
    """The rows of a curve, and the row of the chosen threshold."""
    return select_rows(rows, rows["chosen"] == 0), select_rows(rows, rows["chosen"] == 1)


def describe_extremes(columns: Columns, value_of: Callable[[Columns], float], quantity: str) -> str:
    """A sentence that names the labels with the highest and the lowest value. value_of: one label's
    rows -> its value, or NaN."""
    pairs = [(name, value_of(rows)) for name, rows in rows_by_label(columns).items()]
    values = {name: value for name, value in pairs if not math.isnan(value)}
    if not values:
        return f"No label has a value ({quantity})."
    highest, lowest = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    high, low = values[highest], values[lowest]
    if high == low:
        return f"{quantity.capitalize()}: {high:.2f} ({join_names(list(values))})."
    return f"Highest {quantity}: {highest} ({high:.2f}); lowest: {lowest} ({low:.2f})."


def join_names(names: list[str]) -> str:
    """Up to four names, and the count of the others."""
    rest = len(names) - 4
    return ", ".join(names[:4]) + (f" and {rest} more" if rest > 0 else "")
