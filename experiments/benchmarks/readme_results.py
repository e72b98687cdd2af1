"""Compute the figures of the READMEs again from what experiments/results keeps.

    python -m experiments.benchmarks.readme_results
    python -m experiments.benchmarks.readme_results --retrain

Every figure must be printed in experiments/README.md exactly as it comes out; a figure that is not
printed there is listed, and the exit code is 1. `--retrain` also trains the demonstration's
experiments again: each macro F1 must lie inside the printed interval.
"""

import argparse
import functools
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxclf.decisions.blending import diversity
from jaxclf.decisions.compare_runs import compare_systems, read_system
from jaxclf.decisions.evaluation import calibrate, evaluate_split, make_rule
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.predictions import load_predictions
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec
from jaxclf.files.json_file import read_json

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "experiments" / "results"
SEEDS = ("seed0", "seed1", "seed2")
DEMONSTRATION = ("focal_attention", "baseline")

Figure = tuple[str, str]  # what it is, and the text that a README must hold


def with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def signed_interval(value: float, interval: list[float] | tuple[float, float]) -> str:
    return f"{value:+.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})"


@functools.cache
def score(folder: str) -> dict:
    """The test figures of a kept run, as `jaxclf evaluate` computes them from its predictions.

    What evaluate adds about val takes four fifths of its time, and no figure is printed from it.
    """
    run = RESULTS / folder
    val = load_predictions(run / "predictions" / "val.npz")
    test = load_predictions(run / "predictions" / "test.npz")
    names = tuple(read_json(run / "labels.json"))
    rule = make_rule(catalog.load(str(run / "config.json")).threshold, names)
    thresholds = rule(val.labels, val.probs)
    return evaluate_split(test, thresholds, names)


def run_figures() -> Iterator[Figure]:
    """A row of a table for every run that keeps predictions."""
    for folder in (*DEMONSTRATION, *(f"hf_trainer_{labels}" for labels in ("ekman", "original"))):
        test = score(folder)
        cells = with_interval(test["macro_f1"], test["intervals"]["macro_f1"])
        yield folder, f"| {cells} | {test['macro_f1_at_half']:.3f} | `{folder}`"
    for labels in ("ekman", "original"):
        for kind in ("ensemble", "student"):
            folder = f"goemotions_{labels}_{kind}"
            test = score(folder)
            cells = with_interval(test["macro_f1"], test["intervals"]["macro_f1"])
            yield folder, f"| {cells} | {test['macro_f1_at_half']:.3f} | `{folder}`"
        seeds = [score(f"goemotions_{labels}_{seed}") for seed in SEEDS]
        scores = [test["macro_f1"] for test in seeds]
        each = ", ".join(f"{value:.3f}" for value in scores)
        half = np.mean([test["macro_f1_at_half"] for test in seeds])
        cells = f"| {np.mean(scores):.3f} ({each}) | {half:.3f} | `goemotions_{labels}_seed0`"
        yield f"goemotions_{labels}, three seeds", cells


def comparison_figures() -> Iterator[Figure]:
    """Paired differences between kept runs."""
    pairs = [
        ([f"goemotions_ekman_{seed}" for seed in SEEDS], "hf_trainer_ekman"),
        (["goemotions_ekman_student"], "goemotions_ekman_ensemble"),
        (["goemotions_ekman_student"], "hf_trainer_ekman"),
        (["goemotions_original_student"], "goemotions_original_ensemble"),
        ([f"goemotions_original_{seed}" for seed in SEEDS], "hf_trainer_original"),
    ]
    for folders, reference in pairs:
        system = read_system(folders[0], [RESULTS / folder for folder in folders], "test")
        peer = read_system(reference, [RESULTS / reference], "test")
        difference = compare_systems(system, peer, 10_000, 0).metrics["macro_f1"]
        text = signed_interval(difference.value, difference.bca)
        yield f"{folders[0]} against {reference}", text


def detail_figures() -> Iterator[Figure]:
    """ECE, mAP and the correlation of errors."""
    runs = [score(f"goemotions_ekman_{kind}") for kind in (*SEEDS, "ensemble", "student")]
    pooled, label = ([run[name] for run in runs] for name in ("ece", "label_ece"))
    yield "ECE of ours", f"ECE on test is {min(pooled):.3f} to {max(pooled):.3f}"
    yield "mean ECE of the labels", f"{min(label):.3f} to {max(label):.3f} in the mean"
    yield "ECE of the plain recipe", f"{score('hf_trainer_ekman')['ece']:.3f} as it comes"
    folder = RESULTS / "hf_trainer_ekman" / "predictions"
    splits = {split: load_predictions(folder / f"{split}.npz") for split in ("val", "test")}
    test = calibrate(splits, Spec("platt"))[0]["test"]
    ece, label_ece = (
        METRICS[name].compute(test.labels, test.probs, test.probs >= 0.5)
        for name in ("ece", "label_ece")
    )
    yield "the same, calibrated", f"calibration {ece:.3f} and {label_ece:.3f}"
    plain = score("hf_trainer_original")["map"]
    ours = np.mean([score(f"goemotions_original_{seed}")["map"] for seed in SEEDS])
    yield "mAP", f"(mAP {plain:.3f} against {ours:.3f})"
    alike = [
        load_predictions(RESULTS / f"goemotions_ekman_{seed}" / "predictions" / "val.npz")
        for seed in SEEDS
    ]
    probs = np.stack([predictions.probs for predictions in alike])
    correlation = diversity(alike[0].labels, probs, probs >= 0.5).correlation
    pairs = correlation[np.triu_indices(len(SEEDS), 1)]
    yield "correlation of errors", f"errors {pairs.min():.2f} to {pairs.max():.2f}"


