"""A large file scored by the command, whole and killed five times: the same bytes, at flat memory.

    python experiments/benchmarks/killed.py --run DIR --data FILE --rows 100000 --out killed.json

The file's texts are repeated to so many rows. Memory is the process's own peak (VmHWM), read after
each tenth of the rows; a kill is SIGKILL at a random row.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KILLS = 5


def begin(run: Path, source: Path, target: Path) -> subprocess.Popen:
    words = ["--run", str(run), "--input", str(source), "--output", str(target)]
    return subprocess.Popen(
        [sys.executable, "-m", "jaxclf.predict", *words], stderr=subprocess.DEVNULL
    )


def rows_of(target: Path) -> int:
    """Rows that are on the disk, as the command's own account of them says."""
    account = target.with_name(target.name + ".progress.json")
    return json.loads(account.read_text())["rows"] if account.is_file() else 0


def peak(process: subprocess.Popen) -> float:
    """MiB"""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def whole(run: Path, source: Path, target: Path, rows: int) -> tuple[float, list[float]]:
    """(seconds, peak after each tenth)"""
    began, peaks = time.perf_counter(), []
    process = begin(run, source, target)
    while process.poll() is None:
        if rows_of(target) >= rows * (len(peaks) + 1) / 10:
            peaks.append(round(peak(process), 1))
        time.sleep(0.05)
    assert process.returncode == 0
    return time.perf_counter() - began, peaks


def torn(run: Path, source: Path, target: Path, rows: int) -> list[int]:
    """Rows on the disk at each kill."""
    at = []
    for aim in sorted(random.Random(0).sample(range(rows // 20, rows * 19 // 20), KILLS)):
        process = begin(run, source, target)
        while rows_of(target) < aim:
            assert process.poll() is None, "it ended before the kill"
            time.sleep(0.02)
        process.kill()
        process.wait()
        at.append(rows_of(target))
    assert begin(run, source, target).wait() == 0
    return at


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
        source, one, other = (Path(folder) / f"{name}.jsonl" for name in ("in", "whole", "torn"))
        with source.open("w", encoding="utf-8") as file:
            for row in range(args.rows):
                file.write(f'{{"id": {row}, "text": {texts[row % len(texts)]}}}\n')
        seconds, peaks = whole(args.run, source, one, args.rows)
        kills = torn(args.run, source, other, args.rows)
        result = {
            "rows": args.rows,
            "seconds": round(seconds, 1),
            "peak_mib_after_each_tenth": peaks,
            "rows_at_each_kill": kills,
            "identical": one.read_bytes() == other.read_bytes(),
        }
    print(json.dumps(result, indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
