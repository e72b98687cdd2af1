"""What holds for every request, whatever its path: checks, headers, counts, unread bodies."""

import asyncio
import ipaddress
import logging
import re
import time
import traceback
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxclf.errors import ConfigError
from jaxclf.service.requests import MAX_BYTES, MAX_SECONDS
from jaxclf.service.service import ClientDisconnectedError, Service

log = logging.getLogger(__name__)
DISCONNECTED = 499  # counted where the client did not wait for its response
MAX_UNREAD_BYTES = 16 * MAX_BYTES  # of a body that was refused
PAUSE_SECONDS = 1.0  # without a byte of it
HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")
ALL_ADDRESSES = {"", "0.0.0.0", "::"}


def error_response(status: int, reason: str, retry_after: int | None = None) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONResponse({"error": reason}, status, headers)


def host_name(value: str) -> str | None:
    """The name or address in a Host header, without its port, or None where it is not one."""
    match = HOST.fullmatch(value.strip().lower())
    return match[1].strip("[]").rstrip(".") if match else None


def parse_hosts(host: str, allowed: Sequence[str]) -> frozenset[str]:
    """The names of --host and of each --allow-host. Raises ConfigError for what is not a name."""
    for name in allowed:
        if not re.fullmatch(r"[\w.-]+", name) and parse_address(name.strip("[]")) is None:
            raise ConfigError(f"--allow-host {name}: must be a name or address without a port")
    return frozenset(name.lower().strip("[]").rstrip(".") for name in (host, *allowed))


def parse_origins(origins: Sequence[str]) -> list[str]:
    """The values of --origin. Raises ConfigError for what no browser sends as an origin."""
    for origin in origins:
        if not re.fullmatch(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d+)?|\*", origin):
            raise ConfigError(
                f"--origin {origin}: must be a scheme and a host in lower case, such as "
                "https://app.example or http://localhost:3000, without a path; '*' is any page"
            )
    return list(origins)


def is_allowed(name: str, hosts: Set[str]) -> bool:
    """Whether the service answers for a name: a local one, one of `hosts`, or any address where
    `hosts` has one that stands for all."""
    if name in hosts or name == "localhost" or name.endswith(".localhost"):
        return True
    address = parse_address(name)
    return address is not None and (address.is_loopback or bool(hosts & ALL_ADDRESSES))


def parse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a name is, if it is one."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def check_requests(app: ASGIApp, hosts: Set[str]) -> ASGIApp:
    """Refuse a request for another host, and one with two lengths. HEAD is answered like GET.

    A web page can let its own name point to this machine; it may then read what is answered for
    that name. A request with two lengths is two different ones to a proxy and to this service.
    """

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            name = host_name(headers.get("host", "localhost"))  # HTTP/1.0 may leave it out
            if "content-length" in headers and "transfer-encoding" in headers:
                reason = "Content-Length and Transfer-Encoding exclude each other; send one"
                await error_response(400, reason)(scope, receive, send)
                return
            if name is None or not is_allowed(name, hosts):
                reason = "not a host of this service; start it with --allow-host NAME to add one"
                await error_response(421, reason)(scope, receive, send)
                return
            if scope["method"] == "HEAD":  # the server leaves the body out
                scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return handle


def strip_root_path(app: ASGIApp, root_path: str) -> ASGIApp:
    """Leave the prefix out of a path, where a proxy has not removed it."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(f"{root_path}/"):
            scope = {**scope, "path": scope["path"].removeprefix(root_path)}
        await app(scope, receive, send)

    return handle


def add_headers(app: ASGIApp, headers: Mapping[str, str]) -> ASGIApp:
    """Add headers to every response that does not have them."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = MutableHeaders(scope=message)
                for name, value in headers.items():
                    present.setdefault(name, value)
            await send(message)

        await app(scope, receive, send_with_headers)

    return handle


def discard_unread_bodies(app: ASGIApp) -> ASGIApp:
    """Answer at once, then read a bounded part of a body that the application did not read.

    Most clients send all of a body before they read. A connection that is closed with bytes left
    to read is reset, and the client never sees its response.
    """

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        closing = False

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def send_unfinished(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start" and unread:
                closing = True
                MutableHeaders(scope=message)["Connection"] = "close"
            elif message["type"] == "http.response.body" and closing:
                message = {**message, "more_body": True}
            await send(message)

        await app(scope, receive_and_note, send_unfinished)
        if closing:
            if unread:
                await _discard(receive)
            await send({"type": "http.response.body"})

    return handle


async def _discard(receive: Receive) -> None:
    """Read the rest of a body, as long as it arrives, within bounds of size and time."""
    size, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(MAX_SECONDS):
            while more and size < MAX_UNREAD_BYTES:
                message = await asyncio.wait_for(receive(), PAUSE_SECONDS)
                size += len(message.get("body", b""))
                more = message.get("more_body", False)


def count_requests(app: ASGIApp, service: Service, paths: Set[str]) -> ASGIApp:
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
            await error_response(500, reason)(scope, receive, send_and_note)
        finally:
            path = scope["path"] if scope["path"] in paths else "other"
            metrics.requests.labels(path, str(status)).inc()
            metrics.seconds.labels(path).observe(time.perf_counter() - start)

    return handle
