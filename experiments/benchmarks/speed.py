"""Training speed: Hugging Face Trainer and jaxclf in turn, on the same rows and batch size.

    python -m experiments.benchmarks.speed --encoder FOLDER --data data/goemotions/ekman --out speed.json

Each round trains both for one epoch on the first ROWS rows, Trainer with dynamic padding and jaxclf
with packed rows, batch size 32, dropout 0.1. A rate is the median of examples per second over
windows of steps, without compilation and warm-up. The ratio is taken within a round. Run it on an
idle machine. It needs the extra [parity].
"""  # noqa: E501

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BATCH_SIZE = 32


def copy_rows(source: Path, counts: dict[str, int], target: Path) -> None:
    """The first rows of each split, as a data folder."""
    target.mkdir()
    for split, count in counts.items():
        lines = (source / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        (target / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def time_trainer(encoder: str, data: Path, out: Path, steps: int) -> float:
    """Examples per second of Trainer."""
    command = [sys.executable, "-m", "experiments.benchmarks.hf_trainer", "--encoder", encoder]
    command += ["--data", str(data), "--out", str(out), "--max-steps", str(steps)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "peer.json").read_text())["train_examples_per_second"]["median"]


def time_jaxclf(encoder: str, data: Path, out: Path) -> dict[str, float]:
    """Examples per second of jaxclf, and the fraction of the packed rows that holds tokens."""
    command = [sys.executable, "-m", "jaxclf", "train", "--exp", "goemotions_ekman", "--quiet"]
    command += ["--out", str(out), f"encoder.name={encoder}", "train.epochs=1"]
    command += [f"data.{split}={data / f'{split}.jsonl'}" for split in ("train", "val", "test")]
    command += [f"train.batch_size={BATCH_SIZE}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "examples_per_second" in line]
    steps = steps[1:] or steps  # the first window compiles
    return {
        "jaxclf": statistics.median(step["examples_per_second"] for step in steps),
        "packing_efficiency": statistics.mean(step["packing_efficiency"] for step in steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="a local folder")
    parser.add_argument("--data", type=Path, required=True, help="data/goemotions/ekman")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    parser.add_argument("--rows", type=int, default=3200, help="at least 640; default: 3200")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    args = parser.parse_args()

    encoder = str(Path(args.encoder).resolve())
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        copy_rows(args.data, {"train": args.rows, "val": 200, "test": 200}, scratch / "data")
        for index in range(args.rounds):
            steps = args.rows // BATCH_SIZE
            trainer = time_trainer(encoder, scratch / "data", scratch / f"hf{index}", steps)
            rates = time_jaxclf(encoder, scratch / "data", scratch / f"jaxclf{index}")
            ratio = rates["jaxclf"] / trainer
            rounds.append({"trainer": trainer, **rates, "ratio": ratio})
            print(json.dumps(rounds[-1]), flush=True)
    ratios = sorted(values["ratio"] for values in rounds)
    summary = {"min": ratios[0], "median": statistics.median(ratios), "max": ratios[-1]}
    args.out.write_text(json.dumps({"rounds": rounds, "ratio": summary}, indent=2) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
