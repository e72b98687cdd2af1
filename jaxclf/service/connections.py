"""Connections: their number and the time that a client may hold one are bounded.

uvicorn accepts connections until the process has no file descriptors left, and waits without end
for the headers of a request and for a client that does not read. Here a connection that waits for
its client has a time limit, and the one that has waited longest makes room for a new one.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

import h11
from prometheus_client import Counter
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

try:
    import resource
except ModuleNotFoundError:  # Windows has no limit of this kind
    resource = None

log = logging.getLogger(__name__)
MAX_CONNECTIONS = 4096
RESERVED_FILES = 128  # file descriptors for all but connections
BACKLOG = 2048  # connections that the operating system holds until they are accepted
HEADER_SECONDS = 10.0  # for the headers of a request to arrive
READ_SECONDS = 60.0  # for a client to read a response
# A connection that has waited less is not dropped for another: a client that sends its request when
# it is connected is answered, however many others connect at the same time.
GRACE_SECONDS = 0.1
DROPPED_AT_ONCE = 16  # where there is no room; a process that is busy accepts in bursts


def connection_limit() -> int:
    """The most connections at once; the process keeps file descriptors for itself."""
    if resource is None:
        return MAX_CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(files - RESERVED_FILES, files // 2))


class Connection(H11Protocol):
    """A connection with a time limit wherever the client is to act: send headers, or read.

    waiting: the connections that wait for their clients, each with the time since when, the longest
    wait first. The application bounds the time of a body.
    """

    def __init__(self, waiting: dict["Connection", float], dropped: Counter, **uvicorn: Any):
        super().__init__(**uvicorn)
        self.waiting, self.dropped = waiting, dropped
        self.seconds: float | None = None  # of the running time limit
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # uvloop has its own class
        super().connection_made(transport)
        self._update()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._update()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._update()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.waiting.pop(self, None)
        self._set_limit(None)

    def drop(self, reason: str) -> None:
        """Close at once, whatever is not sent yet. `reason` is counted."""
        self.dropped.labels(reason).inc()
        self.waiting.pop(self, None)
        self.connections.discard(self)
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "not a valid HTTP/1.1 request")

    def _is_reading(self) -> bool:
        """Whether the client has yet to read a response, or a part of it."""
        return self.transport.is_closing() or self.flow.write_paused

    def _update(self) -> None:
        """Note whether the client is to act, and bound the time for it."""
        if self._is_reading() or self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self.waiting.setdefault(self, self.loop.time())
        else:
            self.waiting.pop(self, None)
        # Between two requests uvicorn's own limit runs until the first byte of the second.
        is_idle = self.timeout_keep_alive_task is not None
        if self._is_reading():
            self._set_limit(READ_SECONDS)
        elif self.conn.their_state is h11.IDLE and not is_idle:
            self._set_limit(HEADER_SECONDS)
        else:
            self._set_limit(None)

    def _set_limit(self, seconds: float | None) -> None:
        """Start a time limit, unless one of the same length runs, or stop it."""
        if seconds == self.seconds:
            return
        if self.timer is not None:
            self.timer.cancel()
        self.seconds = seconds
        self.timer = None if seconds is None else self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.seconds = None
        received, _ = self.conn.trailing_data
        if received and not self._is_reading():
            reason = f"the headers did not arrive within {HEADER_SECONDS:g} seconds"
            self._refuse(408, reason)
            self._update()
        else:
            self.drop("timeout")

    def _refuse(self, status: int, reason: str) -> None:
        """Answer a request that does not reach the application, and close."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # within a response
            return
        body = json.dumps({"error": reason}).encode()
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Connection": "close",
        }
        head = h11.Response(
            status_code=status, headers=list(headers.items()), reason=STATUS_PHRASES[status]
        )
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()


async def accept_forever(
    listener: socket.socket, make_connection: Callable[[], Connection], limit: int
) -> None:
    """Accept connections until cancelled, `limit` at once.

    Where there is no room, connections that wait for their clients are dropped. Where none waits,
    the new one is accepted as soon as a response is complete.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:  # the client is gone, or the system has no more descriptors
                log.warning("a connection was not accepted: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            connection = make_connection()
            while len(connection.connections) >= limit:
                for oldest, since in list(islice(connection.waiting.items(), DROPPED_AT_ONCE)):
                    if loop.time() - since > GRACE_SECONDS:
                        oldest.drop("full")
                await asyncio.sleep(0 if len(connection.connections) < limit else 0.01)
            connection.connections.add(connection)  # it counts from now on
            group.create_task(_connect(client, connection))


async def _connect(client: socket.socket, connection: Connection) -> None:
    loop = asyncio.get_running_loop()
    try:
        with suppress(OSError):  # the client is gone
            await loop.connect_accepted_socket(lambda: connection, client)
    finally:
        if connection.transport is None:  # never made
            connection.connections.discard(connection)
            client.close()
