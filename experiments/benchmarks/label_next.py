"""How many labels `jaxclf next` saves against random choice, simulated on GoEmotions.

    python -m experiments.benchmarks.label_next --data FOLDER --out experiments/results/label_next.json

FOLDER holds train.tsv, dev.tsv, test.tsv (text, label indices, id) and labels.txt. The pool are 10,000 texts
of train, the same for all seeds. Their vectors are computed once: those of the untrained encoder that `fast`
starts from. In each round a logistic regression is fitted to the labeled texts, as `fast` fits its head; its
strength, calibration and thresholds are fitted on all of dev, by the product's rules. 200 random labels begin,
and 100 are added a round. The score is macro F1 on test. Each curve is kept, so a stopped simulation resumes.
"""  # noqa: E501

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats
from scipy.special import expit

from jaxclf.decisions.calibration import CALIBRATORS, apply_calibration
from jaxclf.decisions.label_next import SHORTLIST, choose_batch, informativeness, uncertainty
from jaxclf.decisions.metrics import log_loss, macro_f1
from jaxclf.decisions.thresholds import THRESHOLDS, decide
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.files.json_file import read_json, write_json
from jaxclf.model.classifier import make_embed, param_shapes
from jaxclf.model.inference import gather, prediction_shape, score
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.training.head_regression import STRENGTHS, fit_regression
from jaxclf.training.start import initial_params, open_start

POOL, START, ROUND, SEEDS, LAST = 10_000, 200, 100, 10, 2000
GOAL = 1300  # labels that should be enough
WINDOW = {"data.max_length": 64, "data.max_windows": 1, "data.window_overlap": 0}

Arrays = dict[str, np.ndarray]
# (probabilities of the free texts, thresholds, their vectors, positives, rng) -> chosen texts
Choose = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.random.Generator], Any]


def random(probs: np.ndarray, *rest: Any) -> np.ndarray:
    return rest[-1].permutation(len(probs))[:ROUND]


def margin(probs: np.ndarray, thresholds: np.ndarray, *_: Any) -> np.ndarray:
    """The sum of uncertainties, all labels alike."""
    return np.argsort(-uncertainty(probs, thresholds).sum(axis=1), kind="stable")[:ROUND]


def rare(probs: np.ndarray, thresholds: np.ndarray, *rest: Any) -> np.ndarray:
    """`informativeness` alone, without diversity."""
    return np.argsort(-informativeness(probs, thresholds, rest[1]), kind="stable")[:ROUND]


def product(probs: np.ndarray, thresholds: np.ndarray, *rest: Any) -> np.ndarray:
    """As `jaxclf next` chooses."""
    vectors, positives, _ = rest
    scores = informativeness(probs, thresholds, positives)
    best = np.argsort(-scores, kind="stable")[: SHORTLIST * ROUND]
    return best[choose_batch(scores[best], vectors[best], ROUND)]


WAYS: dict[str, Choose] = {"random": random, "margin": margin, "rare": rare, "next": product}


def read_vectors(folder: Path, cache: Path) -> Arrays:
    """Vectors and labels of each split, computed where the cache has none."""
    if cache.is_file():
        with np.load(cache) as file:
            return dict(file)
    start, experiment = open_start(override(catalog.load("fast"), WINDOW))
    names = tuple((folder / "labels.txt").read_text(encoding="utf-8").split())
    shapes = param_shapes(experiment, start.hf_config, len(names))
    params = initial_params(start, experiment, names, shapes)
    embed = jax.jit(make_embed(experiment, start.hf_config, len(names)))
    windows, arrays = experiment.data.windows, {}
    for split in ("train", "dev", "test"):
        text = (folder / f"{split}.tsv").read_text(encoding="utf-8")
        rows = [line.split("\t") for line in text.split("\n") if line]
        if split == "train":
            rows = [rows[row] for row in np.random.default_rng(0).permutation(len(rows))[:POOL]]
        labels = np.zeros((len(rows), len(names)), np.float32)
        for index, row in enumerate(rows):
            labels[index, [int(column) for column in row[1].split(",")]] = 1
        tokens = tokenize(start.tokenizer, [row[0] for row in rows], windows)
        batches = list(score(embed, params, tokens, prediction_shape(windows), len(names)))
        arrays[f"{split}_x"] = gather(iter(batches), len(rows), batches[0].probs.shape[1])
        arrays[f"{split}_y"] = labels
    np.savez(cache, **arrays)
    return arrays


