"""Predict probabilities of tokenized texts in packed batches."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from jaxclf.signals import raise_if_stopped
from jaxclf.text.packing import example_count, fill, most_windows, plan
from jaxclf.text.tokenizer.tokenize import lengths
from jaxclf.types import Batch, Shape, Tokens, Windows

# 2,048 tokens a batch saturate the cores of a laptop.
TOKENS, TOKENS_PER_SLOT = 2048, 8


class Scored(NamedTuple):
    """The probabilities of one batch, and the examples that the rows belong to."""

    examples: np.ndarray
    probs: Float32[np.ndarray, "examples classes"]


def prediction_shape(windows: Windows, tokens: int = TOKENS) -> Shape:
    """The shape of all batches of about so many tokens, with enough rows for the longest text."""
    length = windows.max_length
    rows = max(tokens // length, windows.max_windows)
    return Shape(rows, length, max(rows * length // TOKENS_PER_SLOT, 1))


def make_predict_step(
    apply: Callable[..., Array],
) -> Callable[[dict, Batch], Float[Array, "slots classes"]]:
    """Compile (params, batch) -> probabilities."""
    return jax.jit(lambda params, batch: jax.nn.sigmoid(apply(params, batch)))


def score(
    predict_step: Callable[[dict, Batch], Array],
    params: dict,
    tokens: Tokens,
    shape: Shape,
    classes: int,
) -> Iterator[Scored]:
    """Predict every example once, batch by batch, in any order."""
    assert most_windows(tokens) <= shape.rows
    count = example_count(tokens)
    blank = np.zeros((count, classes), np.float32)
    for placement in plan(tokens, length_balanced_order(tokens, shape), shape):
        raise_if_stopped()
        probs = predict_step(params, fill(tokens, blank, blank, placement, shape))
        yield Scored(placement.examples, np.asarray(probs)[: len(placement.examples)])


def length_balanced_order(tokens: Tokens, shape: Shape) -> list[int]:
    """Interleave long and short examples so that every batch packs densely.

    Batches of long examples alone would leave gaps in rows, batches of short ones would run out of
    slots.
    """
    sizes = lengths(tokens)
    batches = math.ceil(sizes.sum() / (shape.rows * shape.length))
    longest_first = np.argsort(-sizes, kind="stable")
    return [int(index) for batch in range(batches) for index in longest_first[batch::batches]]


def gather(scored: Iterator[Scored], count: int, classes: int) -> Float32[np.ndarray, "n classes"]:
    """Collect probabilities in input order. Every example must be in one batch."""
    probs, is_scored = np.zeros((count, classes), np.float32), np.zeros(count, bool)
    for batch in scored:
        probs[batch.examples], is_scored[batch.examples] = batch.probs, True
    assert is_scored.all()
    return probs
