"""One probability whatever the way to it: how far alone, in other company, the command, the
service, the ONNX graph and a cascade's last stage lie from `jaxclf.load(run).predict_proba`.

    python experiments/benchmarks/paths.py --run RUN --data FILE --out paths.json [--cascade DIR]

RUN is what the cascade's last stage is made of. A run in bfloat16 would differ by more.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import load  # the peer beside this one, which starts a service
import numpy as np

import jaxclf
from jaxclf.exporters.onnx.scorer import onnx_scorer
from jaxclf.inference.cascade.stages import Cascade
from jaxclf.text.reader import read

ASKED = 32  # texts to a request


def by_command(run: Path, texts: list[str], labels: tuple[str, ...], scratch: Path) -> np.ndarray:
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (scratch / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    words = ["--input", str(scratch / "texts.jsonl"), "--output", str(scratch / "scored.jsonl")]
    command = [sys.executable, "-m", "jaxclf.predict", "--run", str(run), *words]
    subprocess.run(command, check=True, capture_output=True)
    lines = (scratch / "scored.jsonl").read_text(encoding="utf-8").splitlines()
    scored = [json.loads(line)["probabilities"] for line in lines]
    return np.array([[row[label] for label in labels] for row in scored])


def by_service(run: Path, texts: list[str], labels: tuple[str, ...], scratch: Path) -> np.ndarray:
    server = load.start(run, 2**20, scratch / "log")
    scored = []
    for first in range(0, len(texts), ASKED):
        body = json.dumps({"texts": texts[first : first + ASKED]}).encode()
        answer = asyncio.run(load.once(server.port, load.request("POST", "/predict", body)))
        assert answer.status == 200, answer
        scored += [one["probabilities"] for one in json.loads(answer.body)["results"]]
    server.process.send_signal(signal.SIGTERM)
    server.process.wait()
    return np.array([[row[label] for label in labels] for row in scored])


def by_graph(run: Path, texts: list[str], scratch: Path) -> np.ndarray:
    command = [sys.executable, "-m", "jaxclf.export", "--run", str(run), "--to", "onnx"]
    subprocess.run([*command, "--out", str(scratch / "graph")], check=True, capture_output=True)
    return onnx_scorer(scratch / "graph")(texts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="a finished run or an ensemble")
    parser.add_argument("--data", type=Path, required=True, help="a file of texts")
    parser.add_argument("--cascade", type=Path, help="a cascade whose last stage the run is")
    parser.add_argument("--rows", type=int, default=1000, help="of the file (default: 1000)")
    parser.add_argument("--alone", type=int, default=100, help="texts asked alone (default: 100)")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file to write")
    args = parser.parse_args()

    classifier = jaxclf.load(args.run)
    texts = list(read(args.data, classifier.labels).texts[: args.rows])
    wanted = classifier.predict_proba(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    some = order[: args.alone]
    shuffled = np.empty_like(wanted)
    shuffled[order] = classifier.predict_proba([texts[row] for row in order])
    alone = np.concatenate([classifier.predict_proba([texts[row]]) for row in some])
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        given = (args.run, texts, classifier.labels, scratch)
        found = {
            "in other company": (shuffled, wanted),
            "alone": (alone, wanted[some]),
            "command": (by_command(*given), wanted),  # which writes six digits
            "service": (by_service(*given), wanted),
            "onnx": (by_graph(args.run, texts, scratch), wanted),
        }
    if args.cascade:
        cascade = jaxclf.load(args.cascade)
        assert isinstance(cascade, Cascade), f"{args.cascade} is no cascade"
        mixed = cascade.run(texts)
        last = mixed.stage == mixed.stage.max()
        found[f"last stage of a cascade, {last.sum()} texts"] = (mixed.probs[last], wanted[last])
    result = {
        "texts": len(texts),
        "largest_difference": {
            way: float(np.abs(probs - those).max()) for way, (probs, those) in found.items()
        },
    }
    print(json.dumps(result, indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
