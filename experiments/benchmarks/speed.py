"""Training speed side by side: Hugging Face Trainer and jaxclf by turns on one machine, same rows,
same batch.

    python experiments/benchmarks/speed.py --encoder FOLDER --data DIR --out a.json

Each round trains one epoch over the first ROWS rows with each, dynamic padding there, packed rows
here, batch 32, dropout 0.1 in both. A rate is the median of examples per second over windows (20
steps there, 10 here), compilation and warm-up left out; the ratio is taken within a round.
Run it on an idle machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def first_rows(source: Path, rows: dict[str, int], target: Path) -> None:
    """The first rows of each split, as a data folder."""
    target.mkdir()
    for split, count in rows.items():
        lines = (source / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        (target / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def time_trainer(encoder: str, data: Path, out: Path, steps: int) -> float:
    command = [sys.executable, str(HERE / "hf_trainer.py"), "--encoder", encoder]
    command += ["--data", str(data), "--out", str(out), "--max-steps", str(steps)]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads((out / "peer.json").read_text())["train_examples_per_second"]["median"]


def time_jaxclf(encoder: str, data: Path, out: Path) -> tuple[float, float]:
    """(examples per second, share of the packed rows that holds tokens)."""
    command = [sys.executable, "-m", "jaxclf.train", "--exp", "goemotions_ekman", "--out", str(out)]
    command += [f"encoder.name={encoder}", "train.epochs=1"]
    command += [f"data.{split}={data / f'{split}.jsonl'}" for split in ("train", "val", "test")]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line][1:]
    return (
        statistics.median(line["examples_per_second"] for line in steps),
        statistics.mean(line["fill"] for line in steps),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="a local folder")
    parser.add_argument("--data", type=Path, required=True, help="data/goemotions/ekman")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    parser.add_argument("--rows", type=int, default=3200, help="default: 3200")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    args = parser.parse_args()

    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        first_rows(args.data, {"train": args.rows, "val": 200, "test": 200}, data)
        for number in range(args.rounds):
            theirs = time_trainer(
                args.encoder, data, Path(scratch) / f"hf{number}", args.rows // 32
            )
            ours, fill = time_jaxclf(args.encoder, data, Path(scratch) / f"jaxclf{number}")
            rounds.append({"trainer": theirs, "jaxclf": ours, "ratio": ours / theirs, "fill": fill})
            print(json.dumps(rounds[-1]), flush=True)
    ratios = sorted(one["ratio"] for one in rounds)
    summary = {"min": ratios[0], "median": statistics.median(ratios), "max": ratios[-1]}
    args.out.write_text(json.dumps({"rounds": rounds, "ratio": summary}, indent=2) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
