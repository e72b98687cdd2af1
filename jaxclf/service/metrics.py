"""What the service counts of itself, for Prometheus. No label's value comes from a request."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jax import monitoring
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from jaxclf.service.batcher import Queue, Step

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SHARES = tuple(tenths / 10 for tenths in range(1, 11))
COMPILED = "/jax/core/compile/backend_compile_duration"


class Metrics(NamedTuple):
    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    texts: Counter
    tokens: Counter
    fill: Histogram
    step_seconds: Histogram
    compilations: Counter


def make_metrics() -> Metrics:
    """A registry of its own, with what the process uses."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return Metrics(
        registry,
        Counter(
            "jaxclf_requests",
            "Requests by path and status; 499: the client left",
            ("path", "code"),
            registry=registry,
        ),
        Histogram(
            "jaxclf_request_seconds",
            "From a request's headers to its answer",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        ),
        Counter("jaxclf_texts", "Texts answered", registry=registry),
        Counter("jaxclf_tokens", "Tokens of texts answered", registry=registry),
        Histogram(
            "jaxclf_batch_fill",
            "Share of a batch's places that held a token",
            buckets=SHARES,
            registry=registry,
        ),
        Histogram("jaxclf_step_seconds", "What a batch took", buckets=SECONDS, registry=registry),
        Counter("jaxclf_compilations", "Programs compiled", registry=registry),
    )


def show(metrics: Metrics, queue: Queue, accepted: Callable[[], int]) -> None:
    """Show what a queue holds, and how many requests wait for their answer."""
    requests = Gauge("jaxclf_accepted", "Requests not yet answered", registry=metrics.registry)
    requests.set_function(accepted)
    tokens = Gauge("jaxclf_queue_tokens", "Tokens that wait", registry=metrics.registry)
    tokens.set_function(lambda: queue.tokens)
    bound = Gauge("jaxclf_queue_bound_tokens", "Most that may", registry=metrics.registry)
    bound.set(queue.bound)


def count_step(metrics: Metrics, step: Step) -> None:
    metrics.texts.inc(step.texts)
    metrics.tokens.inc(step.tokens)
    metrics.fill.observe(step.fill)
    metrics.step_seconds.observe(step.seconds)


@contextmanager
def counted_compilations(metrics: Metrics) -> Iterator[None]:
    """Count every program that jax compiles meanwhile."""

    def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED:
            metrics.compilations.inc()

    monitoring.register_event_duration_secs_listener(heard)
    try:
        yield
    finally:
        monitoring.unregister_event_duration_listener(heard)
