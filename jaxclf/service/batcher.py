"""One queue for all requests, bounded in tokens, and one worker that packs waiting texts into
batches.

Everything runs on one event loop; threads tokenize texts and run the model. The queue knows nothing
of models: it is constructed with functions of texts.
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

GATHER_SECONDS = 0.005  # a batch with room waits this long for further requests
BYTES_PER_TOKEN = 3  # of a text that is not tokenized yet: English has 4 to 5, Chinese 3
NEWEST_WEIGHT = 0.1  # of the newest batch in the running mean of a batch's seconds


class QueueFullError(Exception):
    """The queue has no room. retry_after: seconds after which it should have."""

    def __init__(self, retry_after: int):
        super().__init__(retry_after)
        self.retry_after = retry_after


class TooLargeError(Exception):
    """More tokens at once than the queue ever holds."""


class BatchModel(NamedTuple):
    """What the queue must know of a model. Its functions are called from threads."""

    shape: Shape  # of a batch
    max_text_tokens: int  # most tokens that are read of a text
    count_tokens: Callable[[Sequence[str]], list[list[int]]]  # in each window of each text
    predict: Callable[[Sequence[str]], Sequence[Any]]  # the texts of a batch -> a result for each


class BatchStats(NamedTuple):
    """A batch that ran."""

    texts: int
    tokens: int
    packing_efficiency: float  # share of its positions that held a token
    seconds: float


@dataclass(eq=False)
class Ticket:
    """A request in the queue."""

    texts: Sequence[str]
    done: asyncio.Future[Any]  # set with the results
    tokens: int = 0  # that it holds of the queue
    windows: list[list[int]] = field(default_factory=list)  # tokens in each window of each text
    remaining: list[int] = field(default_factory=list)  # indices of texts that no batch took yet
    results: dict[int, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Queue:
    """Tickets with texts that no batch has taken, in order of their turn, and the threads."""

    model: BatchModel
    max_tokens: int  # that all tickets together may hold
    on_batch: Callable[[BatchStats], None]  # called after every batch
    tokens: int = 0  # that the tickets hold now
    seconds: float = 0.0  # what a batch takes; 0 until one has run
    waiting: dict[Ticket, None] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    tokenizing: Executor = field(default_factory=lambda: ThreadPoolExecutor(2, "tokenize"))
    predicting: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "predict"))


def estimate_tokens(queue: Queue, texts: Sequence[str]) -> int:
    """The number of tokens of texts that are not tokenized yet, by their size."""
    sizes = (len(text.encode()) // BYTES_PER_TOKEN + 2 for text in texts)
    return sum(min(size, queue.model.max_text_tokens) for size in sizes)


@contextmanager
def reserve(queue: Queue, texts: Sequence[str], tokens: int) -> Iterator[Ticket]:
    """A ticket for texts of so many tokens; nothing of it remains in the queue after the block.

    Raises QueueFullError or TooLargeError at once.
    """
    ticket = Ticket(texts, asyncio.get_running_loop().create_future())
    _set_tokens(queue, ticket, tokens)
    try:
        yield ticket
    finally:
        queue.waiting.pop(ticket, None)
        _set_tokens(queue, ticket, 0)


async def get_results(queue: Queue, ticket: Ticket) -> list[Any]:
    """A result for each text of a ticket, in order.

    Raises what the model raises, and QueueFullError or TooLargeError where the texts have more
    tokens than was estimated and there is no room for them.
    """
    ticket.windows = await asyncio.get_running_loop().run_in_executor(
        queue.tokenizing, queue.model.count_tokens, ticket.texts
    )
    _set_tokens(queue, ticket, sum(map(sum, ticket.windows)))
    ticket.remaining = list(range(len(ticket.texts)))
    queue.waiting[ticket] = None
    queue.arrived.set()
    return await ticket.done


async def run_forever(queue: Queue) -> None:
    """Run batches until cancelled."""
    while True:
        if not queue.waiting:
            queue.arrived.clear()
            await queue.arrived.wait()
        if sum(ticket.tokens for ticket in queue.waiting) < _capacity(queue):
            await asyncio.sleep(GATHER_SECONDS)
        if queue.waiting:  # the clients may have disconnected meanwhile
            await _run_batch(queue, next_batch(queue))


def next_batch(queue: Queue) -> list[tuple[Ticket, int]]:
    """Take texts that fill one batch out of the queue: (ticket, index of the text).

    Round-robin over tickets, so that large requests do not starve small ones.
    """
    shape = queue.model.shape
    candidates = list(islice(_round_robin(queue), shape.slots + shape.rows))
    windows = [ticket.windows[index] for ticket, index in candidates]
    lengths = [length for text in windows for length in text]
    tokens = Tokens(
        np.zeros(sum(lengths), np.int32),  # packing depends on lengths alone
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        np.repeat(np.arange(len(windows)), [len(text) for text in windows]).astype(np.int32),
    )
    packed = sorted(next(plan(tokens, range(len(windows)), shape)).examples.tolist())
    batch = [candidates[index] for index in packed]
    for ticket, index in batch:
        ticket.remaining.remove(index)
        _set_tokens(queue, ticket, ticket.tokens - sum(ticket.windows[index]))
    for ticket in dict.fromkeys(ticket for ticket, _ in batch):
        queue.waiting.pop(ticket)
        if ticket.remaining:
            queue.waiting[ticket] = None
    return batch


def close(queue: Queue) -> None:
    """Let the threads end, without waiting for the work that runs in them."""
    queue.tokenizing.shutdown(wait=False, cancel_futures=True)
    queue.predicting.shutdown(wait=False, cancel_futures=True)


def _round_robin(queue: Queue) -> Iterator[tuple[Ticket, int]]:
    """The first remaining text of every ticket, then the second of every ticket that has one, …"""
    turn, tickets = 0, list(queue.waiting)
    while tickets:
        yield from ((ticket, ticket.remaining[turn]) for ticket in tickets)
        turn += 1
        tickets = [ticket for ticket in tickets if len(ticket.remaining) > turn]


def _capacity(queue: Queue) -> int:
    return queue.model.shape.rows * queue.model.shape.length


def _set_tokens(queue: Queue, ticket: Ticket, tokens: int) -> None:
    """Change how many tokens a ticket holds; fewer always fit."""
    added = tokens - ticket.tokens
    if added > 0 and tokens > queue.max_tokens:
        raise TooLargeError
    if added > 0 and queue.tokens + added > queue.max_tokens:
        batches = queue.tokens / _capacity(queue)
        raise QueueFullError(max(1, math.ceil(batches * queue.seconds)))
    queue.tokens += added
    ticket.tokens = tokens


async def _run_batch(queue: Queue, batch: list[tuple[Ticket, int]]) -> None:
    texts = [ticket.texts[index] for ticket, index in batch]
    start = time.perf_counter()
    run = asyncio.get_running_loop().run_in_executor(queue.predicting, queue.model.predict, texts)
    await asyncio.wait([run])  # does not raise: no request's error ends the worker
    if error := run.exception():
        for ticket, _ in batch:
            if not ticket.done.done():
                ticket.done.set_exception(error)
        return
    seconds = time.perf_counter() - start
    queue.seconds += (NEWEST_WEIGHT if queue.seconds else 1) * (seconds - queue.seconds)
    for (ticket, index), result in zip(batch, run.result(), strict=True):
        ticket.results[index] = result
        if len(ticket.results) == len(ticket.texts) and not ticket.done.done():
            ticket.done.set_result([ticket.results[i] for i in range(len(ticket.texts))])
    tokens = sum(sum(ticket.windows[index]) for ticket, index in batch)
    queue.on_batch(BatchStats(len(texts), tokens, tokens / _capacity(queue), seconds))
