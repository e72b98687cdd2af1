"""A text has one probability: the largest differences from `jaxclf.load(run).predict_proba` when it
is scored alone, in other batches, by the command, the service, ONNX and a cascade's final stage.

    python -m experiments.benchmarks.paths --run runs/ekman --cascade runs/fast --data data/goemotions/ekman/test.jsonl --out paths.json

The run is the cascade's final stage. A run in bfloat16 differs more.
"""  # noqa: E501

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import jaxclf
from experiments.benchmarks import load
from jaxclf.exporters.onnx.scorer import onnx_scorer
from jaxclf.inference.cascade.stages import Cascade
from jaxclf.text.reader import read

TEXTS_PER_REQUEST = 32


def score_by_command(
    run: Path, texts: list[str], labels: tuple[str, ...], scratch: Path
) -> np.ndarray:
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (scratch / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    words = ["--input", str(scratch / "texts.jsonl"), "--output", str(scratch / "scored.jsonl")]
    command = [sys.executable, "-m", "jaxclf", "predict", "--run", str(run), *words]
    subprocess.run(command, check=True, capture_output=True)
    lines = (scratch / "scored.jsonl").read_text(encoding="utf-8").splitlines()
    scored = [json.loads(line)["probabilities"] for line in lines]
    return np.array([[row[label] for label in labels] for row in scored])


def score_by_service(
    run: Path, texts: list[str], labels: tuple[str, ...], scratch: Path
) -> np.ndarray:
    server = load.start_server(run, 2**20, scratch / "log")
    scored = []
    for first in range(0, len(texts), TEXTS_PER_REQUEST):
        body = json.dumps({"texts": texts[first : first + TEXTS_PER_REQUEST]}).encode()
        message = load.make_request("POST", "/predict", body)
        response = asyncio.run(load.send_once(server.port, message))
        assert response.status == 200, response
        scored += [result["probabilities"] for result in json.loads(response.body)["results"]]
    server.process.send_signal(signal.SIGTERM)
    server.process.wait()
    return np.array([[row[label] for label in labels] for row in scored])


def score_by_onnx(run: Path, texts: list[str], scratch: Path) -> np.ndarray:
    command = [sys.executable, "-m", "jaxclf", "export", "--run", str(run), "--to", "onnx"]
    subprocess.run([*command, "--out", str(scratch / "graph")], check=True, capture_output=True)
    return onnx_scorer(scratch / "graph")(texts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run or an ensemble")
    parser.add_argument("--data", type=Path, required=True, help="a file of texts")
    parser.add_argument("--cascade", type=Path, help="a cascade with the run as its final stage")
    parser.add_argument("--rows", type=int, default=1000, help="rows of the file (default: 1000)")
    parser.add_argument("--alone", type=int, default=100, help="texts scored alone (default: 100)")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    args = parser.parse_args()

    classifier = jaxclf.load(args.run)
    texts = list(read(args.data, classifier.labels).texts[: args.rows])
    expected = classifier.predict_proba(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    some = order[: args.alone]
    shuffled = np.empty_like(expected)
    shuffled[order] = classifier.predict_proba([texts[row] for row in order])
    alone = np.concatenate([classifier.predict_proba([texts[row]]) for row in some])
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        arguments = (args.run, texts, classifier.labels, scratch)
        pairs = {
            "other batches": (shuffled, expected),
            "alone": (alone, expected[some]),
            "command": (score_by_command(*arguments), expected),  # it writes six digits
            "service": (score_by_service(*arguments), expected),
            "onnx": (score_by_onnx(args.run, texts, scratch), expected),
        }
    if args.cascade:
        cascade = jaxclf.load(args.cascade)
        assert isinstance(cascade, Cascade), f"{args.cascade} is not a cascade"
        outputs = cascade.run(texts)
        is_final = outputs.stage == len(cascade.plan.stages) - 1
        name = f"final stage of a cascade, {is_final.sum()} texts"
        pairs[name] = (outputs.probs[is_final], expected[is_final])
    result = {
        "texts": len(texts),
        "largest_difference": {
            name: float(np.abs(probs - reference).max(initial=0))
            for name, (probs, reference) in pairs.items()
        },
    }
    print(json.dumps(result, indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
