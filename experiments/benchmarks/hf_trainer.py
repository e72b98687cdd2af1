"""The baseline: Hugging Face Trainer's plain recipe on the same encoder and the same rows.

    python -m experiments.benchmarks.hf_trainer --encoder FOLDER --data data/goemotions/ekman --out runs/hf_ekman

Trainer's defaults (AdamW, learning rate 5e-5 with linear decay, no weight decay, no warm-up), BCE,
batch size 32, dynamic padding, the last checkpoint. Writes `predictions/{val,test}.npz` as jaxclf
does, so that `jaxclf evaluate --run` applies the same calibration, threshold rule and metrics, and
`peer.json` with the speed. It needs the extra [parity].
"""  # noqa: E501

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def label_names(rows: list[dict]) -> list[str]:
    """Sorted names, as jaxclf orders labels that come as lists."""
    return sorted({name for row in rows for name in row["labels"]})


def encode(rows: list[dict], names: list[str], tokenizer, max_length: int) -> list[dict]:
    ids = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length)
    return [
        {
            "input_ids": ids["input_ids"][index],
            "attention_mask": ids["attention_mask"][index],
            "labels": [float(name in row["labels"]) for name in names],
        }
        for index, row in enumerate(rows)
    ]


class SpeedMeter(TrainerCallback):
    """Examples per second over windows of `every` steps, without the first window (warm-up)."""

    def __init__(self, every: int, batch_size: int):
        self.every, self.batch_size, self.rates, self.start = every, batch_size, [], None

    def on_step_end(self, args, state, control, **_):
        if state.global_step % self.every == 0:
            now = time.perf_counter()
            if self.start is not None:
                self.rates.append(self.every * self.batch_size / (now - self.start))
            self.start = now


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", required=True, help="a local folder or a hub id")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with {train,val,test}.jsonl"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument(
        "--max-steps", type=int, default=-1, help="stop after this many steps, to measure the speed"
    )
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()

    set_seed(args.seed)
    splits = {name: read_rows(args.data / f"{name}.jsonl") for name in ("train", "val", "test")}
    names = label_names(splits["train"])
    tokenizer = AutoTokenizer.from_pretrained(args.encoder)
    encoded = {
        name: encode(rows, names, tokenizer, args.max_length) for name, rows in splits.items()
    }
    model = AutoModelForSequenceClassification.from_pretrained(
        args.encoder, num_labels=len(names), problem_type="multi_label_classification"
    )
    # A short run has short windows.
    every = 20 if args.max_steps < 0 else max(min(20, args.max_steps // 2), 1)
    meter = SpeedMeter(every, args.batch)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(args.out / "trainer"),
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch,
            per_device_eval_batch_size=args.batch,
            learning_rate=args.lr,
            seed=args.seed,
            save_strategy="no",
            report_to=[],
            logging_steps=100,
        ),
        train_dataset=encoded["train"],
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[meter],
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start

    speed = {
        "encoder": Path(args.encoder).name,
        "epochs": args.epochs,
        "batch": args.batch,
        "lr": args.lr,
        "seed": args.seed,
        "max_steps": args.max_steps,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "train_seconds": seconds,
        "train_examples_per_second": {
            "min": min(meter.rates),
            "median": float(np.median(meter.rates)),
            "max": max(meter.rates),
        },
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "peer.json").write_text(json.dumps(speed, indent=2) + "\n")
    print(json.dumps(speed, indent=2), flush=True)
    if args.max_steps > 0:
        return

    (args.out / "predictions").mkdir(exist_ok=True)
    (args.out / "labels.json").write_text(json.dumps(names) + "\n")
    for split in ("val", "test"):
        logits = np.asarray(trainer.predict(encoded[split]).predictions)  # type: ignore[arg-type]
        np.savez(
            args.out / "predictions" / f"{split}.npz",
            ids=np.array([row["id"] for row in splits[split]]),
            probs=1 / (1 + np.exp(-logits.astype(np.float64))).astype(np.float32),
            labels=np.array([row["labels"] for row in encoded[split]], np.float32),
            split=split,
        )


if __name__ == "__main__":
    main()
