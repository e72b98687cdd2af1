"""Overload a service: are the results right, how fast are refusals, how much memory does it take?

    python -m experiments.benchmarks.load --run runs/ekman/members/goemotions_ekman-seed0 --data data/goemotions/ekman/test.jsonl --out load.json

Starts `jaxclf serve` and measures its capacity with enough clients to fill its batches. Then CLIENTS
send TIMES that many requests on a fixed schedule, each over its own connection; a client that waits
for a response sends its next request late. Every accepted response is compared with
`jaxclf.load(run)` on the same texts. A latency is measured from the first byte sent to the last one
read, on the machine of the service. Run it on an idle machine.
"""  # noqa: E501

import argparse
import asyncio
import gc
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxclf
from jaxclf.text.reader import read

CAPACITY_CLIENTS = 32  # enough to fill the service's batches
TIMEOUT = 60.0  # seconds


class Request(NamedTuple):
    rows: tuple[int, ...]  # the texts that it holds
    message: bytes


class Response(NamedTuple):
    sent: float
    seconds: float
    status: int  # 0: no response
    retry_after: str
    rows: tuple[int, ...]
    body: bytes


class Server(NamedTuple):
    process: subprocess.Popen
    port: int
    log: Path


def start_server(run: Path, queue_tokens: int, log: Path) -> Server:
    """Start a service and wait until it is ready."""
    words = ["--run", str(run), "--port", "0", "--max-queue-tokens", str(queue_tokens)]
    with log.open("w") as file:
        command = [sys.executable, "-m", "jaxclf", "serve", *words]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    while not (match := re.search(r"http://[\d.]+:(\d+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    port = int(match[1])
    while asyncio.run(send_once(port, make_request("GET", "/ready"))).status != 200:
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    return Server(process, port, log)


def make_request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes):
    """(status, Retry-After, body) of a request."""
    writer.write(message)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = re.search(r"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1]) if length else 0)
    retry_after = re.search(r"retry-after: (\S+)", head)
    return int(head.split(" ", 2)[1]), retry_after[1] if retry_after else "", body


async def send_once(port: int, message: bytes) -> Response:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    status, retry_after, body = await exchange(reader, writer, message)
    writer.close()
    return Response(0, 0, status, retry_after, (), body)


async def run_client(
    port: int,
    next_time: Callable[[], float | None],
    next_request: Callable[[], Request],
    responses: list[Response],
) -> None:
    """Send a request at each time, late ones immediately, until there are no more times."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (moment := next_time()) is not None:
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        request = next_request()
        if reader.at_eof():  # the service closed an idle connection
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        start = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT):
                status, retry_after, body = await exchange(reader, writer, request.message)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            status, retry_after, body = 0, "", b""
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        seconds = time.perf_counter() - start
        responses.append(Response(start, seconds, status, retry_after, request.rows, body))
    writer.close()


def make_requests(texts: list[str], count: int) -> Callable[[], Request]:
    """A function that returns requests of `count` random texts."""
    rng = random.Random(0)

    def next_request() -> Request:
        rows = tuple(rng.choices(range(len(texts)), k=count))
        body = json.dumps({"texts": [texts[row] for row in rows]}).encode()
        return Request(rows, make_request("POST", "/predict", body))

    return next_request


async def measure_capacity(port: int, next_request: Callable[[], Request], seconds: float) -> float:
    """Requests per second if each client sends its next request after each response."""
    end = time.perf_counter() + seconds
    responses: list[Response] = []
    next_time = lambda: 0.0 if time.perf_counter() < end else None  # noqa: E731
    clients = (
        run_client(port, next_time, next_request, responses) for _ in range(CAPACITY_CLIENTS)
    )
    await asyncio.gather(*clients)
    return sum(response.status == 200 for response in responses) / seconds


async def overload(
    server: Server, clients: int, rate: float, count: int, next_request: Callable[[], Request]
) -> tuple[list[Response], list[tuple[int, float]]]:
    """Send `count` requests at `rate` per second: (responses, memory after some of them)."""
    responses: list[Response] = []
    start = time.perf_counter()
    schedule = iter([start + index / rate for index in range(count)])
    memory = []

    async def watch_memory() -> None:
        while True:
            memory.append((len(responses), resident_memory(server.process.pid)))
            await asyncio.sleep(0.5)

    watcher = asyncio.create_task(watch_memory())
    next_time = lambda: next(schedule, None)  # noqa: E731
    await asyncio.gather(
        *(run_client(server.port, next_time, next_request, responses) for _ in range(clients))
    )
    memory.append((len(responses), resident_memory(server.process.pid)))
    watcher.cancel()
    return responses, memory


def resident_memory(process: int) -> float:
    """In MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def largest_difference(responses: list[Response], expected: np.ndarray) -> float:
    """The largest difference of a probability from the expected one of the same text."""
    largest = 0.0
    for response in responses:
        results = json.loads(response.body)["results"]
        probs = np.array([list(result["probabilities"].values()) for result in results])
        largest = max(largest, float(np.abs(probs - expected[list(response.rows)]).max()))
    return largest


def quantiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    if not seconds:
        return {}
    values = np.quantile(seconds, [0.5, 0.99, 1]) * 1000
    return dict(zip(("p50", "p99", "max"), values.round(2).tolist(), strict=True))


def read_metric(port: int, name: str) -> float:
    text = asyncio.run(send_once(port, make_request("GET", "/metrics"))).body.decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.split()[0] == name))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a file of texts")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    parser.add_argument("--clients", type=int, default=256, help="default: 256")
    parser.add_argument(
        "--times", type=float, default=4.0, help="multiple of the capacity (default: 4)"
    )
    parser.add_argument("--requests", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--texts", type=int, default=8, help="texts per request (default: 8)")
    parser.add_argument("--queue", type=int, default=8192, help="tokens (default: 8192)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for capacity (default: 20)")
    args = parser.parse_args()

    texts = list(read(args.data, labeled=False).texts)[:2000]
    expected = jaxclf.load(args.run).predict_proba(texts)
    next_request = make_requests(texts, args.texts)
    server = start_server(args.run, args.queue, args.out.with_suffix(".log"))
    gc.collect()
    gc.freeze()  # a pause of this process would look like one of the service
    compiled = read_metric(server.port, "jaxclf_compilations_total")
    rate = asyncio.run(measure_capacity(server.port, next_request, args.seconds))
    offered = args.times * rate
    responses, memory = asyncio.run(
        overload(server, args.clients, offered, args.requests, next_request)
    )
    recompiled = read_metric(server.port, "jaxclf_compilations_total") - compiled
    server.process.send_signal(signal.SIGTERM)
    log = server.log.read_text()

    accepted = [response for response in responses if response.status == 200]
    refused = [response for response in responses if response.status == 429]
    times = [response.sent for response in responses]
    second_half = [megabytes for count, megabytes in memory if count >= args.requests / 2]
    summary = {
        "clients": args.clients,
        "texts_in_a_request": args.texts,
        "queue_tokens": args.queue,
        "capacity_requests_per_second": round(rate, 1),
        "offered_per_second": round(offered, 1),
        "sent_per_second": round(len(responses) / (max(times) - min(times)), 1),
        "statuses": dict(Counter(str(response.status) for response in responses)),
        "largest_difference": largest_difference(accepted, expected),
        "accepted_ms": quantiles([response.seconds for response in accepted]),
        "refused_ms": quantiles([response.seconds for response in refused]),
        "refused_within_50_ms": float(
            np.mean([response.seconds < 0.05 for response in refused] or [1])
        ),
        "retry_after": sorted({response.retry_after for response in refused}),
        "memory_MiB": {
            "first": round(memory[0][1], 1),
            "half_way": round(second_half[0], 1),
            "last": round(second_half[-1], 1),
        },
        "compilations_after_ready": recompiled,
        "texts_in_log": sum(len(text) > 20 and text in log for text in texts),
        "exit": server.process.wait(60),
    }
    args.out.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
