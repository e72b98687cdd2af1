"""The content of report.json and thresholds.json, from the predictions of a run; cross-fitting."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxclf.decisions.arrays import Decided, Labels, Probs, Thresholds
from jaxclf.decisions.calibration import (
    CALIBRATORS,
    Calibration,
    apply_calibration,
    calibrate_out_of_fold,
)
from jaxclf.decisions.folds import held_out_masks
from jaxclf.decisions.intervals import LEVEL, Resampled, bootstrap
from jaxclf.decisions.metrics import (
    compute_label_metrics,
    compute_metrics,
    constant_metrics,
    macro_f1,
)
from jaxclf.decisions.provenance import Provenance, describe_split
from jaxclf.decisions.targets import find_missed, measure_targets
from jaxclf.decisions.threshold_choice import ThresholdChoice, choose_rule, fit_rule
from jaxclf.decisions.threshold_search import FALLBACK
from jaxclf.decisions.thresholds import THRESHOLDS, decide
from jaxclf.experiment.config import Spec
from jaxclf.types import Predictions

FOLDS, THRESHOLD_RESAMPLES = 10, 200

Rule = Callable[[Labels, Probs], Thresholds]


def make_rule(spec: Spec, names: tuple[str, ...]) -> Rule:
    """The threshold rule of an experiment with its options: (labels, probs) -> thresholds."""
    return functools.partial(THRESHOLDS[spec.name], names=names, **spec.options)


def hold_choice(
    rule: Rule, spec: Spec, labels: Labels, probs: Probs
) -> tuple[Rule, ThresholdChoice | None]:
    """The rule that `auto` chooses on some examples, and why; any other rule as it is."""
    if spec.name != "auto":
        return rule, None
    choice = choose_rule(labels, probs)
    return functools.partial(fit_rule, rule=choice.rule), choice


def decide_crossfit(labels: Labels, probs: Probs, rule: Rule, folds: int = FOLDS) -> Decided:
    """Decide every example by thresholds fitted on the other folds.

    Scores on the split that fitted the thresholds are optimistically biased; the optimism is their
    difference to the scores of these decisions.
    """
    decided = np.zeros(probs.shape, bool)
    for held_out in held_out_masks(labels, folds):
        thresholds = rule(labels[~held_out], probs[~held_out])
        decided[held_out] = decide(probs[held_out], thresholds)
    return decided


def crossfit(
    labels: Labels, probs: Probs, rule: Rule, held: Rule
) -> tuple[Decided, Float[np.ndarray, "classes 2"]]:
    """The cross-fitted decisions of a rule, and 95 % intervals of thresholds over resampled
    examples.

    held: the rule whose thresholds are resampled: what `hold_choice` returns for `rule`.
    """
    rng, count = np.random.default_rng(0), len(labels)
    resampled = []
    for _ in range(THRESHOLD_RESAMPLES):
        rows = rng.integers(0, count, count)
        resampled.append(held(labels[rows], probs[rows]))
    ends = np.quantile(np.array(resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return decide_crossfit(labels, probs, rule), np.ascontiguousarray(ends.T)


def threshold_record(
    thresholds: np.ndarray,
    intervals: np.ndarray,
    spec: Spec,
    split: str,
    names: tuple[str, ...],
    choice: ThresholdChoice | None = None,
    reached: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The content of thresholds.json: of every label the threshold, its 95 % interval over
    resampled examples, the split it was fitted on and the rule with its options.

    choice: of the rule `auto`. Then `chosen` is the rule and `compared` has the scores.
    reached: the precision or recall of each label with a target.
    """
    chosen = {}
    if choice is not None:
        compared = choice._asdict()
        chosen = {"chosen": compared.pop("rule"), "compared": compared}
    return {
        name: {
            "value": float(value),
            "interval": interval.tolist(),
            "split": split,
            "rule": spec.name,
            **chosen,
            **spec.options,
            **({"reached": reached[name]} if reached and name in reached else {}),
        }
        for name, value, interval in zip(names, thresholds, intervals, strict=True)
    }


def recorded_rule(thresholds: Mapping[str, Any]) -> Spec:
    """The rule with its options that thresholds.json records."""
    record = dict(next(iter(thresholds.values())))
    for key in ("value", "interval", "split", "chosen", "compared", "reached"):
        record.pop(key, None)
    return Spec(record.pop("rule"), **record)


