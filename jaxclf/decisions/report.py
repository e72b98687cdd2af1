"""Figures of a run: report.json's values, thresholds.json's, and the table on the terminal."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.config import Spec
from jaxclf.decisions.intervals import f1_intervals
from jaxclf.decisions.metrics import aggregate, by_label, count, f1, mean_where_known
from jaxclf.decisions.thresholds import THRESHOLDS, decide
from jaxclf.types import Predictions


def fit_thresholds(predictions: Predictions, rule: Spec) -> np.ndarray:
    """The rule's thresholds, fitted on these predictions."""
    return THRESHOLDS[rule.name](predictions.labels, predictions.probs, **rule.options)


def threshold_record(
    thresholds: np.ndarray, rule: Spec, split: str, names: tuple[str, ...]
) -> dict[str, Any]:
    """thresholds.json: per label its value, the split it was fitted on and the rule."""
    return {
        name: {"value": float(value), "split": split, "rule": rule.name, **rule.options}
        for name, value in zip(names, thresholds, strict=True)
    }


def evaluate_split(
    predictions: Predictions, thresholds: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """One split's part of report.json. `macro_f1_at_half` is what a fixed 0.5 would give."""
    labels, probs = predictions.labels, predictions.probs
    decided = decide(probs, thresholds)
    rows = by_label(labels, probs, decided, names)
    return {
        **aggregate(labels, probs, decided),
        "macro_f1_at_half": mean_where_known(
            f1(count(labels, decide(probs, np.full(len(names), 0.5))))
        ),
        "intervals": f1_intervals(labels, decided),
        "labels": {
            name: {**row, "threshold": float(threshold)}
            for (name, row), threshold in zip(rows.items(), thresholds, strict=True)
        },
    }


def write_json(path: Path, values: Any) -> None:
    """Write whole or not at all; NaN becomes null."""
    part = path.with_name(path.name + ".part")
    part.write_text(
        json.dumps(_without_nan(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        encoding="utf-8",
    )
    part.replace(path)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


COLUMNS = ("precision", "recall", "f1", "auc", "ap", "threshold")


def table(part: Mapping[str, Any], split: str) -> str:
    """A split's figures as text: a row per label, the headline below."""
    width = max(len(name) for name in [*part["labels"], split])
    lines = [f"{split:<{width}}  {'support':>7}" + "".join(f"  {column:>9}" for column in COLUMNS)]
    for name, row in part["labels"].items():
        cells = "".join(f"  {_figure(row[column]):>9}" for column in COLUMNS)
        lines.append(f"{name:<{width}}  {row['support']:>7.0f}{cells}")
    low, high = part["intervals"]["macro_f1"]
    lines += [
        "",
        f"macro F1 {_figure(part['macro_f1'])}  (95 % interval {_figure(low)} to {_figure(high)}; "
        f"at a fixed threshold of 0.5: {_figure(part['macro_f1_at_half'])})",
        f"micro F1 {_figure(part['micro_f1'])}   weighted F1 {_figure(part['weighted_f1'])}   "
        f"samples F1 {_figure(part['samples_f1'])}   macro AUC {_figure(part['macro_auc'])}   "
        f"mAP {_figure(part['map'])}",
        f"all labels of a text right {_figure(part['subset_accuracy'])}   labels right "
        f"{_figure(part['label_accuracy'])}   Hamming loss {_figure(part['hamming_loss'])}   "
        f"ECE {_figure(part['ece'])}",
    ]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.3f}"
