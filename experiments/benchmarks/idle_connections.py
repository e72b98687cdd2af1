"""Hold a service's connections open, and send it bodies over its limit: does it still answer?

    python -m experiments.benchmarks.idle_connections --run runs/focal_attention --out idle.json

Starts `jaxclf serve` with `ulimit -n FILES`. CLIENTS connections are opened and kept open; one that
the service closes is opened again after half a second. A third of the clients send nothing, a third
a header every second without an end, a third a complete request and then nothing. Meanwhile /health
is asked over a new connection every 20 ms. Then urllib, requests (to be installed) and curl send
bodies of 5 MB, which are above the limit of a body, and must read their 413. Run it on an idle
machine.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from experiments.benchmarks.load import make_request, quantiles, send_once

JSON = {"Content-Type": "application/json"}
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def start_server(run: Path, files: int, log: Path) -> tuple[subprocess.Popen, int]:
    """(process, port) of a service that may open so many files, once it is ready."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "jaxclf", "serve", "--run", str(run), "--port", "0"],
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        )
    while "ready after" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    match = re.search(r"http://[\d.]+:(\d+)", log.read_text())
    assert match is not None
    return process, int(match[1])


async def hold_connection(port: int, kind: int) -> None:
    """Keep a connection open and do nothing useful with it; open another when it is closed."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write((b"", HEAD, HEAD + b"\r\n")[kind])
            while not reader.at_eof():
                if kind == 1:
                    writer.write(b"X-Slow: 1\r\n")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await reader.read(65536)
            writer.close()
        await asyncio.sleep(0.5)


def hold_connections(port: int, clients: int) -> None:
    async def hold() -> None:
        await asyncio.gather(*(hold_connection(port, index % 3) for index in range(clients)))

    asyncio.run(hold())


def measure_health(port: int, seconds: float) -> tuple[list[float], int]:
    """(the seconds of each answer of /health, the number of failures), one connection each."""
    durations, failures, end = [], 0, time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", "/health")
            assert client.getresponse().status == 200
            client.close()
            durations.append(time.perf_counter() - start)
        except (OSError, http.client.HTTPException):
            failures += 1
        time.sleep(0.02)
    return durations, failures


def measure_idle(process: subprocess.Popen, port: int, clients: int, seconds: float) -> dict:
    holder = multiprocessing.Process(target=hold_connections, args=(port, clients))
    holder.start()
    durations, failures = measure_health(port, seconds)
    open_files = len(os.listdir(f"/proc/{process.pid}/fd"))
    holder.terminate()
    holder.join()
    metrics = asyncio.run(send_once(port, make_request("GET", "/metrics"))).body.decode()
    return {
        "clients": clients,
        "open_files_of_service": open_files,
        "dropped": dict(re.findall(r'dropped_connections_total\{reason="(\w+)"\} (\S+)', metrics)),
        "health_answers": len(durations),
        "health_failures": failures,
        "health_ms": quantiles(durations),
    }


def post_by_urllib(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, JSON)) as response:
            status, answer = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, answer = error.code, error.read()
    assert "error" in json.loads(answer)
    return status


def post_by_requests(url: str, body: bytes) -> int:
    import requests  # pyright: ignore[reportMissingImports]  # no other part needs it

    response = requests.post(url, body, headers=JSON, timeout=60)
    assert "error" in response.json()
    return response.status_code


def post_by_curl(url: str, body: bytes, *options: str) -> int:
    header = next(f"{name}: {value}" for name, value in JSON.items())
    command = ["curl", "-sS", "-H", header, *options, "--data-binary", "@-", url]
    result = subprocess.run([*command, "-w", "\n%{http_code}"], input=body, capture_output=True)
    answer, _, status = result.stdout.rpartition(b"\n")
    assert result.returncode == 0, result.stderr
    assert "error" in json.loads(answer)
    return int(status)


def post_by_curl_at_once(url: str, body: bytes) -> int:
    """Without waiting for the service's consent to the body."""
    return post_by_curl(url, body, "-H", "Expect:")


CLIENTS = (post_by_urllib, post_by_requests, post_by_curl, post_by_curl_at_once)


def measure_bodies(port: int, size: int, count: int) -> dict[str, dict[str, int]]:
    """How often each client read which status."""
    body = b'{"text": "' + b"a" * size + b'"}'
    url, statuses = f"http://127.0.0.1:{port}/predict", {}
    for post in CLIENTS:
        counts: Counter = Counter()
        for _ in range(count):
            try:
                counts[str(post(url, body))] += 1
            except (OSError, AssertionError, http.client.HTTPException) as error:
                counts[type(error).__name__] += 1
        statuses[post.__name__.removeprefix("post_by_")] = dict(counts)
    return statuses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    parser.add_argument("--clients", type=int, default=2500, help="default: 2500")
    parser.add_argument("--files", type=int, default=1024, help="of the service (default: 1024)")
    parser.add_argument("--seconds", type=float, default=30.0, help="default: 30")
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    log = args.out.with_suffix(".log")
    process, port = start_server(args.run, args.files, log)
    summary: dict[str, object] = {"service_files": args.files}
    try:
        summary |= measure_idle(process, port, args.clients, args.seconds)
        summary["bodies_of_5_MB"] = measure_bodies(port, 5_000_000, 20)
    finally:
        process.send_signal(signal.SIGTERM)
    summary["exit"] = process.wait(60)
    text = log.read_text()
    summary["tracebacks"] = text.count("Traceback")
    summary["failed_accepts"] = text.count("was not accepted")
    args.out.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
