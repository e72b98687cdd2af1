"""Open thousands of damaged files, each in a child process that is measured.

    python -m experiments.benchmarks.fuzz --data 3000 --out fuzz.jsonl

A file must be read, or refused with a message of jaxclf: no other exception, at most 300 MB above
the memory of the child before, at most two seconds of processor time, and a short message without
control characters. A file is a pure function of its seed. The same command resumes, and
`--only SEED` repeats one file with its traceback.
"""

import argparse
import collections
import ctypes
import gc
import importlib
import json
import multiprocessing
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jaxclf.errors import JaxclfError
from jaxclf.terminal import print_table

# Each module has three functions:
#   prepare(folder): write the intact inputs and open them once, for imports and caches
#   damage(folder, rng, target) -> (path, description): write one damaged input into `target`
#   open_damaged(path): read it as the product does
KINDS = {
    "data": "experiments.benchmarks.fuzz_data",
    "models": "experiments.benchmarks.fuzz_models",
}

MAX_MEMORY, MAX_SECONDS, MAX_MESSAGE = 300, 2.0, 4000  # MB, seconds, characters
KILL_MEMORY, KILL_SECONDS = 3000, 60  # a child that needs more is ended
CASES_OF_A_CHILD = 500
UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def read_memory(process_id: int | str, key: str) -> float:
    """In MB. key: `VmRSS`, the memory now, or `VmHWM`, its peak."""
    status = Path(f"/proc/{process_id}/status").read_text()
    match = re.search(rf"{key}:\s+(\d+) kB", status)
    return int(match[1]) * 1024 / 1e6 if match else 0.0


def open_case(kind: Any, path: Path, baseline: float) -> dict[str, Any]:
    """Open a damaged input: outcome, message, seconds, memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    started = time.process_time()
    outcome, message = "read", ""
    try:
        kind.open_damaged(path)
    except JaxclfError as error:
        outcome, message = "refused", str(error)
    except BaseException:  # the faults that are looked for; a panic in Rust is no Exception
        outcome, message = "uncaught", traceback.format_exc()
    seconds = time.process_time() - started
    memory = read_memory("self", "VmHWM") - baseline
    return {
        "outcome": outcome,
        "message": message,
        "seconds": round(seconds, 3),
        "memory": round(memory, 1),
    }


def serve_cases(name: str, connection: Connection) -> None:
    """The child: gets seeds, answers with the damage and then with what came of it."""
    kind = importlib.import_module(KINDS[name])
    with tempfile.TemporaryDirectory() as scratch:
        folder, target = Path(scratch), Path(scratch, "damaged")
        kind.prepare(folder)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        baseline = read_memory("self", "VmRSS")
        while (seed := connection.recv()) is not None:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            path, description = kind.damage(folder, random.Random(seed), target)
            connection.send({"seed": seed, "damage": description})
            connection.send(open_case(kind, path, baseline))


def await_case(process: Any, connection: Connection) -> dict[str, Any]:
    """The child's answer; a child that dies or needs too much is an outcome too."""
    case = connection.recv()
    started, memory, outcome = time.monotonic(), 0.0, "died"
    while not connection.poll(0.05):
        memory = max(memory, read_memory(process.pid, "VmRSS"))
        if memory > KILL_MEMORY or time.monotonic() - started > KILL_SECONDS:
            outcome = "killed"
            process.kill()
            process.join()
    try:
        return case | connection.recv()
    except EOFError:
        seconds = round(time.monotonic() - started, 3)
        return case | {
            "outcome": outcome,
            "message": "",
            "seconds": seconds,
            "memory": round(memory, 1),
        }


def run_cases(name: str, seeds: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Every seed's case, in order. A new child takes over now and then, and after a death."""
    context = multiprocessing.get_context("spawn")
    process = connection = None
    count = 0
    for seed in seeds:
        if connection is None:
            connection, child = context.Pipe()
            process = context.Process(target=serve_cases, args=(name, child), daemon=True)
            process.start()
            child.close()
            count = 0
        connection.send(seed)
        case = await_case(process, connection)
        yield {"kind": name} | case | {"faults": find_faults(case)}
        count += 1
        if case["outcome"] in ("died", "killed"):
            connection = None
        elif count == CASES_OF_A_CHILD:
            connection.send(None)
            connection = None
    if connection is not None:
        connection.send(None)


def find_faults(case: dict[str, Any]) -> list[str]:
    """What must not happen, in words."""
    checks = {
        case["outcome"]: case["outcome"] not in ("read", "refused"),
        "memory": case["memory"] > MAX_MEMORY,
        "slow": case["seconds"] > MAX_SECONDS,
        "long message": case["outcome"] == "refused" and len(case["message"]) > MAX_MESSAGE,
        "control characters": case["outcome"] == "refused"
        and UNPRINTABLE.search(case["message"]) is not None,
    }
    return [name for name, is_fault in checks.items() if is_fault]


def read_cases(path: Path) -> list[dict[str, Any]]:
    """The cases of an earlier command; a line that a kill cut is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def print_cases(name: str, cases: list[dict[str, Any]]) -> bool:
    """A table by kind of damage, the faults, and a summary; whether there is no fault."""
    groups = collections.defaultdict(list)
    for case in cases:
        groups[case["damage"].partition(":")[0]].append(case)
    rows = [
        (
            damage,
            *(str(sum(case["outcome"] == key for case in group)) for key in ("read", "refused")),
            str(sum(bool(case["faults"]) for case in group)),
            f"{max(case['seconds'] for case in group):.2f}",
            f"{max(case['memory'] for case in group):.0f}",
        )
        for damage, group in sorted(groups.items())
    ]
    print_table((name, "read", "refused", "faults", "most s", "most MB"), rows)
    faulty = [case for case in cases if case["faults"]]
    for case in faulty[:20]:
        last = case["message"].strip().splitlines()[-1:] or [""]
        print(f"seed {case['seed']} {case['damage']}: {', '.join(case['faults'])}: {last[0][:200]}")
    print(
        f"{name}: {len(cases):,} damaged, {len(cases) - len(faulty):,} read or refused as they "
        f"must be, {len(faulty)} faults; at most "
        f"{max((case['seconds'] for case in cases), default=0):.2f} s and "
        f"{max((case['memory'] for case in cases), default=0):.0f} MB"
    )
    return not faulty


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in KINDS:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help="inputs of it")
    parser.add_argument("--out", type=Path, help="JSON lines of all cases, to resume from")
    parser.add_argument("--only", type=int, metavar="SEED", help="one input, with its message")
    args = parser.parse_args()
    is_good = True
    for name in KINDS:
        total = getattr(args, name)
        if args.only is not None and total:
            for case in run_cases(name, [args.only]):
                print(json.dumps(case, indent=1, ensure_ascii=False).replace("\\n", "\n"))
            continue
        finished = read_cases(args.out) if args.out else []
        cases = {case["seed"]: case for case in finished if case["kind"] == name}
        for case in run_cases(name, [seed for seed in range(total) if seed not in cases]):
            cases[case["seed"]] = case
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(case) + "\n")
        if total:
            is_good &= print_cases(name, [cases[seed] for seed in range(total)])
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
