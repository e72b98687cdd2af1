"""A classifier that serves many clients at once: warmed up, asked, drained."""

import asyncio
import functools
import gc
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.classifier import Classifier
from jaxclf.service import batcher
from jaxclf.service.batcher import Queue, Ticket
from jaxclf.service.metrics import (
    Metrics,
    add_queue_gauges,
    count_batch,
    count_compilations,
    make_metrics,
)
from jaxclf.service.requests import RefusedError
from jaxclf.service.responses import explain, explain_cost, make_batch_model, warm_up
from jaxclf.text.tokenizer.tokenize import is_cut

WARMING, READY, DRAINING = "warming", "ready", "draining"
MAX_EXPLANATIONS = 4  # that wait at once, however many tokens they count for
RETRY_AFTER = 5  # seconds after which a service that is not ready may be

Disconnected = Callable[[], Coroutine[Any, Any, None]]


class ClientDisconnectedError(Exception):
    """The client disconnected before its response."""


@dataclass(eq=False)
class Service:
    """A model that is served; predictions do not wait for the thread of explanations."""

    classifier: Classifier
    name: str  # of the model
    queue: Queue
    request_timeout: float  # seconds from a request's body to its response
    metrics: Metrics
    status: str = WARMING
    accepted: int = 0  # requests that wait for their response
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # set when the last has it
    started: asyncio.Event = field(default_factory=asyncio.Event)  # set inside `running`
    warming: asyncio.Task[None] | None = None  # compiles all programs
    explaining: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "explain"))


def make_service(
    classifier: Classifier, name: str, max_queue_tokens: int, request_timeout: float
) -> Service:
    """Raises ConfigError where the queue has no room for the longest text."""
    model = make_batch_model(classifier)
    if max_queue_tokens < model.max_text_tokens:
        raise ConfigError(
            f"--max-queue-tokens {max_queue_tokens}: must be at least {model.max_text_tokens}, "
            "the most tokens of a text"
        )
    metrics = make_metrics()
    queue = Queue(model, max_queue_tokens, functools.partial(count_batch, metrics))
    service = Service(classifier, name, queue, request_timeout, metrics)
    add_queue_gauges(metrics, queue, lambda: service.accepted)
    return service


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """Run the queue's worker inside the block. Warm-up starts at once."""
    worker = asyncio.create_task(batcher.run_forever(service.queue))
    with count_compilations(service.metrics):
        service.warming = asyncio.create_task(_warm_up(service))
        service.started.set()
        try:
            yield
        finally:
            worker.cancel()
            service.warming.cancel()
            batcher.close(service.queue)
            service.explaining.shutdown(wait=False, cancel_futures=True)


async def predict_texts(
    service: Service, texts: Sequence[str], disconnected: Disconnected
) -> list[dict[str, Any]]:
    """A result for each text, in order.

    disconnected: returns when the client has disconnected; the texts leave the queue then.
    Raises RefusedError (503, 504), QueueFullError, TooLargeError, ClientDisconnectedError.
    """
    with _accept(service, texts, batcher.estimate_tokens(service.queue, texts)) as ticket:
        return await _in_time(service, _predict(service, ticket), disconnected)


async def _predict(service: Service, ticket: Ticket) -> list[dict[str, Any]]:
    """The results of a ticket, each with whether its text is cut."""
    results = await batcher.get_results(service.queue, ticket)
    first = service.classifier.groups[0]
    windows = first.experiment.data.windows
    # A text that is cut fills its last window; mostly none does, and none is tokenized again.
    is_full = [
        len(lengths) == windows.max_windows and lengths[-1] == windows.max_length
        for lengths in ticket.windows
    ]
    texts = list(itertools.compress(ticket.texts, is_full))
    call = functools.partial(is_cut, first.tokenizer, texts, windows)
    cut = iter(await _in_thread(service.queue.tokenizing, call) if texts else ())
    return [
        result | {"cut": full and bool(next(cut))}
        for result, full in zip(results, is_full, strict=True)
    ]


async def explain_text(service: Service, text: str, disconnected: Disconnected) -> dict[str, Any]:
    """The attributions of a text's words.

    Raises as `predict_texts`, and RefusedError (422) for a model that cannot be explained.
    """
    queue = service.queue
    tokens = explain_cost(service.classifier) * batcher.estimate_tokens(queue, [text])
    call = functools.partial(explain, service.classifier, text)
    with _accept(service, [text], min(tokens, queue.max_tokens // MAX_EXPLANATIONS)):
        try:
            return await _in_time(service, _in_thread(service.explaining, call), disconnected)
        except DataError as error:
            raise RefusedError(422, str(error)) from None


def check_ready(service: Service) -> None:
    """Raises RefusedError (503) where the service is not ready."""
    if service.status != READY:
        state = {WARMING: "is warming up", DRAINING: "is shutting down"}[service.status]
        raise RefusedError(503, f"the service {state}; ask again", RETRY_AFTER)


async def drain(service: Service) -> None:
    """Accept nothing more; return when every accepted request is answered."""
    service.status = DRAINING
    while service.accepted:
        service.idle.clear()
        await service.idle.wait()


async def _warm_up(service: Service) -> None:
    call = functools.partial(warm_up, service.classifier)
    service.queue.seconds = await _in_thread(service.queue.predicting, call)
    # The objects of now live as long as the service: spare later collections from visiting them.
    gc.collect()
    gc.freeze()
    service.status = READY


@contextmanager
def _accept(service: Service, texts: Sequence[str], tokens: int) -> Iterator[Ticket]:
    check_ready(service)
    with batcher.reserve(service.queue, texts, tokens) as ticket:
        service.accepted += 1
        try:
            yield ticket
        finally:
            service.accepted -= 1
            if not service.accepted:
                service.idle.set()


async def _in_thread(executor: Executor, function: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(executor, function)


async def _in_time(service: Service, response: Coroutine, disconnected: Disconnected) -> Any:
    result, leaving = asyncio.create_task(response), asyncio.create_task(disconnected())
    try:
        await asyncio.wait(
            {result, leaving}, timeout=service.request_timeout, return_when="FIRST_COMPLETED"
        )
        if result.done():
            return result.result()
        if leaving.done():
            raise ClientDisconnectedError
        reason = f"no result within {service.request_timeout:g} seconds; ask again with fewer texts"
        raise RefusedError(504, reason)
    finally:
        result.cancel()
        leaving.cancel()
