"""stages.json: how many texts exit at each stage, what early exits lose, and what they save."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import betaincinv

from jaxclf.decisions.calibration import calibrated
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
                    part.like.labels[:, label],
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
    labels, final_probs = val.like.labels, val.probs[-1]
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
    comparison = paired(part.like.labels, ours, final, resamples=NUM_RESAMPLES, swaps=1)
    macro_f1 = comparison.metrics["macro_f1"]
    return {
        "macro_f1": macro_f1.one,
        "final_stage_macro_f1": macro_f1.other,
        "difference": macro_f1.value,
        "interval": list(macro_f1.bca),
    }


def _macro_f1_alone(
    part: Members, index: int, exits: Sequence[EarlyExit], thresholds: Thresholds
) -> float:
    """Macro F1 of a stage that decides all texts."""
    probs = part.probs[index].astype(np.float32)
    if index < len(exits):
        probs = calibrated(exits[index].calibration, probs)
    return compute_metrics(part.like.labels, probs, decide(probs, thresholds))["macro_f1"]


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


def format_stages(summary: Mapping[str, Any]) -> str:
    """stages.json as text for a terminal or a page."""
    stages, config, losses = summary["stages"], summary["config"], summary["metric_loss"]
    width = max(len(name) for name in ["exit at", *(stage["name"] for stage in stages)])
    lines = [f"{'exit at':<{width}}  {'val':>6}  {'test':>6}  {'macro F1 alone':>14}"]
    for stage in stages:
        rates = "".join(f"  {100 * stage['exit_rate'][split]:>5.1f}%" for split in ("val", "test"))
        lines.append(f"{stage['name']:<{width}}{rates}  {stage['macro_f1_alone']:>14.3f}")
    test = losses["test"]
    low, high = test["interval"]
    lines += [
        "",
        f"expected loss of {config['metric']}: {losses['expected']:.4f} (out of fold "
        f"{losses['expected_out_of_fold']:.4f}); at most {config['max_metric_loss']:.4f} with "
        f"{config['confidence']:.0%} confidence",
        f"test macro F1 {test['macro_f1']:.4f}, final stage alone "
        f"{test['final_stage_macro_f1']:.4f}: {test['difference']:+.4f} (95 % interval "
        f"{low:+.4f} to {high:+.4f})",
        _format_cost(summary["cost"]),
    ]
    for name, by_split in summary["final_stage_labels"].items():
        counts = by_split["test"]
        lines.append(
            f"{name}: the final stage predicts it for {counts['predicted']} test texts; "
            f"{counts['missed']} of them exit early without it (at most "
            f"{counts['max_miss_rate']:.1%} with 95 % confidence)"
        )
    rules = summary["rules"]["test"]
    if rules["escalated"] or rules["forced"]:
        lines.append(
            f"rules send {rules['escalated']:.1%} of the test texts to the final stage and assign "
            f"a label to {rules['forced']:.1%}"
        )
    return "\n".join(lines)


def _format_cost(cost: Mapping[str, Any]) -> str:
    line = f"cost relative to the final stage alone: {cost['tokens']:.2f} in tokens"
    if cost["time"] is None:
        return line + ", time not measured (the test texts are missing)"
    rates = cost["texts_per_second"]
    return line + (
        f", {cost['time']:.2f} in time ({rates['cascade']:,.0f} texts/s, final stage alone "
        f"{rates['final_stage']:,.0f})"
    )
