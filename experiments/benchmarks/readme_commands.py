"""Run every documented command line with a tiny encoder, tiny data and a small budget.

    python -m experiments.benchmarks.readme_commands
    python -m experiments.benchmarks.readme_commands --only cascade

Command lines are the indented or fenced ones of every README.md, of every command's --help, and of
the docstrings in experiments/ and data/. They run in order in a copy of the tree. Prints a line for
each and exits with 1 if one fails. `BUDGETS` says how a command is shortened, `PARSED_ONLY` which
are parsed but not run, because they need a network, a GPU or a second machine.
"""

import argparse
import ast
import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jaxclf.cli import COMMANDS, load_parser
from jaxclf.errors import JaxclfError

ROOT = Path(__file__).parent.parent.parent
ENCODER = "tiny_encoder"
RUNS = ("first", "second")  # tiny runs that stand in for the runs a command reads
EXAMPLE_RUNS = ("a", "b", "c", "blend")  # of any run in the pages: made for each command
TRAINING = [f"encoder.name={ENCODER}", "encoder.dtype=float32", "train.epochs=1"]

# Words appended to matching command lines; the last value of an option or key counts.
BUDGETS = {
    r"jaxclf (train|ensemble .*--exp|audit .*--exp|compare .*--ablate)": TRAINING,
    r"jaxclf tune": [*TRAINING, "--trials", "1", "--workers", "1"],
    r"jaxclf (ensemble|compare) .*--seeds": ["--seeds", "2"],
    r"jaxclf (ensemble|audit) .*--folds": ["--folds", "2"],
    r"jaxclf compare": ["--resamples", "100"],
    r"benchmarks.(scoring|onnx_speed|paths|ray_cluster)": ["--rows", "64"],
    r"benchmarks.speed": ["--rows", "704"],  # metrics.jsonl has a line for every 10 steps
    r"benchmarks.(scoring|onnx_speed|speed)": ["--rounds", "1"],
    r"benchmarks.killed": ["--rows", "20000"],
    r"benchmarks.load": ["--requests", "40", "--clients", "4", "--seconds", "1"],
    r"benchmarks.hf_trainer": ["--max-steps", "2"],
}
PARSED_ONLY = (
    r"^(pip|pytest|curl|git|source)\b|get_goemotions|readme_(commands|results)|--storage"
    r"|--process-id|focal_attention_base|--page|--int8"  # int8 is refused for a random network
)
NEEDS_TORCH = r"benchmarks.(hf_trainer|scoring|speed)"  # parsed only without torch and accelerate
NEEDS_RAY = r"benchmarks.ray_cluster"
COMMAND = re.compile(r"(jaxclf|python|pip|pytest|curl) \S")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="only command lines with this text")
    args = parser.parse_args()
    # A line that stands in several pages runs once.
    lines = [line for line in dict.fromkeys(documented_lines()) if args.only in line]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "jaxclf"
        make_tree(tree)
        for line in lines:
            start = time.perf_counter()
            status, output = try_command(tree, line)
            failed += status == "FAILED"
            print(f"{status:<6} {time.perf_counter() - start:5.1f} s  {line}", flush=True)
            if status == "FAILED":
                print(output[-2000:], flush=True)
    print(f"{len(lines)} command lines, {failed} failed")
    return 1 if failed or not lines else 0


def documented_lines() -> Iterator[str]:
    """Every command line of the READMEs, the help texts and the docstrings."""
    for path in [*sorted(ROOT.rglob("README.md")), ROOT / "CONTRIBUTING.md"]:
        if not {"results", "runs"} & set(path.relative_to(ROOT).parts):
            yield from command_lines(path.read_text(encoding="utf-8"))
    for path in [*sorted((ROOT / "experiments").rglob("*.py")), *(ROOT / "data").glob("*.py")]:
        yield from command_lines(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
    for command in COMMANDS:
        parser = load_parser(command)
        parser.format_help()
        yield from command_lines(parser.epilog or "")


def command_lines(text: str) -> Iterator[str]:
    """Indented or fenced command lines, with continued lines joined and comments removed."""
    is_fenced = False
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif (is_fenced or line.startswith("  ")) and COMMAND.match(line.strip()):
            words = shlex.split(line.strip(), comments=True)
            if not any("…" in word or word == "..." for word in words):
                yield shlex.join(words).replace("python -m jaxclf.", "jaxclf ")


def try_command(tree: Path, line: str) -> tuple[str, str]:
    """("ok", "parsed" or "FAILED", the output) of a command line."""
    if is_parsed_only(line):
        return parse(tree, line)
    words = shlex.split(line)
    for pattern, extra in BUDGETS.items():
        if re.search(pattern, line):
            words += extra
    words = [ENCODER if word == "FOLDER" else word for word in words]
    for name in EXAMPLE_RUNS:
        shutil.rmtree(tree / "runs" / name, ignore_errors=True)
    make_runs(tree, words)
    if words[0] == "jaxclf":
        words = [sys.executable, "-m", *words]
    elif words[0] == "python":
        words[0] = sys.executable
    run = run_service if "jaxclf serve" in line else run_to_end
    code, output = run(tree, words)
    return ("FAILED" if code else "ok"), output


def is_parsed_only(line: str) -> bool:
    has_torch = all(importlib.util.find_spec(name) for name in ("torch", "accelerate"))
    return bool(
        re.search(PARSED_ONLY, line)
        or (re.search(NEEDS_TORCH, line) and not has_torch)
        or (re.search(NEEDS_RAY, line) and not importlib.util.find_spec("ray"))
    )


def parse(tree: Path, line: str) -> tuple[str, str]:
    """Parse a command line without running it: its options must exist."""
    words = shlex.split(line)
    try:
        if words[0] == "jaxclf":
            load_parser(words[1]).parse(words[2:])
        elif words[0] == "python":
            options = [word for word in words if word.startswith("--")]
            script = words[1:3] if words[1] == "-m" else words[1:2]
            code, output = run_to_end(tree, [sys.executable, *script, "--help"])
            if code or not all(option in output for option in options):
                return "FAILED", output
        return "parsed", ""
    except (JaxclfError, SystemExit) as error:
        return "FAILED", str(error)


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}


