"""Run every documented command line with a tiny encoder, tiny data and a small budget.

    python -m experiments.benchmarks.readme_commands
    python -m experiments.benchmarks.readme_commands --only cascade

Command lines are the indented, fenced or inline ones of every README.md, of every command's --help,
and of the docstrings in experiments/ and data/. They run in order in a copy of the tree. Prints a
line for each and exits with 1 if one fails. `BUDGETS` says how a command is shortened,
`PARSED_ONLY` which are parsed but not run, and `NEEDS` which are not run where a package of an
extra is missing. Both are counted apart.
"""

import argparse
import ast
import collections
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
import tomllib
from collections.abc import Iterator
from pathlib import Path

from jaxclf.cli import COMMANDS, load_parser
from jaxclf.errors import JaxclfError

ROOT = Path(__file__).parent.parent.parent
ENCODER = "tiny_encoder"
PLACEHOLDERS = {"FOLDER": ENCODER, "DIR": "new_folder", "NAME": "focal_attention"}
RUNS = ("first", "second")  # tiny runs that stand in for the runs a command reads
EXAMPLE_RUNS = ("a", "b", "c", "blend")  # of any run in the pages: made for each command
TRAINING = [f"encoder.name={ENCODER}", "encoder.dtype=float32", "train.epochs=1"]

# Words appended to matching command lines; the last value of an option or key counts.
BUDGETS = {
    r"jaxclf (train|curve|check|ensemble .*--exp|audit .*--exp|compare .*--ablate)": TRAINING,
    r"jaxclf tune": [*TRAINING, "--trials", "1", "--workers", "1"],
    r"jaxclf (ensemble|compare) .*--seeds": ["--seeds", "2"],
    r"jaxclf (ensemble|audit) .*--folds": ["--folds", "2"],
    r"jaxclf compare": ["--resamples", "100"],
    # int8 is refused where decisions differ: in this run no probability is near a threshold.
    r"train --exp baseline$": ["threshold=fixed", "threshold.value=0.95"],
    r"--int8": ["--run", "runs/baseline"],
    r"benchmarks.(scoring|onnx_speed|paths|ray_cluster)": ["--rows", "64"],
    r"benchmarks.speed": ["--rows", "704"],  # metrics.jsonl has a line for every 10 steps
    r"benchmarks.(scoring|onnx_speed|speed)": ["--rounds", "1"],
    r"benchmarks.killed": ["--rows", "20000"],
    r"benchmarks.soak": ["--kills", "1", "--signals", "1"],
    r"benchmarks.load": ["--requests", "40", "--clients", "4", "--seconds", "1"],
    r"benchmarks.hf_trainer": ["--max-steps", "2"],
}
PARSED_ONLY = {
    r"^pip ": "it installs packages",
    r"^pytest|readme_(commands|results)": "it runs for minutes",
    r"get_goemotions": "it needs a network or the source files",
    r"--storage": "it needs a database server",
    r"--process-id": "it needs two machines",
}
NEEDS = {
    r"benchmarks.(hf_trainer|scoring|speed) ": ("torch", "accelerate"),
    r"benchmarks.ray_cluster": ("ray",),
    r"jaxclf serve|benchmarks.load|^curl": ("fastapi", "uvicorn", "prometheus_client"),
    r"--to onnx|benchmarks.(onnx_speed|scoring|paths) ": ("onnx", "onnxruntime"),
    r"--to stablehlo": ("flatbuffers",),
}
COMMAND = re.compile(r"(jaxclf|python|pip|pytest|curl) \S")
INLINE = re.compile(r"`(jaxclf [a-z]+ --[a-z-]+ [^`]+)`")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", metavar="REGEX", default="", help="only command lines in which this is found"
    )
    args = parser.parse_args()
    # A line that stands in several pages runs once.
    lines = [line for line in dict.fromkeys(documented_lines()) if re.search(args.only, line)]
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "jaxclf"
        make_tree(tree)
        for line in lines:
            start = time.perf_counter()
            status, output = try_command(tree, line)
            counts[status] += 1
            print(f"{status:<7} {time.perf_counter() - start:5.1f} s  {line}", flush=True)
            if status != "ok":
                print(f"        {output[-2000:]}", flush=True)
    print(
        f"{len(lines)} command lines: {counts['ok']} ran, {counts['parsed']} were only parsed, "
        f"{counts['not run']} were not run because a package is missing, {counts['FAILED']} failed"
    )
    return 1 if counts["FAILED"] or not lines else 0


