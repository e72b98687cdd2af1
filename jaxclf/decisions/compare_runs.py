"""Compare runs: their predictions on one split, the differences and the verdicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.decisions.comparison import Compared, Difference, Outputs, holm, paired, verdict
from jaxclf.decisions.evaluation import make_rule
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.predictions import load_predictions
from jaxclf.decisions.threshold_search import FALLBACK
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.files.json_file import read_json


class System(NamedTuple):
    """The runs of one experiment, which differ in their seed."""

    name: str
    runs: list[Outputs]
    ids: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def read_system(name: str, folders: Sequence[Path], split: str, half: bool = False) -> System:
    """Read the probabilities of runs on a split, and decide by the thresholds of each run.

    half: decide at 0.5 instead. Raises DataError for a folder that is not a finished run, and for
    runs with different examples or labels.
    """
    runs, first = [], None
    for folder in folders:
        path = folder / "labels.json"
        if not path.is_file():
            raise DataError(f"{path}: no such file; name folders of finished runs")
        names = tuple(read_json(path))
        predictions = load_predictions(folder / "predictions" / f"{split}.npz")
        system = System(name, runs, predictions.ids, predictions.labels, names)
        first = first or system
        check_paired(first, system, folder)
        thresholds = np.full(len(names), FALLBACK) if half else _read_thresholds(folder, names)
        runs.append((predictions.probs, decide(predictions.probs, thresholds)))
    if first is None:
        raise DataError(f"{name}: no runs")
    return first


def check_paired(first: System, second: System, source: Path | str) -> None:
    """Raise DataError, naming `source`, unless both have the same examples and labels in order."""
    if first.names != second.names:
        labels, expected = ", ".join(second.names), ", ".join(first.names)
        raise DataError(f"{source}: labels are {labels}, not {expected}")
    if not np.array_equal(first.ids, second.ids):
        raise DataError(f"{source}: predictions of different examples; they cannot be paired")
    if not np.array_equal(first.labels, second.labels, equal_nan=True):
        raise DataError(f"{source}: the examples have different labels; they cannot be paired")


def _read_thresholds(folder: Path, names: tuple[str, ...]) -> np.ndarray:
    """The run's thresholds; for another program's predictions, fitted on val by the rule that its
    config.json names, or by the default."""
    path = folder / "thresholds.json"
    if path.is_file():
        record = read_json(path)
        return np.array([record[name]["value"] for name in names])
    val = load_predictions(folder / "predictions" / "val.npz")
    path = folder / "config.json"
    spec = catalog.load(str(path)).threshold if path.is_file() else Experiment.threshold
    return make_rule(spec, names)(val.labels, val.probs)


def compare_systems(
    first: System, second: System, resamples: int, seed: int, matched: bool = False
) -> Compared:
    """Compare two systems on the same examples. Raises DataError if they cannot be paired.

    matched: the runs of both are the same networks, with different decisions.
    """
    check_paired(first, second, second.name)
    return paired(first.labels, first.runs, second.runs, resamples, resamples, seed, matched)


def compare_folders(
    systems: Sequence[str], split: str, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Compare the first system with each of the others, as plain JSON values by their names.

    systems: run folders; those of one system are separated by commas.
    """
    first, *others = [
        read_system(name, [Path(folder) for folder in name.split(",")], split) for name in systems
    ]
    return {
        system.name: comparison_record(
            compare_systems(first, system, resamples, seed), system.names
        )
        for system in others
    }


def comparison_record(compared: Compared, names: Sequence[str]) -> dict[str, Any]:
    """Every metric, and the labels' F1 with p-values adjusted by Holm, as plain JSON values."""
    adjusted = holm([difference.p for difference in compared.f1])
    return {
        "metrics": {
            name: _difference_record(difference, difference.p, METRICS[name].higher_is_better)
            for name, difference in compared.metrics.items()
        },
        "f1": {
            name: _difference_record(difference, float(p), True)
            for name, difference, p in zip(names, compared.f1, adjusted, strict=True)
        },
    }


def _difference_record(difference: Difference, p: float, higher_is_better: bool) -> dict[str, Any]:
    return {
        "a": difference.first,
        "b": difference.second,
        "difference": difference.value,
        "interval": list(difference.bca),
        "p": p,
        "verdict": verdict(difference.value, *difference.bca, p, higher_is_better),
    }
