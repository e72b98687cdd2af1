"""Train on disks that get full: one line, exit code 5, and the same bits once there is room.

    python -m experiments.benchmarks.full_disk --out full_disk.json

It needs root, since each case mounts a small tmpfs. There are 20 cases: 4 sizes at which the check before
training refuses, 11 at which the check is off and a write fails, and 5 disks that another program fills
just before a file is written. The disk is then enlarged, and the same command must finish with the bits of
a run on a large disk.
"""  # noqa: E501

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from experiments.benchmarks.soak import (
    BAD_OUTPUT,
    CHANGES,
    ROOT,
    ROWS,
    differing_files,
    environment,
    make_inputs,
)
from jaxclf import cli

CHECKED, UNCHECKED = 4, 11
# The function before which another program fills the disk.
FILLED_BEFORE = (
    "jaxclf.training.checkpoint.save",
    "jaxclf.training.evaluation.save_predictions",
    "jaxclf.training.evaluation.save_model",
    "jaxclf.training.evaluation.write_page",
    "jaxclf.training.evaluation.diagnose",
)
ENOUGH = 2**30


class Case(NamedTuple):
    size: int  # bytes of the disk
    is_checked: bool
    filled_before: str


def train(arguments: list[str], is_checked: bool, filled_before: str) -> int:
    """Run a command in this process, with its checks of free space and the other program."""
    with contextlib.ExitStack() as stack:
        if not is_checked:
            for module in ("jaxclf.training.checkpoint", "jaxclf.files.atomic"):
                stack.enter_context(mock.patch(f"{module}.require_space"))
        if filled_before:
            module_name, name = filled_before.rsplit(".", 1)
            original = getattr(importlib.import_module(module_name), name)
            filler = Path(arguments[arguments.index("--out") + 1]).parent / "filler"

            def fill_disk(*args: Any, **options: Any) -> Any:
                with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))
                return original(*args, **options)

            stack.enter_context(mock.patch(filled_before, fill_disk))
        return cli.main(arguments)


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """A disk of `size` bytes."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def run_training(
    inputs: Path, out: Path, is_checked: bool = True, filled_before: str = ""
) -> subprocess.CompletedProcess:
    """Run `jaxclf train` in a process of its own."""
    files = [f"data.{split}={inputs / split}.json" for split in ROWS]
    words = ["train", "--exp", "focal_attention", "--out", str(out), *files, *CHANGES]
    options = json.dumps(
        [[*words, f"encoder.name={inputs / 'encoder'}"], is_checked, filled_before]
    )
    command = [sys.executable, "-m", "experiments.benchmarks.full_disk", "--train", options]
    return subprocess.run(
        command, cwd=ROOT, env=environment(inputs), capture_output=True, text=True
    )


def run_case(inputs: Path, disk: Path, case: Case) -> dict[str, Any]:
    """Train on the small disk, then on the same disk enlarged."""
    with mounted(disk, case.size):
        failed = run_training(inputs, disk / "run", case.is_checked, case.filled_before)
        (disk / "filler").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", str(disk)], check=True)
        finished = run_training(inputs, disk / "run")
        is_finished = finished.returncode == 0
        different = differing_files(inputs / "expected", disk / "run") if is_finished else []
    output = failed.stdout + failed.stderr
    message = [line for line in output.splitlines() if line.startswith("error: ")]
    return {
        **case._asdict(),
        "code": failed.returncode,
        "message": message[0].replace(str(disk), "DISK") if message else output[-2000:],
        "is_clean": failed.returncode == 5
        and len(message) == 1
        and len(BAD_OUTPUT.findall(output)) == 1,
        "is_same_with_room": is_finished and not different,
        "with_room": different if is_finished else finished.stderr[-2000:],
    }


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def make_cases(need: int) -> Iterator[Case]:
    """The disks; `need` is the size of a finished run folder in bytes."""
    for number in range(1, CHECKED + 1):
        yield Case(need * number // (CHECKED + 1), True, "")
    for number in range(1, UNCHECKED + 1):
        yield Case(need * number // (UNCHECKED + 1), False, "")
    for name in FILLED_BEFORE:
        yield Case(ENOUGH // 4, True, name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--train", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        return train(*args.train)
    if os.geteuid():
        parser.error("mounting a disk needs root")
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Path(temporary) / "inputs"
        make_inputs(inputs)
        expected = run_training(inputs, inputs / "expected")
        assert expected.returncode == 0, expected.stderr
        records = []
        for number, case in enumerate(make_cases(folder_size(inputs / "expected"))):
            records.append(run_case(inputs, Path(temporary) / f"disk{number}", case))
            print(json.dumps(records[-1]), flush=True)
    passed = sum(record["is_clean"] and record["is_same_with_room"] for record in records)
    print(f"{passed} of {len(records)} as documented")
    if args.out:
        args.out.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0 if passed == len(records) else 1


if __name__ == "__main__":
    sys.exit(main())