def documented_lines() -> Iterator[str]:
    """Every command line of the READMEs, the help texts and the docstrings."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder in ("data", "experiments", "jaxclf"):
        pages += sorted((ROOT / folder).rglob("README.md"))
    for page in pages:
        yield from command_lines(page.read_text(encoding="utf-8"))
    for path in [*sorted((ROOT / "experiments").rglob("*.py")), *(ROOT / "data").glob("*.py")]:
        yield from command_lines(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
    for command in COMMANDS:
        parser = load_parser(command)
        parser.format_help()
        yield from command_lines(parser.epilog or "")


def command_lines(text: str) -> Iterator[str]:
    """Indented, fenced or inline command lines, with continued lines joined, without comments."""
    is_fenced = False
    commands = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif (is_fenced or line.startswith("  ")) and COMMAND.match(line.strip()):
            commands.append(line.strip())
        elif not is_fenced:
            commands += INLINE.findall(line)
    for line in commands:
        words = shlex.split(line, comments=True)
        if not any("…" in word or word == "..." for word in words):
            yield shlex.join(words).replace("python -m jaxclf.", "jaxclf ")


def try_command(tree: Path, line: str) -> tuple[str, str]:
    """("ok", "parsed", "not run" or "FAILED"; the output, or why it was not run)."""
    missing = missing_packages(line)
    reasons = [reason for pattern, reason in PARSED_ONLY.items() if re.search(pattern, line)]
    if missing or reasons:
        fault = parse(tree, line)
        if fault:
            return "FAILED", fault
        return (
            ("not run", f"not installed: {', '.join(missing)}")
            if missing
            else ("parsed", reasons[0])
        )
    words = within_budget(line)
    for name in EXAMPLE_RUNS:
        shutil.rmtree(tree / "runs" / name, ignore_errors=True)
    make_inputs(tree, words)
    if words[0] == "curl":
        code, output = ask_service(tree, line)
    elif line.startswith("jaxclf serve"):
        code, output = run_service(tree, words)
    else:
        code, output = run_to_end(tree, words)
    return ("FAILED" if code else "ok"), output


def missing_packages(line: str) -> list[str]:
    names = [name for pattern in NEEDS if re.search(pattern, line) for name in NEEDS[pattern]]
    return [name for name in names if not importlib.util.find_spec(name)]


def within_budget(line: str) -> list[str]:
    """The words of a command line, with placeholders filled in and its budget appended."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)]
    return words + [word for key in BUDGETS if re.search(key, line) for word in BUDGETS[key]]


def parse(tree: Path, line: str) -> str:
    """What is wrong with a command line that does not run: its options, files and extras exist."""
    words = shlex.split(line)
    options = [word for word in words if word.startswith("--")]
    try:
        if words[0] == "jaxclf":
            load_parser(words[1]).parse(words[2:])
        elif words[0] == "python":
            path = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
            source = (tree / path).read_text(encoding="utf-8")
            return ", ".join(option for option in options if f'"{option}"' not in source)
        elif words[0] == "pip":
            project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
            extras = ",".join(re.findall(r"\[(.*?)\]", line)).split(",")
            return ", ".join({*extras} - {"", *project["optional-dependencies"]})
        elif words[0] == "pytest":
            paths = [word for word in words if word.startswith("tests/")]
            return ", ".join(path for path in paths if not (ROOT / path).exists())
        return ""
    except (JaxclfError, SystemExit, OSError) as error:
        return str(error)


def environment(tree: Path) -> dict[str, str]:
    """Offline, on the CPU, importing the copy; what one command compiles serves the others."""
    variables = {
        "JAX_COMPILATION_CACHE_DIR": str(tree / "compiled"),
        **os.environ,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(tree),
    }
    if variables.pop("PYTHONDONTWRITEBYTECODE", ""):
        variables["PYTHONPYCACHEPREFIX"] = str(tree / "bytecode")
    return variables


