"""Kill or stop real trainings again and again: the same bits as without an interruption.

    python -m experiments.benchmarks.soak --kills 50 --signals 40 --out soak.json

A tiny encoder trains on rows of the demonstration set with dropout, gradient accumulation, augmentation
and a moving average. A kill is SIGKILL. A signal is SIGINT or SIGTERM, half of them twice within 50 ms:
the command must end with 130 or 143, one line and no traceback. The phase of a run is read off its
folder and its log; some kills of each phase are aimed at. One folder is interrupted up to ten times,
then trains to its end, and its weights, predictions and report are compared with those of a run that
was left alone. All processes but those that are interrupted at their start are forks of a process that
has imported the package. With --folder DIR a stopped benchmark resumes.
"""  # noqa: E501

import argparse
import collections
import itertools
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmarks.readme_commands import make_encoder

ROOT = Path(__file__).parent.parent.parent
ROWS = {"train": 96, "val": 48, "test": 48}
CHANGES = (
    "augment=eda",
    "data.max_length=32",
    "encoder.dtype=float32",
    "optim.gradient_accumulation_steps=2",
    "regularization.ema_decay=0.9",
    "train.batch_size=4",
    "train.checkpoint_every=1",
    "train.epochs=4",
)
RESULTS = (
    "model/model.safetensors",
    "model/head.safetensors",
    "predictions/val.npz",
    "predictions/test.npz",
    "thresholds.json",
    "report.json",
)
# Of the interruptions, the share that is aimed at each phase.
SHARES = {"start": 0.15, "training": 0.2, "save": 0.4, "evaluation": 0.15, "results": 0.1}
PER_FOLDER = 10  # interruptions
POLL = 0.001  # seconds between looks at a run
# Longest seconds from the begin of a phase to an interruption.
DELAYS = {"start": 8.0, "training": 0.06, "save": 0.06, "evaluation": 0.04, "results": 0.4}
BAD_OUTPUT = re.compile("Traceback|Exception ignored|Error|error:")


