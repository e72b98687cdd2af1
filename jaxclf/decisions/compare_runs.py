"""Runs against runs: their predictions on one split, the differences, the verdict in words."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.decisions.comparison import Compared, Difference, Outputs, holm, paired, verdict
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.predictions import load_predictions
from jaxclf.decisions.thresholds import decide, per_label
from jaxclf.errors import DataError


class System(NamedTuple):
    """One way to train, by its runs, which differ in their seed."""

    name: str
    runs: list[Outputs]
    ids: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def read_system(name: str, folders: Sequence[Path], split: str, half: bool = False) -> System:
    """The runs' probabilities on a split and what their thresholds decide.

    half: 0.5 for every label in place of the run's thresholds.
    Raises DataError for a folder that is no run and for runs of different examples or labels.
    """
    runs, first = [], None
    for folder in folders:
        path = folder / "labels.json"
        if not path.is_file():
            raise DataError(f"{path}: no such file; give folders of finished runs")
        names = tuple(json.loads(path.read_text(encoding="utf-8")))
        found = load_predictions(folder / "predictions" / f"{split}.npz")
        here = System(name, runs, found.ids, found.labels, names)
        first = first or here
        check_same(first, here, folder)
        thresholds = np.full(len(names), 0.5) if half else _thresholds(folder, names)
        runs.append((found.probs, decide(found.probs, thresholds)))
    if first is None:
        raise DataError(f"{name}: no runs")
    return first


def check_same(one: System, other: System, where: Path | str) -> None:
    """DataError where two do not speak of the same examples and labels in the same order."""
    if one.names != other.names:
        raise DataError(f"{where}: labels are {', '.join(other.names)}, not {', '.join(one.names)}")
    if not np.array_equal(one.ids, other.ids):
        raise DataError(f"{where}: predictions of other examples; they cannot be paired")
    if not np.array_equal(one.labels, other.labels, equal_nan=True):
        raise DataError(f"{where}: the examples are labelled otherwise; they cannot be paired")


def _thresholds(folder: Path, names: tuple[str, ...]) -> np.ndarray:
    """The run's own; for another program's predictions, fitted per label on val."""
    path = folder / "thresholds.json"
    if path.is_file():
        record = json.loads(path.read_text(encoding="utf-8"))
        return np.array([record[name]["value"] for name in names])
    val = load_predictions(folder / "predictions" / "val.npz")
    return per_label(val.labels, val.probs)


def compare_systems(
    one: System, other: System, resamples: int, seed: int, matched: bool = False
) -> Compared:
    """`one` less `other`, paired. matched: their runs are the same networks, decided otherwise."""
    check_same(one, other, other.name)
    return paired(one.labels, one.runs, other.runs, resamples, resamples, seed, matched)


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
        system.name: record_of(compare_systems(first, system, resamples, seed), system.names)
        for system in others
    }


def say_difference(found: Difference, better: bool, p: float) -> str:
    low, high = found.bca
    return verdict(found.value, low, high, p, better)


def record_of(found: Compared, names: Sequence[str]) -> dict[str, Any]:
    """Plain JSON values: every figure, and the labels' F1 with p-values adjusted by Holm."""

    def plain(one: Difference, p: float, better: bool) -> dict[str, Any]:
        return {
            "a": one.one,
            "b": one.other,
            "difference": one.value,
            "interval": list(one.bca),
            "p": p,
            "verdict": say_difference(one, better, p),
        }

    adjusted = holm([label.p for label in found.f1])
    return {
        "metrics": {
            name: plain(found.metrics[name], found.metrics[name].p, metric.higher_is_better)
            for name, metric in METRICS.items()
        },
        "f1": {
            name: plain(label, float(p), True)
            for name, label, p in zip(names, found.f1, adjusted, strict=True)
        },
    }
