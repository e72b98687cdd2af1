"""The HTTP application: predictions, explanations, health, metrics, documentation and a page."""

import functools
import importlib.metadata
from collections.abc import Callable, Coroutine, Sequence, Set
from pathlib import Path
from typing import Any

import jinja2
import prometheus_client
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from jaxclf.service import label_studio, schemas
from jaxclf.service.batcher import QueueFullError, TooLargeError
from jaxclf.service.middleware import (
    add_headers,
    check_requests,
    count_requests,
    discard_unread_bodies,
    error_response,
    strip_root_path,
)
from jaxclf.service.requests import MAX_BYTES, ParsedRequest, RefusedError, parse_json, read_body
from jaxclf.service.service import Service, check_ready, explain_text, predict_texts, running

PAGE, DOCS = Path(__file__).parent / "page", Path(__file__).parent / "docs.html"
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
# Pages send nothing elsewhere, and no page of another site frames them.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a page and its scripts are of one version
}
# Answers are of the moment, and are what their Content-Type says.
API_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
DESCRIPTION = """\
Every response names the model (X-Model-Digest, the SHA-256 of its folder) and jaxclf's version
(X-Jaxclf-Version), unless the service was started with --no-model-headers. HEAD is answered like
GET. Requests for other hosts than localhost, --host and each --allow-host get 421. Pages of other
origins cannot call the service, except those of each --origin. A body may be gzipped."""
RETRY = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
REASONS = {
    400: "the body is not JSON or not gzip, or has both Content-Length and Transfer-Encoding",
    408: "the body did not arrive in time",
    413: f"longer than {MAX_BYTES:,} bytes, or more tokens than the queue ever holds",
    415: "not application/json in UTF-8, or compressed by another method than gzip",
    421: "not a host of this service: see --allow-host",
    422: "JSON of another form, or a text that cannot be read",
    429: "the queue is full",
    500: "the service failed",
    503: "the service is warming up or shutting down",
    504: "no result in time",
}


def make_app(
    service: Service,
    hosts: Set[str] = frozenset(),
    with_model_headers: bool = True,
    origins: Sequence[str] = (),
    root_path: str = "",
) -> FastAPI:
    """The application of a service, which runs as long as the application does.

    hosts: names and addresses that it answers for besides the local ones, in lower case.
    with_model_headers: whether responses name the model and jaxclf's version.
    origins: of pages that may call it (CORS). root_path: the prefix of its paths behind a proxy.
    """
    version = importlib.metadata.version("jaxclf")
    model_headers = {"X-Model-Digest": service.classifier.digest, "X-Jaxclf-Version": version}
    headers = API_HEADERS | (model_headers if with_model_headers else {})
    app = FastAPI(
        title="jaxclf",
        description=DESCRIPTION,
        version=version,
        docs_url=None,  # FastAPI's load scripts from a network
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": root_path}] if root_path else None,
        lifespan=lambda _: running(service),
    )
    app.state.service = service
    for error in (RefusedError, QueueFullError, TooLargeError, HTTPException):
        app.add_exception_handler(error, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_content)
    _add_inference_routes(app, service)
    _add_health_routes(app, service)
    app.include_router(label_studio.make_router(service, StrictRoute, _disconnected))
    _add_pages(app)
    # The last one is the outermost.
    app.add_middleware(check_requests, hosts=hosts)
    app.add_middleware(count_requests, service=service, paths=paths_of(app))
    if root_path:
        app.add_middleware(strip_root_path, root_path=root_path)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type", "Content-Encoding"],
            expose_headers=[*headers, "Retry-After"],
        )
    app.add_middleware(add_headers, headers=headers)
    app.add_middleware(discard_unread_bodies)
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
    if request.url.path.startswith(label_studio.PREFIX):
        return error_response(422, f"the body must hold {label_studio.FORM}")
    form = '{"text": "…"}' + (' or {"texts": ["…", …]}' if request.url.path == "/predict" else "")
    return error_response(422, schemas.error_message(error.errors()[0], form))


async def _refuse(_: Request, error: Exception) -> Response:
    """The response to a request without a result. It repeats nothing of the request but sizes."""
    if isinstance(error, RefusedError):
        return error_response(error.status, error.reason, error.retry_after)
    if isinstance(error, QueueFullError):
        return error_response(429, "the queue is full; ask again later", error.retry_after)
    if isinstance(error, TooLargeError):
        reason = "more tokens than the queue holds; send fewer or shorter texts at a time"
        return error_response(413, reason)
    assert isinstance(error, HTTPException)
    response = error_response(error.status_code, f"{error.detail}; see /docs")
    response.headers.update(error.headers or {})
    return response
