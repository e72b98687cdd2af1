"""The members of an ensemble, and a student that learns from it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train

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