def run_to_end(tree: Path, words: list[str]) -> tuple[int, str]:
    process = subprocess.run(
        words, cwd=tree, env=environment(tree), capture_output=True, text=True, check=False
    )
    return process.returncode, process.stdout + process.stderr


def run_service(tree: Path, words: list[str]) -> tuple[int, str]:
    """Start a service, wait until it prints its address, and stop it."""
    with (tree / "service.log").open("w+") as log:
        words = [*words, "--port", "0"]
        process = subprocess.Popen(
            words, cwd=tree, env=environment(tree), stdout=log, stderr=subprocess.STDOUT
        )
        path = tree / "service.log"
        while process.poll() is None and "http://" not in path.read_text():
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        # Before it is ready, the signal ends it at once.
        stopped = code in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        return (0 if stopped else code or 1), path.read_text()


def make_tree(tree: Path) -> None:
    """Copy the tree, cut its data to a few rows, and make an encoder, files and two runs."""
    for name in ("jaxclf", "experiments", "data"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for split, count in (("train", 96), ("val", 48), ("test", 48)):
        path = tree / "data" / f"{split}_data.json"
        rows = json.loads(path.read_text(encoding="utf-8"))[:count]
        path.write_text(json.dumps(rows), encoding="utf-8")
        write_csv(tree / f"{'abc'[('train', 'val', 'test').index(split)]}.csv", rows)
        for labels in ("ekman", "original"):
            write_goemotions(tree, labels, split, rows)
    for name in ("texts.csv", "more.csv"):
        shutil.copy(tree / "c.csv", tree / name)
    make_encoder(tree / ENCODER, [row["text"] for row in rows])
    runs = [
        ["goemotions_ekman", "--out", f"tiny_runs/{name}", f"seed={seed}"]
        for seed, name in enumerate(RUNS)
    ]
    for words in [*runs, ["baseline"], ["focal_attention"]]:  # the last two to runs/NAME
        code, output = run_to_end(
            tree, [sys.executable, "-m", "jaxclf", "train", "--exp", *words, *TRAINING]
        )
        assert code == 0, output


def write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", *rows[0]["labels"]])
        table.writerows([row["text"], *row["labels"].values()] for row in rows)


def write_goemotions(tree: Path, labels: str, split: str, rows: list[dict]) -> None:
    kept = tree / "experiments" / "results" / f"goemotions_{labels}_seed0" / "labels.json"
    names = json.loads(kept.read_text(encoding="utf-8"))
    folder = tree / "data" / "goemotions" / labels
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows * 8 if split == "train" else rows
    lines = [
        json.dumps({"id": f"r{i}", "text": f"{row['text']} {i}", "labels": [names[i % len(names)]]})
        for i, row in enumerate(rows)
    ]
    (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def make_encoder(folder: Path, texts: list[str]) -> None:
    """A random BERT of two small layers, with a WordPiece tokenizer of 400 pieces."""
    import jax
    import numpy as np
    import safetensors.numpy
    import tokenizers

    from jaxclf.model.encoders import bert
    from jaxclf.model.encoders.common import Settings
    from jaxclf.model.storage.weights import to_tensors

    folder.mkdir()
    tokenizer = tokenizers.BertWordPieceTokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=400, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "bert",
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    (folder / "config.json").write_text(json.dumps(config))
    module = bert.Bert(Settings(bert.from_hf(config), jax.numpy.dtype("float32"), 0.1, 0.1))
    ids = jax.numpy.zeros((1, 8), np.int32)
    params = module.init(jax.random.key(0), ids, ids, ids, True)["params"]
    tensors = to_tensors({"encoder": params}, bert.NAMES)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def make_runs(tree: Path, words: list[str]) -> None:
    """Copy a tiny run to each folder that a command reads and no earlier command wrote."""
    written = words[words.index("--out") + 1] if "--out" in words else ""
    for word in words:
        if word.startswith("runs/") and word != written and not (tree / word).exists():
            count = sum(1 for _ in (tree / "runs").glob("*")) if (tree / "runs").exists() else 0
            shutil.copytree(tree / "tiny_runs" / RUNS[count % 2], tree / word)


if __name__ == "__main__":
    sys.exit(main())
