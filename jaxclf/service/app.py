"""The HTTP application: labels, explanations, health, metrics, documentation and a page."""

import asyncio
import functools
import logging
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import prometheus_client
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxclf import __version__
from jaxclf.service.batcher import QueueFullError, TooLargeError
from jaxclf.service.openapi import (
    ALIVE,
    EXPLANATION,
    MANY,
    ONE,
    PREDICTION,
    READY,
    docs,
    gives,
    takes,
)
from jaxclf.service.requests import RefusedError, parse_texts, read_json, text_of
from jaxclf.service.service import (
    ClientDisconnectedError,
    Service,
    account,
    check_ready,
    label,
    running,
)

LOG = logging.getLogger("uvicorn.error")
GONE = 499  # the status that is counted where nobody was left to be answered
PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# What pages show and are given goes nowhere else, and no other page frames them.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def make_app(service: Service) -> FastAPI:
    """The application of one service, which it starts and ends with its own life."""

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        async with running(service):
            yield

    app = FastAPI(
        title="jaxclf",
        version=__version__,
        docs_url=None,  # FastAPI's come from a network
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    for error in (RefusedError, QueueFullError, TooLargeError, HTTPException):
        app.add_exception_handler(error, _refuse)
    _add_inference_routes(app, service)
    _add_health_routes(app, service)
    _add_pages(app)
    app.add_middleware(metrics_middleware, service=service, paths=paths_of(app))
    return app


def paths_of(app: FastAPI) -> frozenset[str]:
    """All paths that there are."""
    return frozenset(route.path for route in app.routes if isinstance(route, Route))


def _add_inference_routes(app: FastAPI, service: Service) -> None:
    classifier = service.classifier
    thresholds = dict(zip(classifier.labels, classifier.thresholds.tolist(), strict=True))
    known = {"labels": classifier.labels, "thresholds": thresholds}
    codes = 400, 408, 413, 415, 422, 429, 500, 503, 504

    @app.post(
        "/predict",
        openapi_extra=takes(ONE, MANY),
        responses=gives(PREDICTION, "a result for each text, in order", *codes),
        response_model=None,
    )
    async def predict(request: Request) -> Response:
        """The labels of one text or of several: those whose probability reaches its threshold."""
        check_ready(service)
        texts = parse_texts(await read_json(request))
        return JSONResponse(
            known | {"results": await label(service, texts, functools.partial(_gone, request))}
        )

    @app.post(
        "/explain",
        openapi_extra=takes(ONE),
        responses=gives(EXPLANATION, "each word's part in each label", *codes),
        response_model=None,
    )
    async def explain(request: Request) -> Response:
        """Which words carried the labels of a text, by their place in it (Unicode characters)."""
        check_ready(service)
        text = text_of(await read_json(request))
        return JSONResponse(await account(service, text, functools.partial(_gone, request)))


def _add_health_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses=gives(ALIVE, "the process runs"), response_model=None)
    async def health() -> Response:
        """Whether the process runs."""
        return JSONResponse({"status": "alive"})

    @app.get("/ready", responses=gives(READY, "questions are answered", 503), response_model=None)
    async def ready() -> Response:
        """Whether questions are answered: all is compiled, and nothing is being shut down."""
        check_ready(service)
        known = {"labels": service.classifier.labels, "model": service.name}
        return JSONResponse({"status": service.status} | known)

    @app.get("/metrics", responses=_text("text/plain", "Prometheus"), response_model=None)
    async def metrics() -> Response:
        """Counts and times, in Prometheus' format."""
        content = prometheus_client.generate_latest(service.metrics.registry)
        return Response(content, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    @app.get("/docs", responses=_text("text/html", "this page"), response_model=None)
    async def documentation() -> Response:
        """What the service takes and gives, for a reader."""
        return Response(docs(app.openapi()), media_type="text/html", headers=HEADERS)

    for path in sorted(PAGE.iterdir()):
        name = "/" if path.name == "index.html" else f"/{path.name}"
        file = Response(path.read_bytes(), media_type=KINDS[path.suffix], headers=HEADERS)
        app.add_api_route(name, _always(file), include_in_schema=False, response_model=None)


def _always(response: Response) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def give() -> Response:
        return response

    return give


def _text(kind: str, what: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": what, "content": {kind: {"schema": {"type": "string"}}}}}


async def _gone(request: Request) -> None:
    """Return when the client has left; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse(_: Request, error: Exception) -> Response:
    """The answer to what is not answered. It says nothing of what was sent but its size."""
    headers = {}
    if isinstance(error, RefusedError):
        status, reason, after = error.status, error.reason, error.after
    elif isinstance(error, QueueFullError):
        status, reason, after = 429, "the queue is full; ask again later", error.seconds
    elif isinstance(error, TooLargeError):
        reason = "more tokens than the queue holds; send fewer or shorter texts at a time"
        status, after = 413, None
    else:
        assert isinstance(error, HTTPException)
        status, after, headers = error.status_code, None, dict(error.headers or {})
        reason = f"{error.detail}; see /docs"
    if after is not None:
        headers["Retry-After"] = str(after)
    if status == 408:  # what may still come is not waited for
        headers["Connection"] = "close"
    return JSONResponse({"error": reason}, status, headers)


def metrics_middleware(app: ASGIApp, service: Service, paths: frozenset[str]) -> ASGIApp:
    """Count every request and time it; what fails answers 500, and the log has the place in the
    code but not the message, which may hold a text."""
    counts = service.metrics

    async def watch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, status = time.perf_counter(), GONE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, noting)
        except (ClientDisconnect, ClientDisconnectedError):
            pass
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a tokenizer's panic is no Exception
            LOG.error("%s\n%s", type(error).__name__, _where(error))
            reason = "the service failed at this request; its log says where"
            await JSONResponse({"error": reason}, 500)(scope, receive, noting)
        finally:
            path = scope["path"] if scope["path"] in paths else "other"
            counts.requests.labels(path, str(status)).inc()
            counts.seconds.labels(path).observe(time.perf_counter() - began)

    return watch


def _where(error: BaseException) -> str:
    return "".join(traceback.format_tb(error.__traceback__))
