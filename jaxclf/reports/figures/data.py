"""What figures show: the data of a run, and named columns of equal length, which a figure draws and
its CSV file holds.

A label without a defined value has one row of NaN, which is an empty cell in the CSV.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxclf.files.atomic import write_text
from jaxclf.files.spreadsheet import escape_name
from jaxclf.types import Predictions

Columns = dict[str, np.ndarray]


class RunData(NamedTuple):
    """What a finished run offers to its figures."""

    test: Predictions
    val: Predictions
    thresholds: np.ndarray  # [C]
    names: tuple[str, ...]
    label_indices: Int[np.ndarray, " shown"]  # labels with a panel or a row of their own
    lengths: np.ndarray | None = None  # tokens of each test text
    log: Sequence[Mapping[str, Any]] = ()  # lines of metrics.jsonl


class LabelScores(NamedTuple):
    """The examples of a split whose value of one label is known."""

    name: str
    truth: np.ndarray  # bool [known]
    scores: np.ndarray  # float64 [known], the probabilities
    threshold: float


def iter_labels(run: RunData, predictions: Predictions) -> Iterator[LabelScores]:
    """The labels that have a panel of their own, in order."""
    for index in run.label_indices:
        labels = predictions.labels[:, index]
        is_known = ~np.isnan(labels)
        scores = predictions.probs[is_known, index].astype(np.float64)
        threshold = float(run.thresholds[index])
        yield LabelScores(run.names[index], labels[is_known] == 1, scores, threshold)


def count_above(label: LabelScores, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(true positives, predicted positives) at `score >= threshold`, for each threshold."""
    true_positives, predicted = (
        len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
        for scores in (label.scores[label.truth], label.scores)
    )
    return true_positives, predicted


def score_range(label: LabelScores) -> tuple[float, float]:
    """The range of the probabilities, widened to hold the threshold and to be wide enough to
    draw."""
    low = min(label.scores.min(), label.threshold)
    high = max(label.scores.max(), label.threshold)
    return (low, high) if high - low > 1e-6 else (low - 0.05, high + 0.05)


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
    """Write a CSV file with every number to its last bit; NaN becomes an empty cell, and a label no
    formula."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*(values.tolist() for values in columns.values()), strict=True):
        cells = (escape_name(value) if isinstance(value, str) else value for value in row)
        writer.writerow(["" if value != value else value for value in cells])
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
