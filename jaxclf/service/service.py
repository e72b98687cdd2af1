"""A classifier at work for many who ask at once: warmed up, asked, drained."""

import asyncio
import functools
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.classifier import Classifier
from jaxclf.service.batcher import (
    Queue,
    Ticket,
    answers,
    close,
    expected_tokens,
    reserve,
    work,
)
from jaxclf.service.metrics import (
    Metrics,
    count_step,
    counted_compilations,
    make_metrics,
    show,
)
from jaxclf.service.requests import RefusedError
from jaxclf.service.responses import explain, explain_cost, model_of, warm

WARMING, READY, DRAINING = "warming", "ready", "draining"
LONG_EXPLANATIONS = 4  # may wait at once, however many tokens they count for
RETRY_AFTER = 5  # seconds after which a service that is not ready, or another in its place, may be


Gone = Callable[[], Coroutine[Any, Any, None]]


class ClientDisconnectedError(Exception):
    """Who asked has left."""


@dataclass(eq=False)
class Service:
    """name: of the model. deadline: seconds that an answer may take once its request was read.

    accepted: requests that wait for their answer; quiet: set when the last of them has it.
    explaining: a thread of its own, so that labels do not wait for explanations.
    started: set once `running` is entered. warming: the task that compiles all there is.
    """

    classifier: Classifier
    name: str
    queue: Queue
    deadline: float
    metrics: Metrics
    status: str = WARMING
    accepted: int = 0
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    warming: asyncio.Task[None] | None = None
    explaining: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "explain"))


def make_service(classifier: Classifier, name: str, bound: int, deadline: float) -> Service:
    """bound: tokens that may wait. Raises ConfigError where no text of the longest could."""
    model = model_of(classifier)
    if bound < model.longest:
        reason = f"--max-queue-tokens {bound}: must be at least {model.longest}, the most of a text"
        raise ConfigError(reason)
    metrics = make_metrics()
    queue = Queue(model, bound, functools.partial(count_step, metrics))
    service = Service(classifier, name, queue, deadline, metrics)
    show(metrics, queue, lambda: service.accepted)
    return service


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """The worker runs meanwhile; it begins with compiling all that it needs."""
    worker = asyncio.create_task(work(service.queue))
    with counted_compilations(service.metrics):
        service.warming = asyncio.create_task(_warm(service))
        service.started.set()
        try:
            yield
        finally:
            worker.cancel()
            service.warming.cancel()
            close(service.queue)
            service.explaining.shutdown(wait=False, cancel_futures=True)


async def label(service: Service, texts: Sequence[str], gone: Gone) -> list[dict[str, Any]]:
    """A result for each text, in order.

    gone: comes back when who asked has left; the texts leave the queue then.
    Raises RefusedError (503, 504), FullError, TooLargeError, GoneError.
    """
    with _accepted(service, texts, expected_tokens(service.queue, texts)) as own:
        return await _in_time(service, answers(service.queue, own), gone)


async def account(service: Service, text: str, gone: Gone) -> dict[str, Any]:
    """What carried the labels of a text; else as `label`, and RefusedError (422) for a model that
    cannot be explained."""
    queue = service.queue
    tokens = explain_cost(service.classifier) * expected_tokens(queue, [text])
    explained = functools.partial(explain, service.classifier, text)
    with _accepted(service, [text], min(tokens, queue.bound // LONG_EXPLANATIONS)):
        try:
            return await _in_time(service, _in_thread(service.explaining, explained), gone)
        except DataError as error:
            raise RefusedError(422, str(error)) from None


def check_ready(service: Service) -> None:
    """Raises RefusedError (503) where it is not."""
    if service.status != READY:
        why = {WARMING: "warms up", DRAINING: "is being shut down"}[service.status]
        raise RefusedError(503, f"the service {why}; ask again", RETRY_AFTER)


async def drain(service: Service) -> None:
    """Accept nothing more; return when all that was accepted is answered."""
    service.status = DRAINING
    while service.accepted:
        service.quiet.clear()
        await service.quiet.wait()


async def _warm(service: Service) -> None:
    compiled = functools.partial(warm, service.classifier)
    service.queue.seconds = await _in_thread(service.queue.stepping, compiled)
    # What there is now stays: not to be gone through again while somebody waits.
    gc.collect()
    gc.freeze()
    service.status = READY


@contextmanager
def _accepted(service: Service, texts: Sequence[str], tokens: int) -> Iterator[Ticket]:
    check_ready(service)
    with reserve(service.queue, texts, tokens) as own:
        service.accepted += 1
        try:
            yield own
        finally:
            service.accepted -= 1
            if not service.accepted:
                service.quiet.set()


async def _in_thread(executor: Executor, function: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(executor, function)


async def _in_time(service: Service, answer: Coroutine, gone: Gone) -> Any:
    wanted, left = asyncio.create_task(answer), asyncio.create_task(gone())
    try:
        await asyncio.wait({wanted, left}, timeout=service.deadline, return_when="FIRST_COMPLETED")
        if wanted.done():
            return wanted.result()
        if left.done():
            raise ClientDisconnectedError
        reason = f"no answer within {service.deadline:g} seconds; ask again, with fewer texts"
        raise RefusedError(504, reason)
    finally:
        wanted.cancel()
        left.cancel()
