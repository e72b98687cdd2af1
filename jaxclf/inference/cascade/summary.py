"""stages.json: how many texts exit at each stage, what early exits lose, and what they save."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import betaincinv

from jaxclf.decisions.calibration import apply_calibration
from jaxclf.decisions.comparison import paired
from jaxclf.decisions.members import Members
from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.thresholds import decide
from jaxclf.inference.cascade.cutoffs import (
    EarlyExit,
    Goal,
    OutOfFold,
    RuleMatches,
    StageOutputs,
    Thresholds,
    expected_loss,
    run_stages,
)

STAGES = "stages.json"
NUM_RESAMPLES = 2000


def summarize(
    members: Mapping[str, Members],
    outputs: Mapping[str, StageOutputs],
    matches: Mapping[str, RuleMatches],
    exits: Sequence[EarlyExit],
    out_of_fold: OutOfFold,
    thresholds: Thresholds,
    goal: Goal,
) -> dict[str, Any]:
    """The content of stages.json: the share of texts that exit at each stage, the metric lost
    against the final stage alone, and how often labels of the final stage are missed.

    members, outputs, matches: by split, `val` and `test`.
    """
    splits = list(members)
    return {
        "stages": [
            {
                "exit_rate": {
                    split: float(np.mean(outputs[split].stage == index)) for split in splits
                },
                "macro_f1_alone": _macro_f1_alone(members["test"], index, exits, thresholds),
            }
            for index in range(len(exits) + 1)
        ],
        "rules": {
            split: {
                "escalated": float(np.mean(part.escalate)),
                "forced": float(np.mean(part.forced.any(axis=1))),
            }
            for split, part in matches.items()
        },
        "metric_loss": {
            **_expected_losses(members["val"], exits, out_of_fold, thresholds, goal.metric),
            **{
                split: _measure_loss(members[split], outputs[split], thresholds) for split in splits
            },
        },
        "final_stage_labels": {
            name: {
                split: count_missed(
                    part.reference.labels[:, label],
                    decide(outputs[split].probs, thresholds)[:, label],
                    decide(part.probs[-1], thresholds)[:, label],
                )
                for split, part in members.items()
            }
            for label, name in enumerate(members["val"].names)
            if goal.is_final[label]
        },
    }


def _expected_losses(
    val: Members,
    exits: Sequence[EarlyExit],
    out_of_fold: OutOfFold,
    thresholds: Thresholds,
    metric: str,
) -> dict[str, float]:
    labels, final_probs = val.reference.labels, val.probs[-1]
    final = decide(final_probs, thresholds)
    decisions = decide(run_stages(exits, val.probs).probs, thresholds)
    loss, standard_deviation = expected_loss(labels, final_probs, final, decisions, metric)
    return {
        "expected": loss,
        "standard_deviation": standard_deviation,
        "expected_out_of_fold": expected_loss(
            labels, final_probs, out_of_fold.final, out_of_fold.decisions, metric
        )[0],
    }


def _measure_loss(part: Members, outputs: StageOutputs, thresholds: Thresholds) -> dict[str, Any]:
    """Macro F1 of the cascade, of its final stage alone, and their difference with its interval."""
    final = part.probs[-1].astype(np.float32), decide(part.probs[-1], thresholds)
    ours = outputs.probs, decide(outputs.probs, thresholds)
    comparison = paired(part.reference.labels, ours, final, resamples=NUM_RESAMPLES, swaps=1)
    macro_f1 = comparison.metrics["macro_f1"]
    return {
        "macro_f1": macro_f1.first,
        "final_stage_macro_f1": macro_f1.second,
        "difference": macro_f1.value,
        "interval": list(macro_f1.bca),
    }


def _macro_f1_alone(
    part: Members, index: int, exits: Sequence[EarlyExit], thresholds: Thresholds
) -> float:
    """Macro F1 of a stage that decides all texts."""
    probs = part.probs[index].astype(np.float32)
    if index < len(exits):
        probs = apply_calibration(exits[index].calibration, probs)
    return compute_metrics(part.reference.labels, probs, decide(probs, thresholds))["macro_f1"]


def count_missed(
    truth: Float[np.ndarray, " examples"],
    decisions: Bool[np.ndarray, " examples"],
    final: Bool[np.ndarray, " examples"],
) -> dict[str, Any]:
    """How many texts with a label of the final stage lack it in the cascade.

    max_miss_rate: the upper end of the one-sided 95 % interval (Clopper and Pearson 1934).
    """
    predicted, missed = int(final.sum()), int((final & ~decisions).sum())
    is_true = truth == 1
    bound = float(betaincinv(missed + 1, predicted - missed, 0.95)) if missed < predicted else 1.0
    return {
        "predicted": predicted,
        "missed": missed,
        "max_miss_rate": bound,
        "recall": float(decisions[is_true].mean()) if is_true.any() else None,
        "final_stage_recall": float(final[is_true].mean()) if is_true.any() else None,
    }
