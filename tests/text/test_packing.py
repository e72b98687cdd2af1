"""Packing: every token stands exactly once where it belongs, and rows are full."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.text.packing import fill, most_windows, plan, training_shape
from jaxclf.types import Shape, Tokens


def ragged(lengths):
    """Tokens of examples given as lists of window lengths; ids count up from 1."""
    flat = [length for windows in lengths for length in windows]
    return Tokens(
        np.arange(1, sum(flat) + 1, dtype=np.int32),
        np.cumsum([0, *flat]).astype(np.int32),
        np.repeat(np.arange(len(lengths)), [len(windows) for windows in lengths]).astype(np.int32),
    )


def labels_of(count):
    """Labels that identify an example: its number in binary, and the complement."""
    bits = np.array([[number >> bit & 1 for bit in range(8)] for number in range(count)])
    return bits.astype(np.float32), (1 - bits).astype(np.float32)


@st.composite
def problems(draw):
    shape = Shape(*(draw(st.integers(1, high)) for high in (4, 12, 7)))
    windows = st.lists(st.integers(1, shape.length), min_size=1, max_size=shape.rows)
    lengths = draw(st.lists(windows, min_size=1, max_size=20))
    order = draw(st.lists(st.integers(0, len(lengths) - 1), max_size=40))
    return ragged(lengths), order, shape


def batches(tokens, order, shape):
    labels, known = labels_of(int(tokens.example_index[-1]) + 1)
    for placement in plan(tokens, order, shape):
        yield placement, fill(tokens, labels, known, placement, shape)


@settings(deadline=None)
@given(problems())
def test_every_draw_is_packed_once(problem):
    tokens, order, shape = problem
    placed = [placement.examples.tolist() for placement in plan(tokens, iter(order), shape)]
    assert Counter(chain.from_iterable(placed)) == Counter(order)
    assert all(0 < len(examples) <= shape.slots for examples in placed)


@settings(deadline=None)
@given(problems())
def test_windows_of_an_example_share_a_batch_and_do_not_overlap(problem):
    tokens, order, shape = problem
    lengths = np.diff(tokens.starts)
    for placement in plan(tokens, order, shape):
        taken = Counter()
        for window, row, column in zip(*placement[1:4], strict=True):
            assert 0 <= row < shape.rows
            assert 0 <= column <= shape.length - lengths[window]
            taken.update((row, column + step) for step in range(lengths[window]))
        assert set(taken.values()) == {1}
        for slot, example in enumerate(placement.examples):
            of_slot = placement.windows[placement.slots == slot].tolist()
            assert of_slot == np.flatnonzero(tokens.example_index == example).tolist()
        assert set(placement.slots.tolist()) == set(range(len(placement.examples)))


@settings(deadline=None)
@given(problems())
def test_a_batch_holds_each_token_with_its_position_segment_and_slot(problem):
    tokens, order, shape = problem
    labels, known = labels_of(int(tokens.example_index[-1]) + 1)
    for placement, batch in batches(tokens, order, shape):
        assert {array.shape for array in batch[:4]} == {(shape.rows, shape.length)}
        assert {array.dtype for array in batch[:4]} == {np.dtype(np.int32)}
        assert {array.dtype for array in batch[4:]} == {np.dtype(np.float32)}
        assert batch.segments.max() == len(placement.windows)
        for segment in range(1, len(placement.windows) + 1):
            rows, columns = np.nonzero(batch.segments == segment)
            (slot,) = set(batch.examples[rows, columns].tolist())
            ids = batch.ids[rows, columns].tolist()
            window = tokens.starts.tolist().index(ids[0] - 1)  # ids count up over all windows
            assert ids == tokens.ids[tokens.starts[window] : tokens.starts[window + 1]].tolist()
            assert len(set(rows.tolist())) == 1
            assert columns.tolist() == list(range(columns[0], columns[0] + len(ids)))
            assert batch.positions[rows, columns].tolist() == list(range(len(ids)))
            example = tokens.example_index[window]
            assert placement.examples[slot] == example
            assert np.array_equal(batch.labels[slot], labels[example])
            assert np.array_equal(batch.label_mask[slot], known[example])
        padding = batch.segments == 0
        assert (batch.examples[padding] == shape.slots).all()
        assert (batch.examples[~padding] < shape.slots).all()
        assert not batch.ids[padding].any()
        assert not batch.positions[padding].any()
        used = len(placement.examples)
        assert batch.weight.tolist() == [1] * used + [0] * (shape.slots - used)
        assert not batch.labels[used:].any()
        assert not batch.label_mask[used:].any()


@settings(deadline=None)
@given(problems())
def test_weights_change_the_weight_of_a_slot_alone(problem):
    tokens, order, shape = problem
    labels, known = labels_of(int(tokens.example_index[-1]) + 1)
    weights = (1 + np.arange(len(labels)) / 8).astype(np.float32)  # no two alike
    for placement in plan(tokens, order, shape):
        plain = fill(tokens, labels, known, placement, shape)
        batch = fill(tokens, labels, known, placement, shape, weights)
        empty = shape.slots - len(placement.examples)
        assert batch.weight.dtype == np.float32
        # The number in binary that a slot's labels are tells whose weight it must be.
        numbers = (batch.labels @ 2 ** np.arange(8)).astype(int)
        expected = np.where(plain.weight > 0, 1 + numbers / 8, 0)
        assert batch.weight.tolist() == expected.tolist()
        assert (batch.weight == 0).sum() == empty
        for weighted, unweighted in zip(batch[:-1], plain[:-1], strict=True):
            assert np.array_equal(weighted, unweighted)
    assert not fill(tokens, labels, known, None, shape, weights).weight.any()


def test_no_placement_is_a_batch_of_padding():
    tokens, shape = ragged([[3]]), Shape(2, 5, 4)
    batch = fill(tokens, *labels_of(1), None, shape)
    full = fill(tokens, *labels_of(1), next(plan(tokens, [0], shape)), shape)
    assert [(part.shape, part.dtype) for part in batch] == [(p.shape, p.dtype) for p in full]
    assert (batch.examples == shape.slots).all()
    for name in set(batch._fields) - {"examples"}:
        assert not getattr(batch, name).any(), name


@settings(deadline=None)
@given(problems())
def test_at_most_as_many_examples_wait_as_there_are_rows(problem):
    tokens, _, shape = problem
    count = int(tokens.example_index[-1]) + 1
    placed = np.zeros(count, bool)
    for placement in plan(tokens, range(count), shape):
        overdue = np.flatnonzero(~placed)
        placed[placement.examples] = True
        assert placed[overdue[0]]  # the example that waited longest
        last = placement.examples.max()
        assert (~placed[:last]).sum() <= shape.rows


def test_an_example_that_does_not_fit_starts_the_next_batch():
    tokens = ragged([[4], [3], [4], [1], [2]])
    assert [p.examples.tolist() for p in plan(tokens, range(5), Shape(1, 5, 9))] == [
        [0],
        [1],
        [2, 3],
        [4],
    ]
    wide = [p.examples.tolist() for p in plan(tokens, range(5), Shape(2, 5, 9))]
    assert wide == [[0, 1, 3, 4], [2]]


def test_an_example_that_does_not_fit_leaves_no_gap():
    tokens = ragged([[4], [4, 4], [5]])
    placed = [p.examples.tolist() for p in plan(tokens, range(3), Shape(2, 5, 9))]
    assert placed == [[0, 2], [1]]


def test_slots_end_a_batch_too():
    tokens = ragged([[1]] * 7)
    sizes = [len(placement.examples) for placement in plan(tokens, range(7), Shape(2, 50, 3))]
    assert sizes == [3, 3, 1]


@pytest.fixture(scope="module")
def emotions():
    """Texts as long as those of GoEmotions: 19 tokens on average, 95 % at most 34, none over 60."""
    drawn = np.random.default_rng(0).gamma(5.2, 3.65, 6000).round().clip(3, 60).astype(int)
    assert round(drawn.mean()) == 19
    assert np.quantile(drawn, 0.95) == 34
    return ragged([[length] for length in drawn.tolist()])


def test_rows_are_95_percent_full_on_texts_like_those_of_goemotions(emotions):
    shape = training_shape(emotions, 32, 64)
    assert shape == (10, 64, 64)
    order = np.random.default_rng(1).permutation(6000).tolist()
    placements = list(plan(emotions, order, shape))
    lengths = np.diff(emotions.starts)
    full = [lengths[placement.windows].sum() / (10 * 64) for placement in placements[:-1]]
    assert np.mean(full) >= 0.95
    sizes = [len(placement.examples) for placement in placements[:-1]]
    assert 31 <= np.mean(sizes) <= 33  # a batch holds `batch_size` examples on average
    assert max(sizes) < shape.slots  # rows, not slots, end a batch
    rank = {example: index for index, example in enumerate(order)}
    moved = np.concatenate([[rank[e] for e in p.examples.tolist()] for p in placements])
    assert np.abs(moved - np.arange(6000)).max() <= 32  # none moves further than a batch


def test_the_training_shape_has_room_for_the_average_and_for_the_longest():
    assert training_shape(ragged([[10]] * 9 + [[30]]), 8, 16) == (6, 16, 16)  # 8 * 12 / 16
    assert training_shape(ragged([[16, 16, 5]] + [[1]] * 100), 2, 16) == (3, 16, 4)
    assert training_shape(ragged([[1]]), 1, 64) == (1, 64, 2)
    assert most_windows(ragged([[1], [1, 1, 1], [1, 1]])) == 3


def test_no_examples_are_no_batches():
    nothing = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0, np.int32))
    assert list(plan(ragged([[3]]), [], Shape(2, 5, 4))) == []
    assert list(plan(nothing, [], Shape(2, 5, 4))) == []
    assert most_windows(nothing) == 1
    blank = np.zeros((0, 2), np.float32)
    assert not fill(nothing, blank, blank, None, Shape(2, 5, 4)).weight.any()


@settings(deadline=None)
@given(problems())
def test_a_plan_is_a_function_of_its_arguments(problem):
    tokens, order, shape = problem
    before = [part.copy() for part in tokens]
    first, second = (list(batches(tokens, order, shape)) for _ in range(2))
    assert len(first) == len(second)
    for once, again in zip(first, second, strict=True):
        for expected, array in zip(once[0] + once[1], again[0] + again[1], strict=True):
            assert np.array_equal(array, expected)
    assert all(np.array_equal(*pair) for pair in zip(before, tokens, strict=True))
