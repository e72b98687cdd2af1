"""The service's metrics for Prometheus. No value of a metric's label comes from a request."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jax import monitoring
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from jaxclf.service.batcher import BatchStats, Queue

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
FRACTIONS = tuple(tenths / 10 for tenths in range(1, 11))
COMPILED = "/jax/core/compile/backend_compile_duration"


class Metrics(NamedTuple):
    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    texts: Counter
    tokens: Counter
    packing_efficiency: Histogram
    step_seconds: Histogram
    compilations: Counter
    dropped: Counter


def make_metrics() -> Metrics:
    """Metrics in a registry of their own, with the memory and CPU time of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    counter = functools.partial(Counter, namespace="jaxclf", registry=registry)
    histogram = functools.partial(Histogram, namespace="jaxclf", registry=registry)
    by_status = "Requests by path and status; 499: the client disconnected"
    held = "Share of a batch's positions that held a token"
    return Metrics(
        registry,
        counter("requests", by_status, ["path", "code"]),
        histogram(
            "request_seconds", "From a request's headers to its response", ["path"], buckets=SECONDS
        ),
        counter("texts", "Texts answered"),
        counter("tokens", "Tokens of texts answered"),
        histogram("packing_efficiency", held, buckets=FRACTIONS),
        histogram("step_seconds", "Duration of a batch", buckets=SECONDS),
        counter("compilations", "Programs compiled"),
        counter(
            "dropped_connections",
            "Connections closed while the client was to act: for its time, or to make room",
            ["reason"],
        ),
    )


def add_queue_gauges(metrics: Metrics, queue: Queue, accepted: Callable[[], int]) -> None:
    """Show the tokens in a queue and the number of accepted requests without a response."""
    gauge = functools.partial(Gauge, namespace="jaxclf", registry=metrics.registry)
    gauge("accepted", "Requests not yet answered").set_function(accepted)
    gauge("queue_tokens", "Tokens in the queue").set_function(lambda: queue.tokens)
    gauge("queue_bound_tokens", "Most tokens in the queue").set(queue.max_tokens)


def count_batch(metrics: Metrics, batch: BatchStats) -> None:
    metrics.texts.inc(batch.texts)
    metrics.tokens.inc(batch.tokens)
    metrics.packing_efficiency.observe(batch.packing_efficiency)
    metrics.step_seconds.observe(batch.seconds)


@contextmanager
def count_compilations(metrics: Metrics) -> Iterator[None]:
    """Count every program that jax compiles inside the block."""

    def count(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED:
            metrics.compilations.inc()

    monitoring.register_event_duration_secs_listener(count)
    try:
        yield
    finally:
        monitoring.unregister_event_duration_listener(count)
