"""The service on a socket: uvicorn, an access log without texts, and signals that drain."""

import asyncio
import contextlib
import functools
import logging
import math
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from prometheus_client import Counter

from jaxclf.errors import ConfigError
from jaxclf.service.app import paths_of
from jaxclf.service.connections import BACKLOG, Connection, accept_forever, connection_limit
from jaxclf.service.service import Service, drain
from jaxclf.signals import handle_signals

log = logging.getLogger(__name__)
METHODS = {"GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}
KEEP_ALIVE = 75  # seconds; longer than proxies keep an idle connection, mostly 60


class Server(uvicorn.Server):
    """Opens and closes connections as `connections` does; leaves signals to `_serve`."""

    def __init__(self, config: uvicorn.Config, dropped: Counter):
        super().__init__(config)
        self.dropped = dropped

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `_serve`, which drains before uvicorn closes its connections."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections in bounded number; uvicorn itself is passed no socket to accept on."""
        assert sockets is not None
        await super().startup(sockets=[])
        make_connection = functools.partial(
            Connection,
            waiting={},
            dropped=self.dropped,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        (listener,) = sockets
        listener.setblocking(False)
        accepting = accept_forever(listener, make_connection, connection_limit())
        self.accepting = asyncio.create_task(accepting)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.accepting.cancel()
        await asyncio.wait({self.accepting})
        await super().shutdown(sockets)


def make_server(app: FastAPI, service: Service) -> Server:
    """A server of a service's application."""
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="on",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(service.request_timeout),
    )
    return Server(config, service.metrics.dropped)


def serve(service: Service, app: FastAPI, listener: socket.socket, root_path: str = "") -> int:
    """Serve until a signal arrives and every accepted request is answered.

    root_path: as of `make_app`. Returns the signal's number. Raises what compiling raises.
    """
    server, paths = make_server(app, service), paths_of(app)
    hide_texts(paths | {root_path + path for path in paths})
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        return runner.run(_serve(server, service, listener))


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that accepts connections. Raises ConfigError if the address is not free."""
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port {port}: must be from 0 to {2**16 - 1}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}") from None


def hide_texts(paths: frozenset[str]) -> None:
    """Mask methods and paths in the access log that the service does not have: they may hold a
    text."""

    def hide(record: logging.LogRecord) -> bool:
        assert isinstance(record.args, tuple)
        client, method, path, version, status = record.args
        path = str(path).partition("?")[0]
        method = method if method in METHODS else "?"
        record.args = client, method, path if path in paths else "?", version, status
        return True

    logging.getLogger("uvicorn.access").addFilter(hide)


async def _serve(server: Server, service: Service, listener: socket.socket) -> int:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await _warm_up(service, listener)
        number = await _next_signal()
        await drain(service)
        return number
    finally:
        server.should_exit = True
        await serving


async def _warm_up(service: Service, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await service.started.wait()
    assert service.warming is not None
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    log.info("%s at http://%s:%d, warming up", service.name, address, port)
    await service.warming
    log.info("ready after %.1f s", loop.time() - start)


async def _next_signal() -> int:
    """Wait for a signal that asks to stop. A second one has its usual effect on a process."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[int] = asyncio.Queue()

    def note(number: int) -> None:
        loop.call_soon_threadsafe(arrived.put_nowait, number)

    with handle_signals(note):
        return await arrived.get()
