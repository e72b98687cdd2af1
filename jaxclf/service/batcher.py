"""One queue for all requests, bounded in tokens, and one worker that packs what waits into batches.

All of it runs on one event loop; beside it, threads cut texts into tokens and run the model. The
queue knows nothing of models: it is given functions of texts.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from jaxclf.text.packing import plan
from jaxclf.types import Shape, Tokens

GATHER = 0.005  # seconds that a batch with room waits for those who come together
BYTES_PER_TOKEN = 3  # of a text not yet cut: English has four to five, Chinese three
NEWEST = 0.1  # weight of the newest step in the mean of what a step takes


class QueueFullError(Exception):
    """The queue has no room now; in `seconds` it should."""

    def __init__(self, seconds: int):
        super().__init__(seconds)
        self.seconds = seconds


class TooLargeError(Exception):
    """More tokens at once than the queue ever holds."""


class Model(NamedTuple):
    """What the queue must know of a model.

    shape: of a batch. longest: most tokens that are read of a text.
    cut: texts -> for each the number of tokens in each of its windows; runs in several threads.
    answer: the texts of one batch -> an answer for each.
    """

    shape: Shape
    longest: int
    cut: Callable[[Sequence[str]], list[list[int]]]
    answer: Callable[[Sequence[str]], Sequence[Any]]


class Step(NamedTuple):
    """What one batch was. fill: share of its places that held a token."""

    texts: int
    tokens: int
    fill: float
    seconds: float


@dataclass(eq=False)
class Ticket:
    """A request's place in the queue.

    done: set with the answers. held: tokens it has in the queue. left: the texts that no batch has
    taken yet. windows: of each text, the tokens in each.
    """

    texts: Sequence[str]
    done: asyncio.Future[Any]
    held: int = 0
    windows: list[list[int]] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Queue:
    """bound: tokens that all places together may hold; tokens: those they hold.

    waiting: places with texts that no batch has taken, in order of their turn.
    tell: called after every step. seconds: what a step takes; 0 until one has run.
    """

    model: Model
    bound: int
    tell: Callable[[Step], None]
    tokens: int = 0
    seconds: float = 0.0
    waiting: dict[Ticket, None] = field(default_factory=dict)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    cutting: Executor = field(default_factory=lambda: ThreadPoolExecutor(2, "cut"))
    stepping: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "step"))


def expected_tokens(queue: Queue, texts: Sequence[str]) -> int:
    """Of texts not yet cut, by their size."""
    sizes = (len(text.encode()) // BYTES_PER_TOKEN + 2 for text in texts)
    return sum(min(size, queue.model.longest) for size in sizes)


@contextmanager
def reserve(queue: Queue, texts: Sequence[str], tokens: int) -> Iterator[Ticket]:
    """A place in the queue for texts of so many tokens; left, nothing of it remains there.

    Raises FullError or TooLargeError, at once.
    """
    own = Ticket(texts, asyncio.get_running_loop().create_future())
    _hold(queue, own, tokens)
    try:
        yield own
    finally:
        queue.waiting.pop(own, None)
        _hold(queue, own, 0)


async def answers(queue: Queue, own: Ticket) -> list[Any]:
    """An answer to each text of a place, in order.

    Raises what the model raises, and FullError or TooLargeError where the texts have more tokens
    than their size let expect and there is no room for them.
    """
    own.windows = await asyncio.get_running_loop().run_in_executor(
        queue.cutting, queue.model.cut, own.texts
    )
    _hold(queue, own, sum(map(sum, own.windows)))
    own.left = list(range(len(own.texts)))
    queue.waiting[own] = None
    queue.came.set()
    return await own.done


async def work(queue: Queue) -> None:
    """Run batches until cancelled."""
    while True:
        if not queue.waiting:
            queue.came.clear()
            await queue.came.wait()
        if sum(own.held for own in queue.waiting) < _places(queue):
            await asyncio.sleep(GATHER)
        if queue.waiting:  # still: those who waited may have gone
            await _run_batch(queue, next_batch(queue))


def next_batch(queue: Queue) -> list[tuple[Ticket, int]]:
    """Texts that fill one batch, out of the queue: of each place one in turn, so that a place with
    many texts holds up none with few."""
    shape = queue.model.shape
    offered = list(islice(_in_turn(queue), shape.slots + shape.rows))
    windows = [own.windows[index] for own, index in offered]
    lengths = [length for text in windows for length in text]
    tokens = Tokens(
        np.zeros(sum(lengths), np.int32),  # which tokens they are does not matter here
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        np.repeat(np.arange(len(windows)), [len(text) for text in windows]).astype(np.int32),
    )
    placed = sorted(next(plan(tokens, range(len(windows)), shape)).examples.tolist())
    taken = [offered[example] for example in placed]
    for own, index in taken:
        own.left.remove(index)
        _hold(queue, own, own.held - sum(own.windows[index]))
    for own in {own: None for own, _ in taken}:
        queue.waiting.pop(own)
        if own.left:
            queue.waiting[own] = None
    return taken


def close(queue: Queue) -> None:
    """Let the threads end, without waiting for what runs in them."""
    queue.cutting.shutdown(wait=False, cancel_futures=True)
    queue.stepping.shutdown(wait=False, cancel_futures=True)


def _in_turn(queue: Queue) -> Iterator[tuple[Ticket, int]]:
    """The first text left of every place, then the second of every place that has one, …"""
    turn, places = 0, list(queue.waiting)
    while places:
        yield from ((own, own.left[turn]) for own in places)
        turn += 1
        places = [own for own in places if len(own.left) > turn]


def _places(queue: Queue) -> int:
    return queue.model.shape.rows * queue.model.shape.length


def _hold(queue: Queue, own: Ticket, tokens: int) -> None:
    """Let a place hold so many tokens instead of those it holds; fewer always fit."""
    more = tokens - own.held
    if more > 0 and tokens > queue.bound:
        raise TooLargeError
    if more > 0 and queue.tokens + more > queue.bound:
        steps = queue.tokens / _places(queue)
        raise QueueFullError(max(1, math.ceil(steps * queue.seconds)))
    queue.tokens += more
    own.held = tokens


async def _run_batch(queue: Queue, batch: list[tuple[Ticket, int]]) -> None:
    texts = [own.texts[index] for own, index in batch]
    began = time.perf_counter()
    ran = asyncio.get_running_loop().run_in_executor(queue.stepping, queue.model.answer, texts)
    await asyncio.wait([ran])  # which does not raise: no request's fault ends the worker
    if error := ran.exception():
        for own, _ in batch:
            if not own.done.done():
                own.done.set_exception(error)
        return
    seconds = time.perf_counter() - began
    queue.seconds += (NEWEST if queue.seconds else 1) * (seconds - queue.seconds)
    for (own, index), answer in zip(batch, ran.result(), strict=True):
        own.answers[index] = answer
        if len(own.answers) == len(own.texts) and not own.done.done():
            own.done.set_result([own.answers[each] for each in range(len(own.texts))])
    tokens = sum(sum(own.windows[index]) for own, index in batch)
    queue.tell(Step(len(texts), tokens, tokens / _places(queue), seconds))
