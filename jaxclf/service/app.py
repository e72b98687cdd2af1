"""The HTTP application: predictions, explanations, health, metrics, documentation and a page."""

import asyncio
import functools
import importlib.metadata
import logging
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
import prometheus_client
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxclf.service import schemas
from jaxclf.service.batcher import QueueFullError, TooLargeError
from jaxclf.service.requests import MAX_BYTES, ParsedRequest, RefusedError, parse_json, read_body
from jaxclf.service.service import (
    ClientDisconnectedError,
    Service,
    check_ready,
    explain_text,
    predict_texts,
    running,
)

log = logging.getLogger(__name__)
DISCONNECTED = 499  # counted where the client did not wait for its response
PAGE, DOCS = Path(__file__).parent / "page", Path(__file__).parent / "docs.html"
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Pages send nothing elsewhere, and no page of another site frames them.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
RETRY = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
REASONS = {
    400: "the body is not JSON",
    408: "the body did not arrive in time",
    413: f"longer than {MAX_BYTES:,} bytes, or more tokens than the queue ever holds",
    415: "not application/json in UTF-8, or compressed",
    422: "JSON of another form, or a text that cannot be read",
    429: "the queue is full",
    500: "the service failed",
    503: "the service is warming up or shutting down",
    504: "no result in time",
}


def make_app(service: Service) -> FastAPI:
    """The application of a service, which runs as long as the application does."""
    app = FastAPI(
        title="jaxclf",
        version=importlib.metadata.version("jaxclf"),
        docs_url=None,  # FastAPI's load scripts from a network
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lambda _: running(service),
    )
    app.state.service = service
    for error in (RefusedError, QueueFullError, TooLargeError, HTTPException):
        app.add_exception_handler(error, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_content)
    _add_inference_routes(app, service)
    _add_health_routes(app, service)
    _add_pages(app)
    app.add_middleware(metrics_middleware, service=service, paths=paths_of(app))
    return app


def paths_of(app: FastAPI) -> frozenset[str]:
    """All paths of an application."""
    return frozenset(route.path for route in app.routes if isinstance(route, Route))


class StrictRoute(APIRoute):
    """A route whose body is read and parsed strictly before FastAPI checks it against its model."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            check_ready(request.app.state.service)
            body = await read_body(request)
            return await handler(ParsedRequest(request, body, parse_json(body)))

        return handle


def _add_inference_routes(app: FastAPI, service: Service) -> None:
    classifier = service.classifier
    thresholds = dict(zip(classifier.labels, classifier.thresholds.tolist(), strict=True))
    known = {"labels": classifier.labels, "thresholds": thresholds}

    async def predict(request: Request, body: schemas.PredictRequest) -> Any:
        """The labels of one text or of several: those whose probability reaches its threshold."""
        texts = [body.text] if isinstance(body, schemas.TextRequest) else body.texts
        results = await predict_texts(service, texts, functools.partial(_disconnected, request))
        return known | {"results": results}

    async def explain(request: Request, body: schemas.TextRequest) -> Any:
        """The attributions of a text's words to each label, by character offsets (Unicode)."""
        return await explain_text(service, body.text, functools.partial(_disconnected, request))

    for function, model in ((predict, schemas.PredictResponse), (explain, schemas.ExplainResponse)):
        app.router.add_api_route(
            f"/{function.__name__}",
            function,
            methods=["POST"],
            response_model=model,
            responses=_errors(*REASONS),
            route_class_override=StrictRoute,
        )


def _add_health_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=schemas.HealthResponse)
    async def health() -> Any:
        """Whether the process runs."""
        return {"status": "alive"}

    @app.get("/ready", response_model=schemas.ReadyResponse, responses=_errors(503))
    async def ready() -> Any:
        """Whether requests are answered: every program is compiled, and no shutdown has begun."""
        check_ready(service)
        labels = service.classifier.labels
        return {"status": service.status, "labels": labels, "model": service.name}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts and durations, in Prometheus' format."""
        content = prometheus_client.generate_latest(service.metrics.registry)
        return Response(content, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    template = jinja2.Environment(autoescape=True).from_string(DOCS.read_text(encoding="utf-8"))

    @app.get("/docs", response_class=HTMLResponse)
    async def documentation() -> Response:
        """This page."""
        return HTMLResponse(template.render(app.openapi()), headers=HEADERS)

    for path in sorted(PAGE.iterdir()):
        url = "/" if path.name == "index.html" else f"/{path.name}"
        media_type = MEDIA_TYPES[path.suffix]
        file = Response(path.read_bytes(), media_type=media_type, headers=HEADERS)
        app.add_api_route(url, _always(file), include_in_schema=False, response_model=None)


def _always(response: Response) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def respond() -> Response:
        return response

    return respond


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "model": schemas.ErrorResponse,
            "description": REASONS[status],
            "headers": RETRY if status in (429, 503) else {},
        }
        for status in statuses
    }


async def _disconnected(request: Request) -> None:
    """Return when the client has disconnected; its body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse_content(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    form = '{"text": "…"}' + (' or {"texts": ["…", …]}' if request.url.path == "/predict" else "")
    return _error_response(422, schemas.error_message(error.errors()[0], form))


async def _refuse(_: Request, error: Exception) -> Response:
    """The response to a request without a result. It repeats nothing of the request but sizes."""
    if isinstance(error, RefusedError):
        return _error_response(error.status, error.reason, error.retry_after)
    if isinstance(error, QueueFullError):
        return _error_response(429, "the queue is full; ask again later", error.retry_after)
    if isinstance(error, TooLargeError):
        reason = "more tokens than the queue holds; send fewer or shorter texts at a time"
        return _error_response(413, reason)
    assert isinstance(error, HTTPException)
    response = _error_response(error.status_code, f"{error.detail}; see /docs")
    response.headers.update(error.headers or {})
    return response


def _error_response(status: int, reason: str, retry_after: int | None = None) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 408:  # do not wait for the rest of the body
        headers["Connection"] = "close"
    return JSONResponse({"error": reason}, status, headers)


def metrics_middleware(app: ASGIApp, service: Service, paths: frozenset[str]) -> ASGIApp:
    """Count every request and time it. A failure answers 500; the log gets its place in the code
    but not its message, which may hold a text."""
    metrics = service.metrics

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        start, status = time.perf_counter(), DISCONNECTED

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with suppress(ClientDisconnect, ClientDisconnectedError):
                await app(scope, receive, send_and_note)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a tokenizer's panic is not an Exception
            traces = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s\n%s", type(error).__name__, traces)
            reason = "the service failed at this request; see its log"
            await _error_response(500, reason)(scope, receive, send_and_note)
        finally:
            path = scope["path"] if scope["path"] in paths else "other"
            metrics.requests.labels(path, str(status)).inc()
            metrics.seconds.labels(path).observe(time.perf_counter() - start)

    return handle
