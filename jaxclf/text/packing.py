"""Packing of ragged token ids into batches of one static shape, several texts to a row.

Sequence packing without cross-contamination: Krell et al. 2021, arXiv 2107.02027.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from jaxclf.types import Batch, Shape, Tokens


class Placement(NamedTuple):
    """Positions of one batch's windows.

    Window `windows[k]` starts at column `columns[k]` of row `rows[k]`. It belongs to the example in
    slot `slots[k]`, which is `examples[slots[k]]`.
    """

    examples: Int[np.ndarray, " used"]
    windows: Int[np.ndarray, " windows"]
    rows: Int[np.ndarray, " windows"]
    columns: Int[np.ndarray, " windows"]
    slots: Int[np.ndarray, " windows"]


def training_shape(tokens: Tokens, batch_size: int, length: int, min_rows: int = 1) -> Shape:
    """The shape of a batch with rows for `batch_size` examples of average length.

    It has slots for twice as many examples, so that a batch runs out of rows first, and at least
    as many rows as a text has windows.
    """
    rows = round(batch_size * len(tokens.ids) / example_count(tokens) / length)
    return Shape(max(rows, most_windows(tokens), min_rows), length, 2 * batch_size)


def example_count(tokens: Tokens) -> int:
    """The number of examples."""
    return int(tokens.example_index[-1]) + 1 if len(tokens.example_index) else 0


def most_windows(tokens: Tokens) -> int:
    """The largest number of windows of a text."""
    return int(np.bincount(tokens.example_index).max(initial=1))


def plan(tokens: Tokens, order: Iterable[int], shape: Shape) -> Iterator[Placement]:
    """Pack examples first-fit in this order; those that do not fit start the next batch.

    A batch ends when it has no free slot or when as many examples wait as it has rows, so that the
    order changes by a few examples only. All windows of an example lie in one batch.
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
            if not _add(batch, example, range(first[example], first[example + 1]), lengths, shape)
        ]
        while len(waiting) < shape.rows and len(batch.examples) < shape.slots:
            example = next(upcoming, None)
            if example is None:
                exhausted = True
                break
            windows = range(first[example], first[example + 1])
            if not _add(batch, example, windows, lengths, shape):
                waiting.append(example)
        assert batch.examples or not waiting  # a text that fits no batch would wait forever
        if batch.examples:
            yield Placement(*(np.array(column, np.int64) for column in batch[1:]))


class _Open(NamedTuple):
    """A batch under construction: free tokens of each row, then the fields of a Placement."""

    free: list[int]
    examples: list[int]
    windows: list[int]
    rows: list[int]
    columns: list[int]
    slots: list[int]


def _add(batch: _Open, example: int, windows: range, lengths: list[int], shape: Shape) -> bool:
    """Add all windows of an example to a batch, or none. Returns whether they fit."""
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
    label_mask: Float32[np.ndarray, "examples classes"],
    placement: Placement | None,
    shape: Shape,
    weights: Float32[np.ndarray, " examples"] | None = None,
) -> Batch:
    """The arrays of one batch. Placement None gives a batch without examples, whose gradient is 0.

    weights: positive factors of the examples' losses; None: 1.
    """
    rows, length, slots = shape
    ids, positions, segments = (np.zeros(rows * length, np.int32) for _ in range(3))
    examples = np.full(rows * length, slots, np.int32)  # out of range: pooled into no slot
    batch_labels = np.zeros((slots, labels.shape[1]), np.float32)
    batch_mask = np.zeros((slots, labels.shape[1]), np.float32)
    weight = np.zeros(slots, np.float32)
    if placement is not None:
        starts = tokens.starts[placement.windows]
        lengths = tokens.starts[placement.windows + 1] - starts
        # 0, 1, … in each window.
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        target = np.repeat(placement.rows * length + placement.columns, lengths) + within
        ids[target] = tokens.ids[np.repeat(starts, lengths) + within]
        positions[target] = within
        segments[target] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
        examples[target] = np.repeat(placement.slots, lengths)
        used = len(placement.examples)
        batch_labels[:used] = labels[placement.examples]
        batch_mask[:used] = label_mask[placement.examples]
        weight[:used] = 1 if weights is None else weights[placement.examples]
    ids, positions, segments, examples = (
        column.reshape(rows, length) for column in (ids, positions, segments, examples)
    )
    return Batch(ids, positions, segments, examples, batch_labels, batch_mask, weight)
