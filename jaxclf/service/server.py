"""The service on a socket: uvicorn, its log without texts, and signals that drain."""

import asyncio
import logging
import math
import signal
import socket

import uvicorn

from jaxclf.errors import ConfigError
from jaxclf.service.app import make_app, paths_of
from jaxclf.service.service import Service, drain

LOG = logging.getLogger("uvicorn.error")
METHODS = {"GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}
KEEP_ALIVE = 75  # seconds; longer than what gateways keep an idle connection, mostly 60
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(service: Service, listener: socket.socket) -> int:
    """Serve until a signal comes and what was accepted is answered; which signal.

    Raises what compiling raises.
    """
    app = make_app(service)
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="on",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(service.deadline),
    )
    hide_texts(paths_of(app))
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        return runner.run(_serve(uvicorn.Server(config), service, listener))


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that accepts connections. Raises ConfigError if the address is not free."""
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port {port}: must be from 0 to {2**16 - 1}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"--host {host} --port {port}: {error.strerror}") from None


def hide_texts(paths: frozenset[str]) -> None:
    """Let the access log name a method or a path only where it is one that the service has: in the
    others there may be a text."""

    def hide(record: logging.LogRecord) -> bool:
        assert isinstance(record.args, tuple)
        client, method, path, version, status = record.args
        path = str(path).partition("?")[0]
        method = method if method in METHODS else "?"
        record.args = client, method, path if path in paths else "?", version, status
        return True

    logging.getLogger("uvicorn.access").addFilter(hide)


async def _serve(server: uvicorn.Server, service: Service, listener: socket.socket) -> int:
    """Serve until a signal comes, and what was accepted is answered; the signal."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await service.started.wait()
    assert service.warming is not None
    host, port = listener.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    LOG.info("%s at http://%s:%d, warming up", service.name, where, port)
    await asyncio.wait({service.warming})
    if service.warming.cancelled():  # by a signal that uvicorn has taken, and sends once more
        await serving
    if error := service.warming.exception():
        server.should_exit = True
        await serving
        raise error
    LOG.info("ready after %.1f s", loop.time() - began)

    came: asyncio.Future[int] = loop.create_future()
    for number in SIGNALS:  # in place of uvicorn's
        loop.add_signal_handler(number, _stop, loop, came, number)
    number = await came
    await drain(service)
    server.should_exit = True
    await serving
    return number


def _stop(loop: asyncio.AbstractEventLoop, came: asyncio.Future[int], number: int) -> None:
    """Take the first signal; a second one does what it does to any process."""
    for each in SIGNALS:
        loop.remove_signal_handler(each)
    came.set_result(number)