def fit(data: Arrays, rows: list[int]) -> tuple[float, np.ndarray, np.ndarray]:
    """(macro F1 on test, probabilities of the pool, thresholds) after labeling some rows."""
    x, y = data["train_x"][rows], data["train_y"][rows]
    losses, models = [], []
    for strength in STRENGTHS:
        models.append(fit_regression(x, y, np.ones_like(y), strength))
        dev = expit(data["dev_x"] @ models[-1][0] + models[-1][1])
        losses.append(log_loss(data["dev_y"], dev))
        if losses[-1] > min(losses):
            break
    kernel, bias = models[int(np.argmin(losses))]
    raw = {
        split: expit(data[f"{split}_x"] @ kernel + bias).astype(np.float32)
        for split in ("train", "dev", "test")
    }
    calibration = CALIBRATORS["platt"](data["dev_y"], raw["dev"])
    probs = {split: apply_calibration(calibration, part) for split, part in raw.items()}
    thresholds = THRESHOLDS["auto"](data["dev_y"], probs["dev"])
    f1 = macro_f1(data["test_y"], probs["test"], decide(probs["test"], thresholds))
    return f1, probs["train"], thresholds


def simulate(data: Arrays, choose: Choose, seed: int, last: int) -> list[float]:
    """Macro F1 after START labels, and after each round up to `last` labels."""
    rng = np.random.default_rng(seed)
    rows = [int(row) for row in rng.permutation(len(data["train_x"]))[:START]]
    curve = []
    while True:
        f1, probs, thresholds = fit(data, rows)
        curve.append(f1)
        if len(rows) >= last:
            return curve
        free = np.setdiff1d(np.arange(len(probs)), rows)
        positives = data["train_y"][rows].sum(axis=0)
        vectors = data["train_x"][free]
        rows += free[choose(probs[free], thresholds, vectors, positives, rng)].tolist()


def interval(values: np.ndarray) -> list[float]:
    """The 95 % interval of a mean over seeds, by Student's t."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return [float(values.mean() - half), float(values.mean() + half)]


def summarize(curves: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Of each way the mean macro F1 at GOAL labels, minus that of random choice at LAST labels, and
    the labels at which its mean curve first reaches the latter."""
    reference, summary = np.array(curves["random"])[:, -1], {}
    for name, runs in curves.items():
        array = np.array(runs)
        difference = array[:, (GOAL - START) // ROUND] - reference
        reached = np.flatnonzero(array.mean(axis=0) >= reference.mean())
        summary[name] = {
            f"macro_f1_at_{GOAL}": float(array[:, (GOAL - START) // ROUND].mean()),
            f"minus_random_at_{LAST}": float(difference.mean()),
            "interval": interval(difference),
            "labels_needed": START + ROUND * int(reached[0]) if len(reached) else None,
        }
    return {f"random_at_{LAST}": float(reference.mean()), "ways": summary}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--vectors", type=Path, default=Path("runs/label_next.npz"))
    args = parser.parse_args()
    args.vectors.parent.mkdir(parents=True, exist_ok=True)
    data = read_vectors(args.data, args.vectors)
    curves = read_json(args.out)["curves"] if args.out.is_file() else {}
    for name, choose in WAYS.items():
        for seed in range(len(curves.setdefault(name, [])), SEEDS):
            last = LAST if name == "random" else GOAL
            curve = simulate(data, choose, seed, last)
            curves[name].append([round(value, 5) for value in curve])
            done = all(len(curves.get(way, [])) == SEEDS for way in WAYS)
            content = {
                "command": "python -m experiments.benchmarks.label_next "
                "--data FOLDER --out experiments/results/label_next.json",
                "labels": list(range(START, LAST + 1, ROUND)),
                "summary": summarize(curves) if done else None,
                "curves": curves,
            }
            write_json(args.out, content)
            print(name, seed, " ".join(f"{value:.4f}" for value in curve), flush=True)


if __name__ == "__main__":
    main()
