"""The predict step: packed batches -> probabilities, for training's evaluation and for serving."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from jaxclf.text.packing import example_count, fill, most_windows, plan
from jaxclf.text.tokenizer.tokenize import lengths
from jaxclf.types import Batch, Shape, Tokens, Windows

# About 2,000 tokens saturate the cores of a laptop; short texts may then fill the slots.
TOKENS, TOKENS_PER_SLOT = 2048, 8


class Scored(NamedTuple):
    """One batch's answers: rows of the examples it held."""

    examples: np.ndarray
    probs: Float32[np.ndarray, "examples classes"]


def prediction_shape(windows: Windows) -> Shape:
    """One shape for all prediction; rows enough for the longest text."""
    length = windows.max_length
    rows = max(TOKENS // length, windows.max_windows)
    return Shape(rows, length, max(rows * length // TOKENS_PER_SLOT, 1))


def make_predict_step(
    apply: Callable[..., Array],
) -> Callable[[dict, Batch], Float[Array, "slots classes"]]:
    """(params, batch) -> probabilities."""
    return jax.jit(lambda params, batch: jax.nn.sigmoid(apply(params, batch)))


def score(
    predict_step: Callable[[dict, Batch], Array],
    params: dict,
    tokens: Tokens,
    shape: Shape,
    classes: int,
) -> Iterator[Scored]:
    """Every example once, a batch at a time, in no promised order."""
    assert most_windows(tokens) <= shape.rows
    count = example_count(tokens)
    blank = np.zeros((count, classes), np.float32)
    for placement in plan(tokens, length_balanced_order(tokens, shape), shape):
        probs = predict_step(params, fill(tokens, blank, blank, placement, shape))
        yield Scored(placement.examples, np.asarray(probs)[: len(placement.examples)])


def length_balanced_order(tokens: Tokens, shape: Shape) -> list[int]:
    """The order in which `plan` fills rows best: every batch is dealt its share of long and of
    short examples, the longest first.

    Sorted alone, the long ones would leave gaps that only short ones fill, and the short ones run
    out of slots.
    """
    sizes = lengths(tokens)
    batches = math.ceil(sizes.sum() / (shape.rows * shape.length))
    longest_first = np.argsort(-sizes, kind="stable")
    return [int(one) for batch in range(batches) for one in longest_first[batch::batches]]


def gather(scored: Iterator[Scored], count: int, classes: int) -> Float32[np.ndarray, "n classes"]:
    """Probabilities in input order; every row must have come."""
    probs, came = np.zeros((count, classes), np.float32), np.zeros(count, bool)
    for part in scored:
        probs[part.examples], came[part.examples] = part.probs, True
    assert came.all()
    return probs
