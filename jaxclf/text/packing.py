"""Ragged token ids -> batches of one static shape, several texts to a row.

Sequence packing without cross-contamination: Krell et al. 2021, arXiv 2107.02027.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from jaxclf.types import Batch, Shape, Tokens


class Placement(NamedTuple):
    """Where one batch's windows lie: window `windows[k]` starts at column `columns[k]` of row
    `rows[k]` and belongs to the example in slot `slots[k]`, which is `examples[slots[k]]`."""

    examples: Int[np.ndarray, " used"]
    windows: Int[np.ndarray, " windows"]
    rows: Int[np.ndarray, " windows"]
    columns: Int[np.ndarray, " windows"]
    slots: Int[np.ndarray, " windows"]


def training_shape(tokens: Tokens, batch_size: int, length: int, least: int = 1) -> Shape:
    """Rows enough for `batch_size` examples of average length, slots for twice as many, so that
    rows, not slots, end a batch; never fewer rows than the longest text has windows, nor than
    `least`."""
    rows = round(batch_size * len(tokens.ids) / example_count(tokens) / length)
    return Shape(max(rows, most_windows(tokens), least), length, 2 * batch_size)


def example_count(tokens: Tokens) -> int:
    """Examples, each of which owns a window."""
    return int(tokens.example_index[-1]) + 1 if len(tokens.example_index) else 0


def most_windows(tokens: Tokens) -> int:
    """Windows of the text that has the most."""
    return int(np.bincount(tokens.example_index).max(initial=1))


def plan(tokens: Tokens, order: Iterable[int], shape: Shape) -> Iterator[Placement]:
    """Place examples first-fit in the given order; what does not fit opens the next batch.

    A batch closes when it is out of slots or when as many examples wait as it has rows, so order
    is kept to within a few examples and rows fill to 95 % and more. All windows of an example lie
    in one batch.
    """
    lengths = np.diff(tokens.starts).tolist()
    first = np.searchsorted(tokens.example_index, np.arange(example_count(tokens) + 1)).tolist()
    upcoming = iter(order)
    waiting: list[int] = []
    exhausted = False
    while waiting or not exhausted:
        batch = _Open([shape.length] * shape.rows, [], [], [], [], [])
        waiting = [
            example
            for example in waiting
            if not _place(batch, example, range(first[example], first[example + 1]), lengths, shape)
        ]
        while len(waiting) < shape.rows and len(batch.examples) < shape.slots:
            example = next(upcoming, None)
            if example is None:
                exhausted = True
                break
            windows = range(first[example], first[example + 1])
            if not _place(batch, example, windows, lengths, shape):
                waiting.append(example)
        assert batch.examples or not waiting  # else a text fits no batch, and this would not end
        if batch.examples:
            yield Placement(
                *(np.array(column, np.int64) for column in batch[1:]),
            )


class _Open(NamedTuple):
    """A batch being filled: tokens free in each row, then the columns of a Placement."""

    free: list[int]
    examples: list[int]
    windows: list[int]
    rows: list[int]
    columns: list[int]
    slots: list[int]


def _place(batch: _Open, example: int, windows: range, lengths: list[int], shape: Shape) -> bool:
    """Put all windows of an example into the batch, or none."""
    if len(batch.examples) == shape.slots:
        return False
    free = batch.free.copy()
    rows, columns = [], []
    for window in windows:
        need = lengths[window]
        row = next((row for row, room in enumerate(free) if room >= need), None)
        if row is None:
            return False
        rows.append(row)
        columns.append(shape.length - free[row])
        free[row] -= need
    batch.free[:] = free
    batch.rows.extend(rows)
    batch.columns.extend(columns)
    batch.windows.extend(windows)
    batch.slots.extend([len(batch.examples)] * len(windows))
    batch.examples.append(example)
    return True


def fill(
    tokens: Tokens,
    labels: Float32[np.ndarray, "examples classes"],
    known: Float32[np.ndarray, "examples classes"],
    placement: Placement | None,
    shape: Shape,
    weights: Float32[np.ndarray, " examples"] | None = None,
) -> Batch:
    """The arrays of one placement; None gives a batch without examples, which adds nothing to a
    gradient.

    weights: the factor, above 0, of each example's loss; None: 1.
    """
    rows, length, slots = shape
    ids, positions, segments = (np.zeros(rows * length, np.int32) for _ in range(3))
    examples = np.full(rows * length, slots, np.int32)  # out of range: pooled into no slot
    batch_labels = np.zeros((slots, labels.shape[1]), np.float32)
    batch_known = np.zeros((slots, labels.shape[1]), np.float32)
    weight = np.zeros(slots, np.float32)
    if placement is not None:
        starts = tokens.starts[placement.windows]
        lengths = tokens.starts[placement.windows + 1] - starts
        within = _ranges(lengths)  # 0, 1, … of each window, one after another
        target = np.repeat(placement.rows * length + placement.columns, lengths) + within
        ids[target] = tokens.ids[np.repeat(starts, lengths) + within]
        positions[target] = within
        segments[target] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
        examples[target] = np.repeat(placement.slots, lengths)
        used = len(placement.examples)
        batch_labels[:used] = labels[placement.examples]
        batch_known[:used] = known[placement.examples]
        weight[:used] = 1 if weights is None else weights[placement.examples]
    return Batch(
        ids.reshape(rows, length),
        positions.reshape(rows, length),
        segments.reshape(rows, length),
        examples.reshape(rows, length),
        batch_labels,
        batch_known,
        weight,
    )


def _ranges(lengths: Int[np.ndarray, " windows"]) -> Int[np.ndarray, " tokens"]:
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