# Imports once, then forks for each line of stdin; prints the process id and then the exit code.
FORK = """
import json, os, sys
import jaxclf.training.run
from jaxclf.cli import main

for line in sys.stdin:
    words, log = json.loads(line)
    pid = os.fork()
    if not pid:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["jaxclf", *words]
        sys.exit(main())
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forked:
    """A training in a fork of a process that has imported the package; as subprocess.Popen."""

    def __init__(self, parent: subprocess.Popen, words: list[str], log: Path):
        assert parent.stdin is not None
        assert parent.stdout is not None
        self.stdout, self.code = parent.stdout, None
        parent.stdin.write(json.dumps([words, str(log)]).encode() + b"\n")
        self.pid = int(self.stdout.readline())

    def poll(self) -> int | None:
        if self.code is None and select.select([self.stdout], [], [], 0)[0]:
            return self.wait()
        return self.code

    def wait(self) -> int:
        self.code = int(self.stdout.readline()) if self.code is None else self.code
        return self.code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Interruption(NamedTuple):
    """One interruption of a run, and what became of the process."""

    phase: str
    signals: list[int]
    resumed_after: int  # the batch of the checkpoint that the process began with
    code: int
    seconds: float  # from the signal to the end
    is_clean: bool  # its exit code and output are as documented


class Run:
    """A process that trains in a folder, and what can be seen of it from outside."""

    def __init__(self, folder: Path, out: Path, parent: subprocess.Popen | None = None):
        self.out, self.log = out, out.with_suffix(".log")
        self.old, self.newest = self.unfinished(), self.newest_batch()
        files = [f"data.{split}={folder / split}.json" for split in ROWS]
        words = ["train", "--exp", "focal_attention", "--out", str(out), *files, *CHANGES]
        words.append(f"encoder.name={folder / 'encoder'}")
        self.started = time.time()
        self.log.write_text("")
        if parent is not None:
            self.process = Forked(parent, words, self.log)
            return
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "jaxclf", *words]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment(folder), stdout=log, stderr=log
            )

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def unfinished(self) -> set[tuple[str, int]]:
        """The checkpoints that are being written or deleted, or were when a kill came."""
        entries = _entries(self.out / "integrity")
        return {
            (entry.name, entry.inode()) for entry in entries if entry.name.endswith(".incomplete")
        }

    def newest_batch(self) -> int:
        """The batch of the newest checkpoint."""
        names = [Path(entry.name) for entry in _entries(self.out / "integrity")]
        return max((int(name.stem) for name in names if name.suffix == ".json"), default=0)

    def resumed_after(self) -> int:
        match = re.search(r"resumed after batch (\d+)", self.output())
        return int(match[1]) if match else 0

    def handles_signals(self) -> bool:
        """Whether the command has begun: before, Python itself answers signals."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except FileNotFoundError:
            return False
        match = re.search(r"SigCgt:\s+(\w+)", status)
        return bool(match and int(match[1], 16) & 1 << (signal.SIGTERM - 1))

    def phase(self) -> str:
        output = self.output()
        epochs = re.findall(r"^epoch (\d+) of (\d+)|^ *val ", output, re.M)
        predictions = self.out / "predictions" / "test.npz"
        if predictions.exists() and predictions.stat().st_mtime > self.started:
            return "results"
        if epochs and epochs[-1][0]:
            return "evaluation"
        if self.unfinished() - self.old:
            return "save"
        if self.newest_batch() > self.newest:
            return "training"
        return "training" if "resumed after" in output else "start"

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait until the condition is true; False if the process ends before."""
        while self.process.poll() is None:
            if condition():
                return True
            time.sleep(POLL)
        return False

    def wait_for_phase(self, phase: str, rng: random.Random) -> bool:
        """Wait for a moment in a phase; False if the process ends before."""
        batches = self.newest + rng.randint(1, 6)
        if phase == "start":
            is_reached = self.wait_for(self.handles_signals)
        elif phase in ("training", "save"):
            is_reached = self.wait_for(lambda: self.newest_batch() >= batches) and self.wait_for(
                lambda: self.phase() == phase
            )
        else:
            is_reached = self.wait_for(lambda: self.phase() == phase)
        end = time.monotonic() + rng.uniform(0, DELAYS[phase])
        return is_reached and self.wait_for(lambda: time.monotonic() >= end)

    def interrupt(self, numbers: list[int], rng: random.Random) -> Interruption:
        """Send signals and wait for the end of the process."""
        phase, started = self.phase(), time.monotonic()
        for index, number in enumerate(numbers):
            time.sleep(rng.uniform(0, 0.05) if index else 0)
            self.process.send_signal(number)
        code = self.process.wait()
        seconds = time.monotonic() - started
        if numbers[0] == signal.SIGKILL:
            phase, is_clean = self.phase(), code == -signal.SIGKILL
        else:
            # The signal's own action, without a line, is that of a command that has ended.
            lines = re.findall("^stopped", self.output(), re.M)
            is_line = len(lines) == 1 and code == 128 + numbers[0]
            has_ended = "\nreport: " in self.output() and code in [-number for number in numbers]
            is_clean = (is_line or has_ended) and not BAD_OUTPUT.search(self.output())
        return Interruption(phase, numbers, self.resumed_after(), code, seconds, is_clean)


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        return list(os.scandir(folder))
    except FileNotFoundError:
        return []


def environment(folder: Path) -> dict[str, str]:
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        **os.environ,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
    }


def start_parent(folder: Path) -> subprocess.Popen:
    """Start the process that forks."""
    return subprocess.Popen(
        [sys.executable, "-c", FORK],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(folder),
    )


def make_inputs(folder: Path) -> None:
    """Write the data and the encoder of all runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in ROWS.items():
        path = ROOT / "data" / f"{split}_data.json"
        rows = json.loads(path.read_text(encoding="utf-8"))[:count]
        (folder / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    if not (folder / "encoder").exists():
        make_encoder(folder / "encoder", [row["text"] for row in rows])


def differing_files(expected: Path, out: Path) -> list[str]:
    """The results that are not the same bytes."""
    return [name for name in RESULTS if (out / name).read_bytes() != (expected / name).read_bytes()]


def draw_signals(kind: str, index: int, rng: random.Random) -> list[int]:
    if kind == "kills":
        return [int(signal.SIGKILL)]
    number = int((signal.SIGINT, signal.SIGTERM)[index % 2])
    return [number] * (1 + index // 2 % 2)


def choose_phase(counts: collections.Counter[str]) -> str:
    """The phase that is furthest behind its share."""
    return min(SHARES, key=lambda phase: (counts[phase] + 1) / SHARES[phase])


def interrupt_runs(
    folder: Path, kind: str, total: int, log: Callable[[str], None] = print
) -> Iterator[dict[str, Any]]:
    """Interrupt runs `total` times; yields a record for each folder that has trained to its end."""
    expected = folder / "expected"
    make_inputs(folder)
    with start_parent(folder) as parent:
        if not (expected / "report.json").exists():
            run = Run(folder, expected, parent)
            assert run.process.wait() == 0, run.output()
        done, counts = 0, collections.Counter[str]()
        for number in itertools.count():
            out, rng, interruptions = folder / f"{kind}-{number}", random.Random(number), []
            record_path = folder / f"{kind}-{number}.json"
            if record_path.exists():
                record = json.loads(record_path.read_text())
                done += len(record["interruptions"])
                counts.update(part["phase"] for part in record["interruptions"])
                yield record
                continue
            if done >= total:
                return
            while True:
                index, phase = done + len(interruptions), choose_phase(counts)
                is_last = len(interruptions) == PER_FOLDER or index == total
                # What is interrupted while it imports must be a process of its own.
                run = Run(folder, out, None if phase == "start" and not is_last else parent)
                if is_last or not run.wait_for_phase(phase, rng):
                    break
                numbers = draw_signals(kind, index, rng)
                interruptions.append(run.interrupt(numbers, rng))
                counts[interruptions[-1].phase] += 1
                log(f"{kind} {index + 1}: {interruptions[-1]}")
                if not interruptions[-1].is_clean:
                    log(run.output())
            code, done = run.process.wait(), done + len(interruptions)
            differing = differing_files(expected, out) if code == 0 else [run.output()]
            log(f"{out.name}: exit code {code}, different: {differing or 'nothing'}")
            record = {
                "interruptions": [part._asdict() for part in interruptions],
                "finished_from": run.resumed_after(),
                "different": differing,
            }
            record_path.write_text(json.dumps(record))
            yield record


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of the table in the README."""
    parts = [part for record in records for part in record["interruptions"]]
    return {
        "interruptions": len(parts),
        "by_phase": dict(collections.Counter(part["phase"] for part in parts)),
        "clean": sum(part["is_clean"] for part in parts),
        "restarts_above_zero": sum(part["resumed_after"] > 0 for part in parts)
        + sum(record["finished_from"] > 0 for record in records),
        "longest_seconds": round(max(part["seconds"] for part in parts), 1),
        "folders": len(records),
        "identical_folders": sum(not record["different"] for record in records),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs (default: 0)")
    parser.add_argument("--signals", type=int, default=0, help="SIGINTs and SIGTERMs (default: 0)")
    parser.add_argument("--folder", type=Path, help="keep runs here (default: removed at the end)")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    # A shell that starts this in the background lets the runs ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for kind in ("kills", "signals"):
            if total := getattr(args, kind):
                records = list(interrupt_runs(folder.resolve(), kind, total))
                result[kind] = summarize(records)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    parts = result.values()
    are_equal = all(part["identical_folders"] == part["folders"] for part in parts)
    return 0 if are_equal and all(part["clean"] == part["interruptions"] for part in parts) else 1


if __name__ == "__main__":
    sys.exit(main())
