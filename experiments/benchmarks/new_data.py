"""Compare recipes and peers on data sets that the recipes were not made for.

    python -m experiments.benchmarks.six_sets --out runs/six_sets
    python -m experiments.benchmarks.new_data --sets runs/six_sets --encoder FOLDER --out runs/new_data
    python -m experiments.benchmarks.new_data --table runs/new_data

Each recipe trains on each set with each seed: an experiment of the catalog, or tfidf, frozen or trainer
(peers.py, with the same calibration and threshold rule; FOLDER holds the encoder's files). Each result is
kept, so a stopped benchmark resumes. An experiment trains all its epochs, and `epochs.npz` keeps the probabilities
of each: they show how good the choice of the epoch was, and choose nothing. focal_attention_0.1 is that experiment
with the choice of the epoch and the thresholds of version 0.1, and without calibration.
"""  # noqa: E501

import argparse
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from jaxclf.decisions.compare_runs import System, compare_systems, read_system
from jaxclf.decisions.evaluation import calibrate, make_rule
from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.predictions import load_predictions, save_predictions
from jaxclf.decisions.selection import rank_epochs
from jaxclf.decisions.thresholds import decide
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import override
from jaxclf.files.json_file import read_json, write_json
from jaxclf.text.reader import read
from jaxclf.training.setup import RunSetup
from jaxclf.types import Predictions

PEERS = ("tfidf", "frozen", "trainer")
SETS = (
    "ekman_500",
    "original_2000",
    "topics_8000",
    "demonstration",
    "long_tail_2000",
    "threads_1000",
)
RESULTS = ("config.json", "labels.json", "report.json", "predictions")
# An experiment as it was in version 0.1: recipe -> (name, changes).
BEFORE: dict[str, tuple[str, dict[str, Any]]] = {
    "focal_attention_0.1": (
        "focal_attention",
        {"calibration": "none", "threshold": "per_label", "train.metric": "macro_f1"},
    )
}
RESAMPLES = 1000
SHOWN = ("log_loss", "macro_f1", "map", "ece")


def run_experiment(name: str, data: Path, seed: int, out: Path) -> None:
    """Train all epochs of an experiment; keeps RESULTS and epochs.npz."""
    from jaxclf.training import run

    files = {f"data.{split}": str(data / f"{split}.jsonl") for split in ("train", "val", "test")}
    name, before = BEFORE.get(name, (name, {}))
    changes = {**files, "data.label_descriptions": {}, "train.patience": 0, "seed": seed}
    experiment = override(catalog.load(name), changes | before)
    evaluate = run.evaluate
    epochs: dict[str, list[np.ndarray]] = {"val": [], "test": []}

    def evaluate_and_keep(setup: RunSetup, predict: Callable, params: dict) -> Any:
        for split, kept in epochs.items():
            kept.append(predict(params, split).probs)
        return evaluate(setup, predict, params)

    folder = out / "run"
    with mock.patch.object(run, "evaluate", evaluate_and_keep):
        run.train(experiment, folder)
    for entry in RESULTS:
        shutil.move(folder / entry, out / entry)
    shutil.rmtree(folder)
    val, test = (np.stack(probs) for probs in epochs.values())
    np.savez_compressed(out / "epochs.npz", val=val, test=test)


def score_epochs(folder: Path) -> list[dict[str, dict[str, float]]]:
    """The scores of each epoch on both splits, with the default calibration and thresholds."""
    rule = make_rule(catalog.load("recommended").threshold, ())
    kept = {s: load_predictions(folder / "predictions" / f"{s}.npz") for s in ("val", "test")}
    scores = []
    with np.load(folder / "epochs.npz") as epochs:
        for probs in zip(epochs["val"], epochs["test"], strict=True):
            parts = zip(kept.items(), probs, strict=True)
            predictions = {split: part._replace(probs=table) for (split, part), table in parts}
            calibrated, _ = calibrate(predictions, Spec("platt"))
            thresholds = rule(calibrated["val"].labels, calibrated["val"].probs)
            scores.append({
                split: compute_metrics(part.labels, part.probs, decide(part.probs, thresholds))
                for split, part in calibrated.items()
            })  # fmt: skip
    return scores


def run_peer(name: str, data: Path, seed: int, out: Path, encoder: str) -> None:
    """Train a peer, and calibrate its probabilities as jaxclf does."""
    from experiments.benchmarks import peers

    train = read(str(data / "train.jsonl"))
    examples = {split: read(str(data / f"{split}.jsonl"), train.names) for split in ("val", "test")}
    splits = {
        split: peers.Split(part.ids, part.texts, part.labels)
        for split, part in {"train": train, **examples}.items()
    }
    if name == "trainer":
        probs = peers.tuned_trainer(splits, encoder, seed, out.parent / "trainer")
    else:
        probs = {"tfidf": peers.tfidf, "frozen": peers.frozen}[name](splits, encoder, seed)
    predictions = {
        split: Predictions(np.array(part.ids), probs[split].astype(np.float32), part.labels, split)
        for split, part in examples.items()
    }
    calibrated, _ = calibrate(predictions, Spec("platt"))
    for split, part in calibrated.items():
        save_predictions(out / "predictions" / f"{split}.npz", part)
    write_json(out / "labels.json", train.names)


