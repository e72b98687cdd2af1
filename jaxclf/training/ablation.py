"""An experiment, and variants of it that each revert one choice to the baseline's."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxclf.decisions.compare_runs import compare_systems, comparison_record, read_system
from jaxclf.decisions.comparison import holm
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import iter_fields, override
from jaxclf.experiment.validation import check
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train

log = logging.getLogger(__name__)

FULL, BASELINE = "full", "baseline"
# Needs no training: the runs of the full experiment with a threshold of 0.5 for every label.
THRESHOLD = "threshold=fixed"

# The choices that a variant may revert. All other keys are budget, and equal for all.
CHOICES = ("pool", "head", "loss", "sampler", "optim.schedule")


def ablations(experiment: Experiment, baseline: Experiment) -> dict[str, Experiment]:
    """Name -> experiment to train: the full one, one for each choice that differs from the
    baseline's, reverted, and one with all of them reverted."""
    values = dict(iter_fields(experiment))
    reverted = {k: v for k, v in iter_fields(baseline) if k in CHOICES and v != values[k]}
    variants = {f"{key}={spec.name}": {key: spec} for key, spec in reverted.items()}
    variants[BASELINE] = reverted
    return {FULL: experiment} | {
        label: override(experiment, changes) for label, changes in variants.items()
    }


def train_ablations(
    name: str, changes: Mapping[str, Any], seeds: int, out: Path
) -> dict[str, list[Path]]:
    """Train an experiment and its ablations with several seeds. Returns their run folders.

    Finished runs are kept, and an interrupted one is resumed.
    """
    tune_malloc()
    full = override(catalog.load(name), changes)
    experiments = ablations(full, override(catalog.load(BASELINE), changes))
    for experiment in experiments.values():
        check(experiment)
    runs: dict[str, list[Path]] = {label: [] for label in experiments}
    # Seeds are the outer loop, so that an interrupted ablation has comparable runs of all.
    for seed in range(seeds):
        for label, experiment in experiments.items():
            # If one choice differs, reverting it gives the baseline: equal ones are trained once.
            trained_as = next(name for name in experiments if experiments[name] == experiment)
            folder = out / f"{trained_as.replace('=', '-')}-seed{seed}"
            runs[label].append(folder)
            if trained_as == label:
                log.info("%s, seed %d: %s", label, seed, folder)
                train(override(experiment, {"seed": seed}), folder)
                jax.clear_caches()  # the next ablation may be another network
    return runs


def score_ablations(
    runs: Mapping[str, list[Path]], resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Compare the full experiment with each ablation on test; the p of macro F1 is adjusted by
    Holm over the ablations, as `p_holm`."""
    full = read_system(FULL, runs[FULL], "test")
    systems = [read_system(label, folders, "test") for label, folders in runs.items()][1:]
    systems.append(read_system(THRESHOLD, runs[FULL], "test", half=True))
    comparisons = {
        system.name: compare_systems(full, system, resamples, seed, system.name == THRESHOLD)
        for system in systems
    }
    adjusted = holm([comparison.metrics["macro_f1"].p for comparison in comparisons.values()])
    record = {
        name: comparison_record(comparison, full.names) for name, comparison in comparisons.items()
    }
    for row, p in zip(record.values(), adjusted, strict=True):
        row["metrics"]["macro_f1"]["p_holm"] = float(p)
    return record
