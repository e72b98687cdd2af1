"""Several runs of one command: members of an ensemble and its student, folds that are held out."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxclf.decisions.predictions import (
    HELD_OUT,
    load_predictions,
    merge_predictions,
    save_predictions,
)
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.files.json_file import read_json
from jaxclf.text.data_splits import read_data
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train
from jaxclf.types import Predictions

log = logging.getLogger(__name__)


def train_members(
    names: Sequence[str], changes: Mapping[str, Any], seeds: int, folds: int, out: Path
) -> dict[str, list[Path]]:
    """Train each experiment with each seed, and with each fold held out if there are folds.

    Returns the runs of each pair of experiment and seed. Finished runs are kept, and an interrupted
    one is resumed.
    """
    tune_malloc()
    systems: dict[str, list[Path]] = {}
    for name in names:
        experiment = override(catalog.load(name), changes)
        for seed in range(seeds):
            label = f"{Path(name).stem}-seed{seed}"
            parts = [{"data.folds": folds, "data.fold": fold} for fold in range(folds)] or [{}]
            systems[label] = []
            for fold, part in enumerate(parts):
                run = out / "members" / (f"{label}-fold{fold}" if folds else label)
                log.info("%s", run)
                train(override(experiment, {"seed": seed, **part}), run)
                jax.clear_caches()  # the next member may be another network
                systems[label].append(run)
    return systems


def train_student(
    name: str, changes: Mapping[str, Any], teacher: Path, out: Path
) -> dict[str, Any]:
    """Train an experiment on the probabilities in the file `teacher`. Returns its report."""
    tune_malloc()
    soft_labels = {"data.soft_labels": str(teacher)}
    return train(override(catalog.load(name), {**changes, **soft_labels}), out)


def predict_held_out(
    name: str, changes: Mapping[str, Any], folds: int, out: Path
) -> tuple[Predictions, tuple[str, ...]]:
    """Predict every training row with a network that did not train on it.

    Trains an experiment with each fold of the training rows held out, in `out`/fold-0 and so on.
    Returns the merged predictions, which are kept in `out`/predictions/held_out.npz, and the names
    of the labels. Finished runs are kept, and an interrupted one is resumed.
    """
    tune_malloc()
    experiment = override(catalog.load(name), changes)
    runs = [out / f"fold-{fold}" for fold in range(folds)]
    for fold, run in enumerate(runs):
        log.info("fold %d of %d: %s", fold + 1, folds, run)
        train(override(experiment, {"data.folds": folds, "data.fold": fold}), run)
    merged = merge_predictions([load_split(run, HELD_OUT)[0] for run in runs])
    save_predictions(out / "predictions" / f"{HELD_OUT}.npz", merged)
    return merged, load_split(runs[0], HELD_OUT)[1]


def load_split(run: Path, split: str) -> tuple[Predictions, tuple[str, ...]]:
    """The predictions of a finished run for a split, and the names of the labels."""
    predictions = load_predictions(run / "predictions" / f"{split}.npz")
    return predictions, tuple(read_json(run / "labels.json"))


def read_texts(run: Path, split: str) -> dict[str, str]:
    """The texts of a split of a run, by id."""
    data = catalog.load(str(run / "config.json")).data
    examples = read_data(data)["train" if split == HELD_OUT else split]
    return dict(zip(examples.ids, examples.texts, strict=True))
