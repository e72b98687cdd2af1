"""Label a large file, uninterrupted and killed five times: the same bytes, in bounded memory.

    python -m experiments.benchmarks.killed --run runs/ekman/members/goemotions_ekman-seed0 --data data/goemotions/ekman/test.jsonl --rows 100000 --out killed.json

The file's texts are repeated up to ROWS. Memory is the peak of the process (VmHWM) after each tenth
of the rows; a kill is SIGKILL at a random row.
"""  # noqa: E501

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxclf.inference.score_file import CHUNK_ROWS

NUM_KILLS = 5


def start(run: Path, source: Path, target: Path) -> subprocess.Popen:
    words = ["--run", str(run), "--input", str(source), "--output", str(target)]
    command = [sys.executable, "-m", "jaxclf", "predict", *words]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def count_rows(target: Path) -> int:
    """Finished rows, as the command records them."""
    journal = target.with_name(target.name + ".progress.json")
    return json.loads(journal.read_text())["rows"] if journal.is_file() else 0


def peak_memory(process: subprocess.Popen) -> float:
    """In MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) / 1024 if match else 0.0


def run_uninterrupted(
    run: Path, source: Path, target: Path, rows: int
) -> tuple[float, list[float]]:
    """(seconds, peak memory after each tenth)."""
    started, peaks = time.perf_counter(), []
    process = start(run, source, target)
    while process.poll() is None:
        if count_rows(target) >= rows * (len(peaks) + 1) / 10:
            peaks.append(round(peak_memory(process), 1))
        time.sleep(0.05)
    assert process.returncode == 0
    return time.perf_counter() - started, peaks


def run_killed(run: Path, source: Path, target: Path, rows: int) -> list[int]:
    """Finished rows at each kill."""
    rows_at_kill = []
    # Rows are written in chunks: the command must not end with the chunk of the last kill.
    last = min(rows * 19 // 20, rows - 2 * CHUNK_ROWS)
    for aim in sorted(random.Random(0).sample(range(rows // 20, last), NUM_KILLS)):
        process = start(run, source, target)
        while count_rows(target) < aim:
            assert process.poll() is None, "the command ended before the kill"
            time.sleep(0.02)
        process.kill()
        process.wait()
        rows_at_kill.append(count_rows(target))
    assert start(run, source, target).wait() == 0
    return rows_at_kill


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with texts")
    parser.add_argument("--rows", type=int, default=100_000, help="default: 100000")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    args = parser.parse_args()
    lines = args.data.read_text(encoding="utf-8").splitlines()
    texts = [json.dumps(json.loads(line)["text"]) for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        names = ("input", "uninterrupted", "killed")
        source, expected, target = (Path(folder) / f"{name}.jsonl" for name in names)
        with source.open("w", encoding="utf-8") as file:
            for row in range(args.rows):
                file.write(f'{{"id": {row}, "text": {texts[row % len(texts)]}}}\n')
        seconds, peaks = run_uninterrupted(args.run, source, expected, args.rows)
        kills = run_killed(args.run, source, target, args.rows)
        result = {
            "rows": args.rows,
            "seconds": round(seconds, 1),
            "peak_mib_after_each_tenth": peaks,
            "rows_at_each_kill": kills,
            "identical": expected.read_bytes() == target.read_bytes(),
        }
    print(json.dumps(result, indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