def score_run(
    predictions: Mapping[str, Predictions],
    spec: Spec,
    names: tuple[str, ...],
    provenance: Provenance,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(report.json, thresholds.json) of a run from its predictions on val and test.

    Thresholds are fitted on val, so the scores on it are of cross-fitted decisions.
    """
    val, rule = predictions["val"], make_rule(spec, names)
    held, choice = hold_choice(rule, spec, val.labels, val.probs)
    thresholds = held(val.labels, val.probs)
    decided, intervals = crossfit(val.labels, val.probs, rule, held)
    report = make_report(predictions, thresholds, names, provenance, (val.probs, decided))
    reached = measure_targets(spec, val.labels, val.probs, thresholds, names)
    about_rule: dict[str, Any] = {}
    if choice is not None:
        about_rule["threshold_choice"] = choice._asdict()
    if missed := find_missed(spec, reached):
        about_rule["missed_target"] = missed
    report = {split: part | about_rule for split, part in report.items()}
    return report, threshold_record(thresholds, intervals, spec, "val", names, choice, reached)


def make_report(
    predictions: Mapping[str, Predictions],
    thresholds: np.ndarray,
    names: tuple[str, ...],
    provenance: Provenance,
    out_of_fold: tuple[Probs, Decided],
) -> dict[str, Any]:
    """The content of report.json.

    out_of_fold: probabilities and decisions on val by what was fitted on other folds. They are
        scored; `crossfit` has each metric under the final thresholds, and its optimism.
    """
    val = predictions["val"]
    probs, decided = out_of_fold
    in_sample = compute_metrics(val.labels, val.probs, decide(val.probs, thresholds))
    scored = {**predictions, "val": val._replace(probs=probs)}
    decisions = {
        split: decided if split == "val" else decide(part.probs, thresholds)
        for split, part in scored.items()
    }
    report: dict[str, Any] = {
        split: score_decisions(part, decisions[split], thresholds, names)
        | describe_split(provenance, split)
        for split, part in scored.items()
    }
    report["val"]["crossfit"] = {
        name: {"in_sample": value, "optimism": value - report["val"][name]}
        for name, value in in_sample.items()
    }
    return report


def calibrate(
    predictions: Mapping[str, Predictions], spec: Spec
) -> tuple[dict[str, Predictions], Calibration]:
    """Fit a calibration on val and apply it to all splits.

    The probabilities of val are calibrated out of fold, so that thresholds and metrics on it are
    not biased by the calibration.
    """
    calibrator = functools.partial(CALIBRATORS[spec.name], **spec.options)
    val = predictions["val"]
    calibration = calibrator(val.labels, val.probs)
    calibrated = {
        split: part._replace(probs=apply_calibration(calibration, part.probs))
        for split, part in predictions.items()
    }
    val_probs = calibrate_out_of_fold(val.labels, val.probs, calibrator)
    calibrated["val"] = val._replace(probs=val_probs)
    return calibrated, calibration


def evaluate_split(
    predictions: Predictions, thresholds: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """One split's part of report.json, with the decisions by the thresholds."""
    return score_decisions(predictions, decide(predictions.probs, thresholds), thresholds, names)


def score_decisions(
    predictions: Predictions, decided: Decided, thresholds: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """One split's part of report.json, with decisions of any origin.

    `labels_in_macro` is the number of labels with a positive; macro F1 is over these.
    `macro_f1_at_half` is macro F1 at thresholds of 0.5. `constant` has each metric of the best
    answer that is the same for every text.
    """
    labels, probs = predictions.labels, predictions.probs
    rows = compute_label_metrics(labels, probs, decided, names)
    return {
        **compute_metrics(labels, probs, decided),
        "labels_in_macro": sum(row["support"] > 0 for row in rows.values()),
        "macro_f1_at_half": macro_f1(labels, probs, decide(probs, np.full(len(names), FALLBACK))),
        "constant": constant_metrics(labels),
        "intervals": intervals_record(bootstrap(labels, probs, decided), names),
        "labels": {
            name: {**row, "threshold": float(threshold)}
            for (name, row), threshold in zip(rows.items(), thresholds, strict=True)
        },
    }


def intervals_record(resampled: Resampled, names: tuple[str, ...]) -> dict[str, Any]:
    """95 % intervals of every metric, and under `labels` of each label's F1."""
    f1 = zip(names, resampled.f1, strict=True)
    return {
        **{name: estimate.interval for name, estimate in resampled.metrics.items()},
        "labels": {name: estimate.interval for name, estimate in f1},
    }
