"""Prediction speed: jaxclf, and onnxruntime with padded, packed and eight-bit graphs, in turn.

    python -m experiments.benchmarks.onnx_speed --run runs/ekman/members/goemotions_ekman-seed0 --data data/goemotions/ekman/test.jsonl --out onnx_speed.json

Each starts from texts and ends with probabilities, so tokenizing is included. The padded graphs run
as onnxruntime is mostly used: texts sorted by length, 32 at a time, each batch padded to its
longest; of a text longer than a row they read the first window only. A rate is texts per second of
one round over all rows, after one that is not counted. Ratios are taken within a round. Run it on
an idle machine.
"""  # noqa: E501

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 32


def make_padded_scorer(folder: Path, threads: int) -> Callable[[Sequence[str]], np.ndarray]:
    """texts -> probabilities, by plain tokenizers and onnxruntime."""
    import onnxruntime
    import tokenizers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    metadata = session.get_modelmeta().custom_metadata_map
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(json.loads(metadata["max_length"]))
    tokenizer.no_padding()

    def score(texts: Sequence[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        probs = np.zeros((len(ids), len(json.loads(metadata["labels"]))), np.float32)
        for first in range(0, len(ids), BATCH_SIZE):
            chosen = order[first : first + BATCH_SIZE]
            rows = np.zeros((len(chosen), len(ids[chosen[-1]])), np.int64)
            mask = np.zeros_like(rows)
            for row, index in enumerate(chosen):
                rows[row, : len(ids[index])], mask[row, : len(ids[index])] = ids[index], 1
            inputs = {"input_ids": rows, "attention_mask": mask}
            probs[chosen] = np.asarray(session.run(["probabilities"], inputs)[0])
        return probs

    return score


def measure(run: Path, data: Path, rounds: int, threads: int, scratch: Path) -> dict[str, Any]:
    # Imported only now, since jax counts the cores when it is imported.
    import jaxclf
    from jaxclf.decisions.metrics import compute_metrics
    from jaxclf.decisions.predictions import with_unknown
    from jaxclf.decisions.thresholds import decide
    from jaxclf.exporters.onnx.export import to_onnx
    from jaxclf.exporters.onnx.scorer import onnx_scorer
    from jaxclf.text.reader import read

    classifier = jaxclf.load(run)
    examples = read(data, classifier.labels)
    print(to_onnx(run, scratch / "padded", input="padded"))
    print(to_onnx(run, scratch / "packed"))
    print(to_onnx(run, scratch / "padded_int8", input="padded", int8=True, data=data))
    print(to_onnx(run, scratch / "packed_int8", int8=True, data=data), flush=True)
    scorers: dict[str, Callable[[Sequence[str]], np.ndarray]] = {
        "jaxclf": classifier.predict_proba,
        "onnxruntime, padded": make_padded_scorer(scratch / "padded", threads),
        "onnxruntime, packed": onnx_scorer(scratch / "packed", threads),
        "onnxruntime, padded, int8": make_padded_scorer(scratch / "padded_int8", threads),
        "onnxruntime, packed, int8": onnx_scorer(scratch / "packed_int8", threads),
    }
    probs = {name: scorer(examples.texts) for name, scorer in scorers.items()}
    labels = with_unknown(examples.labels, examples.label_mask)
    decisions = {name: decide(values, classifier.thresholds) for name, values in probs.items()}
    results = {
        name: {
            "macro_f1": compute_metrics(labels, probs[name], decisions[name])["macro_f1"],
            "equal_decisions": float((decisions[name] == decisions["jaxclf"]).mean()),
            "largest_difference": float(np.abs(probs[name] - probs["jaxclf"]).max()),
        }
        for name in scorers
    }
    rates: dict[str, list[float]] = {name: [] for name in scorers}
    for _ in range(rounds):
        for name, scorer in scorers.items():
            start = time.perf_counter()
            scorer(examples.texts)
            rates[name].append(len(examples.texts) / (time.perf_counter() - start))
        print(
            json.dumps({name: round(values[-1], 1) for name, values in rates.items()}), flush=True
        )
    ratios = {
        name: spread([rate / base for rate, base in zip(values, rates["jaxclf"], strict=True)])
        for name, values in rates.items()
    }
    return {
        "rows": len(examples.texts),
        "threads": threads,
        "texts_per_second": rates,
        "ratio_to_jaxclf": ratios,
        "results": results,
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run")
    parser.add_argument("--data", type=Path, required=True, help="a labeled JSON lines file")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    parser.add_argument("--rows", type=int, help="only the first rows; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--threads", type=int, help="default: one for each core")
    args = parser.parse_args()

    cores = sorted(os.sched_getaffinity(0))
    threads = args.threads or len(cores)
    os.sched_setaffinity(0, cores[:threads])
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.jsonl"
        lines = args.data.read_text(encoding="utf-8").splitlines()[: args.rows]
        rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
        result = measure(args.run, rows, args.rounds, threads, Path(scratch))
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in ("ratio_to_jaxclf", "results")}, indent=2))


if __name__ == "__main__":
    main()
