"""Scoring speed: jaxclf, the Hugging Face pipeline and onnxruntime in turn, same texts, float32.

    python -m experiments.benchmarks.scoring --run runs/ekman/members/goemotions_ekman-seed0 --data data/goemotions/ekman/test.jsonl --out scoring.json

jaxclf labels a file with the run's network as `jaxclf predict` does, so its time includes reading,
checking, packing and writing. The peers get the texts, and the run's encoder with the plain head of
transformers: the pipeline in batches of 32 in the file's order, onnxruntime in batches of 32 sorted
by length and padded to the longest. All three tokenize within the time; loading, compiling and the
first texts are not counted. Each turn is its own process. The peers truncate a text at
data.max_length, where jaxclf reads further windows. Run it on an idle machine. It needs the extras
[onnx] and [parity].
"""  # noqa: E501

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BATCH_SIZE, NUM_WARMUP = 32, 64


def make_jaxclf(run: Path, texts: list[str]) -> Callable[[], object]:
    from jaxclf.inference.load import load
    from jaxclf.inference.score_file import predict_file

    classifier = load(run)
    folder = Path(tempfile.mkdtemp())
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    classifier.predict_proba(texts[:NUM_WARMUP])
    return lambda: predict_file(classifier, folder / "texts.jsonl", folder / "scored.jsonl")


def load_with_transformers(run: Path) -> tuple:
    """The run's encoder with a plain head, its tokenizer, and data.max_length."""
    import transformers

    transformers.logging.set_verbosity_error()
    experiment = json.loads((run / "config.json").read_text(encoding="utf-8"))
    labels = json.loads((run / "labels.json").read_text(encoding="utf-8"))
    folder = str(run / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(labels), problem_type="multi_label_classification"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer, experiment["data"]["max_length"]


def make_pipeline(run: Path, texts: list[str]) -> Callable[[], object]:
    import transformers

    model, tokenizer, length = load_with_transformers(run)
    pipe = transformers.pipeline(
        "text-classification",
        model=model,
        tokenizer=tokenizer,
        batch_size=BATCH_SIZE,
        top_k=None,
        function_to_apply="sigmoid",
    )
    options = {"truncation": True, "max_length": length}
    pipe(texts[:NUM_WARMUP], **options)
    return lambda: pipe(texts, **options)


def make_onnxruntime(run: Path, texts: list[str]) -> Callable[[], object]:
    import onnxruntime
    import torch

    model, tokenizer, length = load_with_transformers(run)
    path = str(Path(tempfile.mkdtemp()) / "model.onnx")
    sample = torch.ones((2, 7), dtype=torch.long)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        model,
        (sample, sample),
        path,
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names},
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def score(texts: list[str]) -> np.ndarray:
        ids = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
        order = np.argsort([len(row) for row in ids], kind="stable")
        logits = np.empty((len(texts), model.config.num_labels), np.float32)
        for first in range(0, len(texts), BATCH_SIZE):
            rows = order[first : first + BATCH_SIZE]
            batch = np.zeros((len(rows), len(ids[rows[-1]])), np.int64)
            mask = np.zeros_like(batch)
            for slot, row in enumerate(rows):
                batch[slot, : len(ids[row])], mask[slot, : len(ids[row])] = ids[row], 1
            (outputs,) = session.run(None, {"input_ids": batch, "attention_mask": mask})
            logits[rows] = np.asarray(outputs)
        return 1 / (1 + np.exp(-logits))

    score(texts[:NUM_WARMUP])
    return lambda: score(texts)


PEERS = {"jaxclf": make_jaxclf, "pipeline": make_pipeline, "onnxruntime": make_onnxruntime}


def measure_rate(name: str, run: Path, texts: list[str]) -> float:
    """Texts per second."""
    score = PEERS[name](run, texts)
    start = time.perf_counter()
    score()
    return len(texts) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--data", type=Path, required=True, help="a JSONL file with texts")
    parser.add_argument("--rows", type=int, help="only the first rows; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()

    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.rows]
    texts = [json.loads(line)["text"] for line in lines]
    if args.peer:
        print(measure_rate(args.peer, args.run, texts))
        return
    rounds = []
    for _ in range(args.rounds):
        turn = {}
        for name in PEERS:
            command = [
                sys.executable,
                "-m",
                "experiments.benchmarks.scoring",
                "--run",
                str(args.run),
                "--data",
                str(args.data),
            ]
            command += ["--rows", str(len(texts)), "--peer", name]
            process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            turn[name] = float(process.stdout.split()[-1])
        rounds.append(turn)
        print(json.dumps(turn), flush=True)
    ratios = {
        name: sorted(turn["jaxclf"] / turn[name] for turn in rounds)
        for name in PEERS
        if name != "jaxclf"
    }
    summary = {
        name: {"min": values[0], "median": statistics.median(values), "max": values[-1]}
        for name, values in ratios.items()
    }
    print(json.dumps(summary))
    if args.out:
        result = {"texts": len(texts), "texts_per_second": rounds, "ratio": summary}
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
