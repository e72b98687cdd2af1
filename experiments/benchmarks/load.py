"""The service under more than it can do: whose answer is whose, how fast a refusal comes, what its
memory does.

    python experiments/benchmarks/load.py --run runs/mine --data FILE --out load.json

Starts `python -m jaxclf.serve`, measures what it can do with as many clients as fill a few batches,
then lets CLIENTS ask TIMES that, each on a connection of its own and on a timetable, whether or not
the last answer was a refusal; a client whose answer is still to come waits for it. Every accepted
answer is compared with that of `jaxclf.load` for the same texts. A latency is from the first byte
sent to the last one read, on the machine that the service runs on. Run it on an idle machine.
"""

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

WARM = 32  # clients that measure what the service can do: enough to fill its batches
PATIENCE = 60.0  # seconds after which a request is called hung


class Answer(NamedTuple):
    sent: float
    took: float
    status: int  # 0: none came
    after: str  # Retry-After
    rows: tuple[int, ...]
    body: bytes


class Server(NamedTuple):
    process: subprocess.Popen
    port: int
    log: Path


def start(run: Path, queue: int, log: Path) -> Server:
    """The service, ready."""
    words = ["--run", str(run), "--port", "0", "--max-queue-tokens", str(queue)]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxclf.serve", *words], stdout=file, stderr=subprocess.STDOUT
        )
    while not (found := re.search(r"http://[\d.]+:(\d+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    port = int(found[1])
    while asyncio.run(once(port, request("GET", "/ready"))).status != 200:
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    return Server(process, port, log)


def request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes):
    """(status, Retry-After, body)"""
    writer.write(sent)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = re.search(r"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1]) if length else 0)
    after = re.search(r"retry-after: (\S+)", head)
    return int(head.split(" ", 2)[1]), after[1] if after else "", body


async def once(port: int, sent: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    status, after, body = await exchange(reader, writer, sent)
    writer.close()
    return Answer(0, 0, status, after, (), body)


async def client(
    port: int,
    moments: Callable[[], float | None],
    questions: Callable[[], tuple],
    out: list[Answer],
) -> None:
    """Ask at the moments that are given until there are none; late ones at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (moment := moments()) is not None:
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        rows, sent = questions()
        if reader.at_eof():  # idle for so long that the service closed it
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                status, after, body = await exchange(reader, writer, sent)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            status, after, body = 0, "", b""
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        out.append(Answer(began, time.perf_counter() - began, status, after, rows, body))
    writer.close()


def asker(texts: list[str], many: int) -> Callable[[], tuple[tuple[int, ...], bytes]]:
    """Questions of so many texts at random: (which, the request)."""
    draw = random.Random(0)

    def ask() -> tuple[tuple[int, ...], bytes]:
        rows = tuple(draw.choices(range(len(texts)), k=many))
        body = json.dumps({"texts": [texts[row] for row in rows]}).encode()
        return rows, request("POST", "/predict", body)

    return ask


async def capacity(port: int, questions: Callable[[], tuple], seconds: float) -> float:
    """Requests a second, each client asking again as soon as it is answered."""
    end = time.perf_counter() + seconds
    out: list[Answer] = []
    moments = lambda: 0.0 if time.perf_counter() < end else None  # noqa: E731
    await asyncio.gather(*(client(port, moments, questions, out) for _ in range(WARM)))
    return sum(one.status == 200 for one in out) / seconds


async def flood(
    server: Server, clients: int, rate: float, count: int, questions: Callable[[], tuple]
) -> tuple[list[Answer], list[tuple[int, float]]]:
    """`count` requests, `rate` a second in all: (answers, memory after so many)."""
    out: list[Answer] = []
    began = time.perf_counter()
    ahead = iter([began + index / rate for index in range(count)])
    memory = []

    async def watch() -> None:
        while True:
            memory.append((len(out), resident(server.process.pid)))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    await asyncio.gather(
        *(client(server.port, lambda: next(ahead, None), questions, out) for _ in range(clients))
    )
    watching.cancel()
    return out, memory


def resident(process: int) -> float:
    """MiB"""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def wrongest(answers: list[Answer], expected: np.ndarray) -> float:
    """The largest difference of a probability from that of the same text offline."""
    worst = 0.0
    for one in answers:
        results = json.loads(one.body)["results"]
        found = np.array([list(result["probabilities"].values()) for result in results])
        worst = max(worst, float(np.abs(found - expected[list(one.rows)]).max()))
    return worst


def spread(values: list[float]) -> dict[str, float]:
    """In milliseconds."""
    if not values:
        return {}
    found = np.quantile(values, [0.5, 0.99, 1]) * 1000
    return dict(zip(("p50", "p99", "max"), found.round(2).tolist(), strict=True))


def number(port: int, name: str) -> float:
    text = asyncio.run(once(port, request("GET", "/metrics"))).body.decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.split()[0] == name))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a file of texts")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    parser.add_argument("--clients", type=int, default=256, help="default: 256")
    parser.add_argument("--times", type=float, default=4.0, help="of what it can do (default: 4)")
    parser.add_argument("--requests", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--texts", type=int, default=8, help="in a request (default: 8)")
    parser.add_argument("--queue", type=int, default=8192, help="tokens (default: 8192)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for capacity (default: 20)")
    args = parser.parse_args()

    texts = list(read(args.data, labeled=False).texts)[:2000]
    expected = jaxclf.load(args.run).predict_proba(texts)
    questions = asker(texts, args.texts)
    server = start(args.run, args.queue, args.out.with_suffix(".log"))
    gc.collect()
    gc.freeze()  # a pause here would be taken for the service's
    compiled = number(server.port, "jaxclf_compilations_total")
    rate = asyncio.run(capacity(server.port, questions, args.seconds))
    offered = args.times * rate
    answers, memory = asyncio.run(flood(server, args.clients, offered, args.requests, questions))
    recompiled = number(server.port, "jaxclf_compilations_total") - compiled
    server.process.send_signal(signal.SIGTERM)
    log = server.log.read_text()

    accepted = [one for one in answers if one.status == 200]
    refused = [one for one in answers if one.status == 429]
    first, last = min(one.sent for one in answers), max(one.sent for one in answers)
    half = [megabytes for done, megabytes in memory if done >= args.requests / 2]
    figures = {
        "clients": args.clients,
        "texts_in_a_request": args.texts,
        "queue_tokens": args.queue,
        "capacity_requests_per_second": round(rate, 1),
        "offered_per_second": round(offered, 1),
        "sent_per_second": round(len(answers) / (last - first), 1),
        "statuses": dict(Counter(str(one.status) for one in answers)),
        "largest_difference": wrongest(accepted, expected),
        "accepted_ms": spread([one.took for one in accepted]),
        "refused_ms": spread([one.took for one in refused]),
        "refused_within_50_ms": float(np.mean([one.took < 0.05 for one in refused] or [1])),
        "retry_after": sorted({one.after for one in refused}),
        "memory_MiB": {
            "first": round(memory[0][1], 1),
            "half_way": round(half[0], 1),
            "last": round(half[-1], 1),
        },
        "compiled_after_ready": recompiled,
        "texts_in_log": sum(len(text) > 20 and text in log for text in texts),
        "exit": server.process.wait(60),
    }
    args.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
