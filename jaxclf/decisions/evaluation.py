"""Figures of a run: report.json's values, thresholds.json's, and the table on the terminal."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxclf.decisions.calibration import (
    CALIBRATORS,
    Calibration,
    apply_calibration,
    calibrate_out_of_fold,
)
from jaxclf.decisions.crossfit import Rule, crossfit
from jaxclf.decisions.intervals import Resampled, bootstrap
from jaxclf.decisions.metrics import compute_label_metrics, compute_metrics, macro_f1
from jaxclf.decisions.provenance import Provenance, fitted_by
from jaxclf.decisions.thresholds import THRESHOLDS, decide
from jaxclf.experiment.config import Spec
from jaxclf.types import Predictions


def rule_of(spec: Spec, names: tuple[str, ...]) -> Rule:
    """The experiment's rule with its options: (labels, probs) -> thresholds."""
    return functools.partial(THRESHOLDS[spec.name], names=names, **spec.options)


def fit_thresholds(predictions: Predictions, spec: Spec, names: tuple[str, ...]) -> np.ndarray:
    """The rule's thresholds, fitted on these predictions."""
    return rule_of(spec, names)(predictions.labels, predictions.probs)


def threshold_record(
    thresholds: np.ndarray,
    intervals: np.ndarray,
    spec: Spec,
    split: str,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """thresholds.json: per label its value, the 95 % interval of it over resampled examples, the
    split it was fitted on and the rule."""
    return {
        name: {
            "value": float(value),
            "interval": interval.tolist(),
            "split": split,
            "rule": spec.name,
            **spec.options,
        }
        for name, value, interval in zip(names, thresholds, intervals, strict=True)
    }


def score_run(
    found: Mapping[str, Predictions], spec: Spec, names: tuple[str, ...], provenance: Provenance
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(report.json, thresholds.json) of a run from its predictions on val and test.

    Thresholds are fitted on val. What is said of val is said twice: under those thresholds, and
    under thresholds fitted on other folds of it (`crossfit`), the difference being the optimism.
    """
    val, rule = found["val"], rule_of(spec, names)
    thresholds = rule(val.labels, val.probs)
    honest = crossfit(val.labels, val.probs, rule)
    report = {split: evaluate_split(part, thresholds, names) for split, part in found.items()}
    for split, part in report.items():
        part["fitted"] = fitted_by(provenance, split)
    report["val"]["crossfit"] = {
        metric: {"score": honest.crossfit[metric], "optimism": honest.optimism(metric)}
        for metric in ("macro_f1", "micro_f1")
    }
    return report, threshold_record(thresholds, honest.intervals, spec, "val", names)


def calibrate(
    found: Mapping[str, Predictions], spec: Spec
) -> tuple[dict[str, Predictions], Calibration]:
    """Predictions as the model will answer, and the curves, fitted on val.

    Val's own are out of fold, each example's from curves that other folds fitted, so that what is
    fitted on them and said of them is honest.
    """
    fit = functools.partial(CALIBRATORS[spec.name], **spec.options)
    val = found["val"]
    calibration = fit(val.labels, val.probs)
    after = {
        split: part._replace(probs=apply_calibration(calibration, part.probs))
        for split, part in found.items()
    }
    after["val"] = val._replace(probs=calibrate_out_of_fold(val.labels, val.probs, fit))
    return after, calibration


def evaluate_split(
    predictions: Predictions, thresholds: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """One split's part of report.json. `macro_f1_at_half` is what a fixed 0.5 would give."""
    labels, probs = predictions.labels, predictions.probs
    decided = decide(probs, thresholds)
    rows = compute_label_metrics(labels, probs, decided, names)
    return {
        **compute_metrics(labels, probs, decided),
        "macro_f1_at_half": macro_f1(labels, probs, decide(probs, np.full(len(names), 0.5))),
        "intervals": intervals_of(bootstrap(labels, probs, decided), names),
        "labels": {
            name: {**row, "threshold": float(threshold)}
            for (name, row), threshold in zip(rows.items(), thresholds, strict=True)
        },
    }


def intervals_of(found: Resampled, names: tuple[str, ...]) -> dict[str, Any]:
    """95 % intervals of every figure, and under `labels` of each label's F1."""
    return {
        **{metric: one.interval for metric, one in found.metrics.items()},
        "labels": {name: one.interval for name, one in zip(names, found.f1, strict=True)},
    }
