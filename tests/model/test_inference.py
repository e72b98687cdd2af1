"""The order of prediction packs batches densely."""

import numpy as np
import pytest

from jaxclf.model.inference import length_balanced_order, prediction_shape
from jaxclf.text.packing import plan
from jaxclf.types import Tokens, Windows


def make_tokens(lengths):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return Tokens(
        np.zeros(lengths.sum(), np.int32), starts, np.arange(len(lengths), dtype=np.int32)
    )


@pytest.mark.parametrize("length", [64, 128])
def test_the_order_needs_the_fewest_batches(length):
    """For lengths like those of GoEmotions: 19 tokens on average, a few long texts."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(2.8, 0.55, 2000), 3, length).astype(np.int32)
    tokens, shape = make_tokens(lengths), prediction_shape(Windows(length, 6, 0))
    order = length_balanced_order(tokens, shape)
    assert sorted(order) == list(range(len(lengths)))
    by_length = np.argsort(-lengths).tolist()
    batches, in_order, longest_first = (
        len(list(plan(tokens, indices, shape))) for indices in (order, range(2000), by_length)
    )
    assert batches == np.ceil(lengths.sum() / (shape.rows * shape.length))
    assert batches < in_order < longest_first


def test_texts_of_one_word_fill_the_slots():
    tokens, shape = make_tokens(np.full(3000, 3, np.int32)), prediction_shape(Windows(64, 1, 0))
    batches = len(list(plan(tokens, length_balanced_order(tokens, shape), shape)))
    assert batches == -(-3000 // shape.slots)
    assert length_balanced_order(make_tokens(np.zeros(0, np.int32)), shape) == []