def program(words: list[str]) -> list[str]:
    """The words with this interpreter in place of `jaxclf` or `python`."""
    if words[0] == "jaxclf":
        return [sys.executable, "-m", *words]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def run_to_end(tree: Path, words: list[str]) -> tuple[int, str]:
    process = subprocess.run(
        program(words),
        cwd=tree,
        env=environment(tree),
        capture_output=True,
        text=True,
        check=False,
    )
    return process.returncode, process.stdout + process.stderr


def run_service(tree: Path, words: list[str], request: str = "") -> tuple[int, str]:
    """Start a service, wait until it prints its address, send a request to it, and stop it."""
    path = tree / "service.log"
    with path.open("w+") as log:
        process = subprocess.Popen(
            program([*words, "--port", "0"]),
            cwd=tree,
            env=environment(tree),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None and "http://" not in path.read_text():
            time.sleep(0.2)
        code, output = 0, ""
        address = re.search(r"http://([\w.:]+)", path.read_text())
        if request and address:
            # Until it is ready it answers 503, after which curl tries again.
            command = shlex.split(request.replace("localhost:8000", address[1]))
            code, output = run_to_end(tree, [*command, "--fail", "--silent", "--retry", "60"])
        process.send_signal(signal.SIGTERM)
        stopped = process.wait()
        # Before it is ready, the signal ends it at once.
        if stopped not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
            code = stopped or 1
        return code, path.read_text() + output


def ask_service(tree: Path, line: str) -> tuple[int, str]:
    """Send a documented request to a service of the example run."""
    if not shutil.which("curl"):
        return 1, "curl is not installed"
    words = ["jaxclf", "serve", "--run", "runs/focal_attention"]
    make_inputs(tree, words)
    return run_service(tree, words, line)


def make_tree(tree: Path) -> None:
    """Copy the tree, cut its data to a few rows, and make an encoder and files."""
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
    write_csv(tree / "unlabeled.csv", [row | {"text": f"{row['text']} again"} for row in rows])
    rows = json.loads((tree / "data" / "train_data.json").read_text(encoding="utf-8"))
    for name in ("mine.csv", "labeled.csv"):
        write_joined_csv(tree / name, rows)
    make_encoder(tree / ENCODER, [row["text"] for row in rows])


def write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", *rows[0]["labels"]])
        table.writerows([row["text"], *row["labels"].values()] for row in rows)


def write_joined_csv(path: Path, rows: list[dict]) -> None:
    """One file of texts and of names of labels, each under both names that the pages use."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "labels", "comment", "tags"])
        for row in rows:
            names = "|".join(name for name, value in row["labels"].items() if value)
            table.writerow([row["text"], names] * 2)


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


def make_inputs(tree: Path, words: list[str]) -> None:
    """Make what a command reads and no earlier command wrote: runs and searched experiments."""
    written = words[words.index("--out") + 1] if "--out" in words else ""
    paths = [path for word in words for path in word.split(",") if path.startswith("runs/")]
    for i, path in enumerate(path for path in paths if path != written):
        if (tree / path / "diagnosis.json").exists():
            continue
        if path in ("runs/focal_attention", "runs/baseline"):
            train_example(tree, within_budget(f"jaxclf train --exp {Path(path).name}"))
        else:
            shutil.copytree(example_run(tree, i % 2), tree / path, dirs_exist_ok=True)
    for word in words:
        searched = tree / "experiments" / f"{word}.py"
        if word.endswith("_tuned") and not searched.exists():
            shutil.copy(tree / "experiments" / f"{word.removesuffix('_tuned')}.py", searched)


def example_run(tree: Path, seed: int) -> Path:
    """The folder of a tiny run on GoEmotions' format, trained where it is first wanted."""
    folder = tree / "tiny_runs" / RUNS[seed]
    if not folder.exists():
        words = ["jaxclf", "train", "--exp", "goemotions_ekman", "--out", str(folder)]
        train_example(tree, [*words, f"seed={seed}", *TRAINING])
    return folder


def train_example(tree: Path, words: list[str]) -> None:
    code, output = run_to_end(tree, words)
    assert code == 0, output


if __name__ == "__main__":
    sys.exit(main())