def kept_figures() -> Iterator[Figure]:
    """Figures of runs that keep reports and not predictions."""
    folder = RESULTS / "ablation_ekman"
    for label, rows in read_json(folder / "ablation.json").items():
        row = rows["metrics"]["macro_f1"]
        low, high = row["interval"]
        cells = f"| {row['other']:.3f} | {row['difference']:+.3f} | {low:+.3f} to {high:+.3f} |"
        yield f"ablation, {label}", cells
    full = [read_json(folder / f"full-{seed}.json")["test"]["macro_f1"] for seed in SEEDS]
    yield "ablation, full", f"macro F1 {np.mean(full):.3f}"
    winner, default = (
        read_json(RESULTS / "search_ekman" / f"{name}.json") for name in ("winner", "default")
    )
    for name, report in (("winner", winner), ("default", default)):
        test = report["test"]
        yield f"search, {name}", with_interval(test["macro_f1"], test["intervals"]["macro_f1"])
        yield f"search, {name} on validation", f"{report['val']['macro_f1']:.3f}"


def benchmark_figures() -> Iterator[Figure]:
    """Figures of the benchmarks, from the JSON that each wrote."""
    for name, ratio in (
        ("speed", read_json(RESULTS / "speed.json")["ratio"]),
        ("pipeline", read_json(RESULTS / "serving" / "scoring.json")["ratio"]["pipeline"]),
        ("onnxruntime", read_json(RESULTS / "serving" / "scoring.json")["ratio"]["onnxruntime"]),
    ):
        yield name, f"{ratio['median']:.2f} times ({ratio['min']:.2f} to {ratio['max']:.2f})"
    rounds = [
        read_json(RESULTS / "serving" / f"{name}.json")["texts_per_second"]
        for name in ("onnx_speed", "onnx_speed_again")
    ]
    for name in ("packed, int8", "padded, int8", "padded"):
        ratios = np.concatenate(
            [
                np.divide(texts_per_second[f"onnxruntime, {name}"], texts_per_second["jaxclf"])
                for texts_per_second in rounds
            ]
        )
        yield (
            f"onnxruntime, {name}",
            (f"{np.median(ratios):.2f} times ({ratios.min():.2f} to {ratios.max():.2f})"),
        )
    stages = read_json(RESULTS / "serving" / "stages.json")
    test = stages["lost"]["test"]
    low, high = test["interval"]
    yield "cascade, cost", f"{stages['cost']['counted']:.2f} of the blend's cost in tokens"
    yield (
        "cascade",
        (
            f"macro F1 {test['macro_f1']:.4f} against {test['alone']:.4f}, "
            f"{test['difference']:.4f} ({low:.4f} to {high:.4f}); "
            f"{100 * stages['stages'][0]['left']['test']:.0f} % of texts"
        ),
    )
    load = read_json(RESULTS / "serving" / "load.json")
    statuses = load["statuses"]
    yield "load", f"{statuses['200']:,} labeled, {statuses['429']:,} refused"
    waits = load["accepted_ms"]
    yield "load, waits", f"median {waits['p50'] / 1e3:.1f} s, largest {waits['max'] / 1e3:.1f} s"
    killed = read_json(RESULTS / "serving" / "killed.json")
    yield "killed", f"{killed['seconds']:.0f} s beside other work"


def retrained_figures(printed: str) -> Iterator[str]:
    """What is wrong with the demonstration's printed intervals, after training again."""
    from jaxclf.training.run import train

    for name in DEMONSTRATION:
        with tempfile.TemporaryDirectory() as folder:
            macro_f1 = train(catalog.load(name), Path(folder) / name)["test"]["macro_f1"]
        match = re.search(rf"\(([\d.]+) to ([\d.]+)\) \| [\d.]+ \| `{name}`", printed)
        inside = match and float(match[1]) <= macro_f1 <= float(match[2])
        print(
            f"{'ok     ' if inside else 'OUTSIDE'} {name}, trained again: macro F1 {macro_f1:.3f}"
        )
        if not inside:
            yield name


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--retrain", action="store_true", help="train the demonstration again")
    args = parser.parse_args(argv)
    text = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    printed = " ".join(text.split()).replace("95 % interval ", "")
    missing = []
    for figures in (
        run_figures, comparison_figures, detail_figures, kept_figures, benchmark_figures
    ):  # fmt: skip
        for what, figure in figures():
            is_printed = " ".join(figure.split()) in printed
            print(f"{'ok     ' if is_printed else 'MISSING'} {what}: {figure}")
            if not is_printed:
                missing.append(what)
    if args.retrain:
        missing += retrained_figures(printed)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