def run_cell(recipe: str, data: Path, seed: int, out: Path, encoder: str) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    started = time.perf_counter()
    if recipe in PEERS:
        run_peer(recipe, data, seed, out, encoder)
    else:
        run_experiment(recipe, data, seed, out)
    write_json(out / "seconds.json", time.perf_counter() - started)


def decide_again(system: System, folders: list[Path]) -> System:
    """The system with thresholds by the rule of its experiment, fitted on val; peers get the
    default."""
    name, changes = BEFORE.get(system.name, ("recommended", {}))
    rule, runs = make_rule(override(catalog.load(name), changes).threshold, system.names), []
    for (probs, _), folder in zip(system.runs, folders, strict=True):
        val = load_predictions(folder / "predictions" / "val.npz")
        runs.append((probs, decide(probs, rule(val.labels, val.probs))))
    return system._replace(runs=runs)


def print_table(folder: Path) -> None:
    """For each set the scores of each recipe, and the first recipe minus each of the others."""
    for data in (folder / name for name in SETS if (folder / name).is_dir()):
        folders: dict[str, list[Path]] = {}
        for path in sorted(data.glob("*-[0-9]*")):
            if (path / "seconds.json").is_file():
                folders.setdefault(path.name.rpartition("-")[0], []).append(path)
        names = sorted(folders, key=lambda name: name != "recommended")
        systems = [decide_again(read_system(n, folders[n], "test"), folders[n]) for n in names]
        print(f"\n{data.name}")
        for system in systems:
            compared = compare_systems(systems[0], system, RESAMPLES, 0).metrics
            seconds = np.mean([read_json(path / "seconds.json") for path in folders[system.name]])
            cells = [f"{system.name:16} {len(system.runs)} seeds {seconds:5.0f} s"]
            for metric in SHOWN:
                low, high = compared[metric].bca
                cells.append(f"{metric} {compared[metric].second:.4f}")
                if metric in ("log_loss", "macro_f1") and system is not systems[0]:
                    cells.append(f"[{compared[metric].value:+.4f}, {low:+.4f} to {high:+.4f}]")
            print("  ".join(cells))
        print_epoch_choice([path for name in names for path in folders[name]])


def print_epoch_choice(runs: list[Path]) -> None:
    """How far the kept epoch is from the best one, and from the last one, on test."""
    for path in runs:
        if not (path / "epochs.npz").is_file():
            continue
        epochs = score_epochs(path)
        kept = rank_epochs([-scores["val"]["log_loss"] for scores in epochs])[0]
        columns = []
        for metric, best in (("log_loss", min), ("macro_f1", max)):
            values = [scores["test"][metric] for scores in epochs]
            differences = (values[kept] - best(values), values[kept] - values[-1])
            columns.append(
                "{}: {:+.4f} to the best, {:+.4f} to the last".format(metric, *differences)
            )
        print(f"  {path.name}: epoch {kept + 1} of {len(epochs)}; {'; '.join(columns)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", type=Path, help="the folder that six_sets.py wrote")
    parser.add_argument("--encoder", help="folder of the peers' encoder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["recommended", "fast", *PEERS])
    parser.add_argument("--only", nargs="+", default=SETS, help="names of sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", type=Path, help="print the table of a folder, and train nothing")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print_table(args.table)
        return
    if args.cell:
        recipe, name, seed = args.cell
        out = args.out / name / f"{recipe}-{seed}"
        run_cell(recipe, args.sets / name, int(seed), out, args.encoder)
        return
    for seed, name, recipe in itertools.product(range(args.seeds), args.only, args.recipes):
        # The linear peers have no seed.
        if (args.out / name / f"{recipe}-{seed}" / "seconds.json").is_file() or (
            seed and recipe in ("tfidf", "frozen")
        ):
            continue
        print(f"{name} {recipe} seed {seed}", flush=True)
        cell = ["--cell", recipe, name, str(seed), "--sets", str(args.sets), "--out", str(args.out)]
        options = ["--encoder", args.encoder] if args.encoder else []
        module = ["-m", "experiments.benchmarks.new_data"]
        subprocess.run([sys.executable, *module, *cell, *options], check=True)


if __name__ == "__main__":
    main()
