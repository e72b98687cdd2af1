"""Targets of precision or recall that no threshold reaches."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxclf.decisions.arrays import Labels, Probs, Thresholds
from jaxclf.decisions.metrics import score_labels
from jaxclf.decisions.thresholds import THRESHOLDS, decide
from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import options_of

MEASURES = {"precision_at": "precision", "recall_at": "recall"}


def measure_targets(
    spec: Spec, labels: Labels, probs: Probs, thresholds: Thresholds, names: tuple[str, ...]
) -> dict[str, float]:
    """What each label with a target has on the rows that fitted its threshold: NaN without a
    positive. Empty for a rule without a target."""
    if spec.name not in MEASURES:
        return {}
    precision, recall, *_ = score_labels(labels, decide(probs, thresholds))
    values = {"precision": precision, "recall": recall}[MEASURES[spec.name]]
    known = np.where(np.nansum(labels, axis=0) > 0, values, np.nan)
    targeted = spec.options.get("labels") or names
    return {
        name: float(value) for name, value in zip(names, known, strict=True) if name in targeted
    }


def find_missed(spec: Spec, reached: Mapping[str, float]) -> dict[str, Any]:
    """The target and the labels that do not reach it; empty where all do."""
    if not reached:
        return {}
    default = options_of(THRESHOLDS[spec.name])["target"].default
    target = spec.options.get("target", default)
    labels = {name: value for name, value in reached.items() if not value >= target - 1e-9}
    return {"measure": MEASURES[spec.name], "target": target, "labels": labels} if labels else {}


def describe_missed(missed: Mapping[str, Any]) -> str:
    """A sentence about the labels whose target no threshold reaches."""
    shown = ", ".join(
        f"{name} (no positive)"
        if value is None or math.isnan(value)
        else f"{name} (at best {value:.3f})"
        for name, value in missed["labels"].items()
    )
    target = f"the {missed['measure']} {missed['target']:g}"
    return f"No threshold reaches {target} on validation for: {shown}."
