"""Prediction speed side by side: jaxclf, and onnxruntime with padded, packed and eight-bit input,
by turns in one process.

    python experiments/benchmarks/onnx_speed.py --run runs/mine --data test.jsonl --out onnx.json

Every way begins with texts and ends with probabilities, tokenizing included. The peer is
onnxruntime as it is mostly used: texts sorted by length, 32 at a time, each batch padded to its
longest; of a text longer than a row it reads the first window alone. A rate is texts per second of
one round over all rows, after one that is not counted; ratios are taken within a round. Run it on
an idle machine.
"""

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

BATCH = 32


def padded_peer(folder: Path, threads: int) -> Callable[[Sequence[str]], np.ndarray]:
    """Plain tokenizers and onnxruntime."""
    import onnxruntime
    import tokenizers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    told = session.get_modelmeta().custom_metadata_map
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(json.loads(told["max_length"]))
    tokenizer.no_padding()

    def score(texts: Sequence[str]) -> np.ndarray:
        ids = [one.ids for one in tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        probs = np.zeros((len(ids), len(json.loads(told["labels"]))), np.float32)
        for first in range(0, len(ids), BATCH):
            chosen = order[first : first + BATCH]
            rows = np.zeros((len(chosen), len(ids[chosen[-1]])), np.int64)
            mask = np.zeros_like(rows)
            for row, index in enumerate(chosen):
                rows[row, : len(ids[index])], mask[row, : len(ids[index])] = ids[index], 1
            inputs = {"input_ids": rows, "attention_mask": mask}
            probs[chosen] = np.asarray(session.run(["probabilities"], inputs)[0])
        return probs

    return score


def measure(run: Path, data: Path, rounds: int, threads: int, scratch: Path) -> dict[str, Any]:
    # jax counts the cores when it is imported.
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
    ways: dict[str, Callable[[Sequence[str]], np.ndarray]] = {
        "jaxclf": classifier.predict_proba,
        "onnxruntime, padded": padded_peer(scratch / "padded", threads),
        "onnxruntime, packed": onnx_scorer(scratch / "packed", threads),
        "onnxruntime, padded, int8": padded_peer(scratch / "padded_int8", threads),
        "onnxruntime, packed, int8": onnx_scorer(scratch / "packed_int8", threads),
    }
    probs = {name: way(examples.texts) for name, way in ways.items()}
    labels = with_unknown(examples.labels, examples.label_mask)
    decided = {name: decide(one, classifier.thresholds) for name, one in probs.items()}
    own = next(iter(ways))
    answers = {
        name: {
            "macro_f1": compute_metrics(labels, probs[name], decided[name])["macro_f1"],
            "equal_decisions": float((decided[name] == decided[own]).mean()),
            "largest_difference": float(np.abs(probs[name] - probs[own]).max()),
        }
        for name in ways
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(examples.texts)
            rates[name].append(len(examples.texts) / (time.perf_counter() - start))
        print(
            json.dumps({name: round(values[-1], 1) for name, values in rates.items()}), flush=True
        )
    ratios = {
        name: spread([one / base for one, base in zip(values, rates[own], strict=True)])
        for name, values in rates.items()
    }
    return {
        "rows": len(examples.texts),
        "threads": threads,
        "texts_per_second": rates,
        "ratio_to_jaxclf": ratios,
        "answers": answers,
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run")
    parser.add_argument("--data", type=Path, required=True, help="a labelled JSON lines file")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    parser.add_argument("--rows", type=int, help="so many of the file's first; default: all")
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
        found = measure(args.run, rows, args.rounds, threads, Path(scratch))
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({key: found[key] for key in ("ratio_to_jaxclf", "answers")}, indent=2))


if __name__ == "__main__":
    main()
