"""Clients of a service on this machine."""

import contextlib
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request

JSON = {"Content-Type": "application/json"}


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def running(server):
    """The port of a server that runs in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            until(lambda: server.started)
            yield port
        finally:
            server.should_exit = True
            thread.join()


def send(port, method, path, body=None, headers=None):
    """(status, headers, body)"""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        client.request(method, path, body, headers or {})
        answer = client.getresponse()
        return answer.status, answer.headers, answer.read()


def get(port, path):
    status, _, body = send(port, "GET", path)
    return status, body


def raw(port, *parts, wait=0.0):
    """The bytes of a response to bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(wait)
        return read_all(client)


def read_all(client):
    """The bytes that a socket receives until it is closed."""
    reply = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            reply += part
    return reply


def counted(port, name):
    """The sum of a metric over its labels."""
    _, body = get(port, "/metrics")
    lines = [line for line in body.decode().splitlines() if line.startswith(name)]
    assert lines, name
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def post_by_urllib(url, body):
    """(status, body) of a JSON body sent by urllib, which sends all of it before it reads."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, JSON), timeout=30) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
