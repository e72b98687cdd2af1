"""Connections over real sockets, without a model: their number and the time of each are bounded."""

import asyncio
import contextlib
import json
import resource
import socket
import threading

import pytest
import uvicorn
from clients import get, raw, read_all, running, until
from prometheus_client import CollectorRegistry, Counter

from jaxclf.service import connections
from jaxclf.service import server as server_module
from jaxclf.service.connections import RESERVED_FILES, connection_limit
from jaxclf.service.server import Server

LIMIT = 20
LINE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


class Application:
    """/health answers; /large answers 8 MB; /wait answers once `let` is set; /early answers before
    the body."""

    def __init__(self):
        self.let, self.waiting = threading.Event(), 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        if scope["path"] == "/wait":
            self.waiting += 1
            while not self.let.is_set():
                await asyncio.sleep(0.01)
        body = b"a" * 8_000_000 if scope["path"] == "/large" else b"ok"
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/early":
            while (await receive()).get("more_body", False):
                pass
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(params=["asyncio", "auto"])
def serving(request, monkeypatch):
    """(application, port, how many connections were dropped for a reason)"""
    monkeypatch.setattr(server_module, "connection_limit", lambda: LIMIT)
    dropped = Counter("dropped", "…", ["reason"], registry=CollectorRegistry())
    application = Application()
    config = uvicorn.Config(
        application, lifespan="on", ws="none", loop=request.param, timeout_keep_alive=60
    )
    with running(Server(config, dropped)) as port:
        try:
            yield application, port, lambda reason: dropped.labels(reason)._value.get()
        finally:
            application.let.set()


@contextlib.contextmanager
def connected(port, count, data=b""):
    """Clients that send some bytes and wait."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port), timeout=20)
            clients.append(stack.enter_context(client))
            client.sendall(data)
        yield clients


IDLE = {
    "nothing": b"",
    "half of the headers": LINE,
    "half of a body": LINE.replace(b"GET /health", b"POST /early") + b"Content-Length: 9\r\n\r\na",
    "an answered request": LINE + b"\r\n",
}


@pytest.mark.parametrize("data", IDLE.values(), ids=IDLE)
def test_idle_clients_make_room(serving, data):
    _, port, dropped = serving
    with connected(port, 4 * LIMIT, data):
        for _ in range(3):
            assert get(port, "/health") == (200, b"ok")
        until(lambda: dropped("full") >= 3 * LIMIT)
    assert dropped("timeout") == 0


def test_a_request_that_is_worked_on_is_never_dropped(serving):
    application, port, dropped = serving
    with connected(port, LIMIT, LINE.replace(b"/health", b"/wait") + b"\r\n") as busy:
        until(lambda: application.waiting == LIMIT)
        with connected(port, 5, LINE + b"\r\n") as late:
            late[0].settimeout(0.1)
            with pytest.raises(TimeoutError):  # there is room for no further one
                late[0].recv(1)
            application.let.set()
            for client in (*busy, *late):
                client.settimeout(20)
                assert client.recv(12) == b"HTTP/1.1 200"
    assert dropped("timeout") == 0


@pytest.mark.parametrize("before", [b"", LINE + b"\r\n"], ids=["first", "second"])
def test_headers_have_a_time_limit(serving, monkeypatch, before):
    _, port, dropped = serving
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.1)
    with connected(port, 1, before) as (client,):
        if before:
            until(lambda: client.recv(65536).endswith(b"ok"))
        client.sendall(LINE)
        reply = read_all(client)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"nosniff" in head
    assert b"no-store" in head
    assert "headers" in json.loads(body)["error"]
    assert dropped("timeout") == 0
    assert get(port, "/health")[0] == 200


def test_dribbled_headers_do_not_extend_the_limit(serving, monkeypatch):
    _, port, _ = serving
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        raw(port, *[b"G"] * 1000, wait=0.02)


def test_a_client_that_sends_nothing_is_disconnected(serving, monkeypatch):
    _, port, dropped = serving
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.1)
    assert raw(port) == b""
    assert dropped("timeout") == 1


def test_a_time_limit_ends_with_the_headers(serving, monkeypatch):
    application, port, dropped = serving
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.1)
    with connected(port, 1, LINE.replace(b"/health", b"/wait") + b"\r\n") as (client,):
        until(lambda: application.waiting)
        until(lambda: not raw(port))  # another client's time ends later
        application.let.set()
        assert client.recv(12) == b"HTTP/1.1 200"
    assert dropped("timeout") == 1


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_a_client_that_does_not_read_is_disconnected(serving, monkeypatch, close):
    _, port, dropped = serving
    monkeypatch.setattr(connections, "READ_SECONDS", 0.1)
    with connected(port, 1, (LINE.replace(b"/health", b"/large") + close + b"\r\n") * 3):
        until(lambda: dropped("timeout") == 1)
    assert get(port, "/health")[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # without Host
        LINE + b"Host: localhost\r\n\r\n",
        LINE + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_like_any_request(serving, data):
    head, _, body = raw(serving[1], data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert list(json.loads(body)) == ["error"]


def test_a_bad_chunk_after_the_answer_has_begun_ends_the_connection(serving, caplog):
    start = LINE.replace(b"GET /health", b"POST /early") + b"Transfer-Encoding: chunked\r\n\r\n"
    reply = raw(serving[1], start + b"1\r\na\r\n", b"zz\r\n", wait=0.1)
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in caplog.text
    assert get(serving[1], "/health")[0] == 200


def test_a_failure_to_accept_does_not_end_the_service(serving, monkeypatch, caplog):
    _, port, _ = serving
    real, failures = socket.socket.accept, iter(range(3))

    def accept(listener):
        if next(failures, None) is not None:
            raise OSError(24, "Too many open files")
        return real(listener)

    monkeypatch.setattr(socket.socket, "accept", accept)
    assert get(port, "/health")[0] == 200
    assert next(failures, None) is None
    assert "Too many open files" in caplog.text


@pytest.mark.parametrize(
    ("files", "limit"),
    [(1024, 1024 - RESERVED_FILES), (100, 50), (10**6, 4096), (resource.RLIM_INFINITY, 4096)],
)
def test_the_limit_leaves_file_descriptors_to_the_process(monkeypatch, files, limit):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert connection_limit() == limit
    monkeypatch.setattr(connections, "resource", None)  # as on Windows
    assert connection_limit() == 4096
