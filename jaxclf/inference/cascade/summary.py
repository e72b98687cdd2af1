"""What the stages of a cascade do: how many texts leave at each, what that costs and what it
saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import betaincinv

from jaxclf.decisions.calibration import calibrated
from jaxclf.decisions.comparison import paired
from jaxclf.decisions.members import Members
from jaxclf.decisions.metrics import aggregate
from jaxclf.decisions.thresholds import decide
from jaxclf.inference.cascade.cutoffs import (
    EarlyExit,
    Goal,
    OutOfFold,
    RuleMatches,
    StageOutputs,
    expected_loss,
    run_stages,
)

STAGES = "stages.json"
RESAMPLES = 2000


def describe(
    members: Mapping[str, Members],
    mixed: Mapping[str, StageOutputs],
    ruled: Mapping[str, RuleMatches],
    early: Sequence[EarlyExit],
    honest: OutOfFold,
    thresholds: Float[np.ndarray, " classes"],
    goal: Goal,
) -> dict[str, Any]:
    """Plain JSON values: the share of texts that left at each stage, what was lost against the last
    stage alone, as promised and as counted, and what the last stage's own labels miss.

    members: each stage's probabilities by split, `val` and `test`.
    """
    val = members["val"]
    probs, labels = val.probs, val.like.labels
    last = decide(probs[-1], thresholds)
    plain = decide(run_stages(early, probs).probs, thresholds)
    loss, scatter = expected_loss(labels, probs[-1], last, plain, goal.metric)
    fair = expected_loss(labels, probs[-1], honest.last, honest.decided, goal.metric)[0]
    figures: dict[str, Any] = {"promised": loss, "scatter": scatter, "promised_out_of_fold": fair}
    safe: dict[str, Any] = {}
    for split, part in members.items():
        alone, ours = decide(part.probs[-1], thresholds), decide(mixed[split].probs, thresholds)
        sides = ((mixed[split].probs, ours), (part.probs[-1].astype(np.float32), alone))
        both = paired(part.like.labels, *sides, resamples=RESAMPLES, swaps=1).metrics["macro_f1"]
        figures[split] = {
            "macro_f1": both.one,
            "alone": both.other,
            "difference": both.value,
            "interval": list(both.bca),
        }
        for name, demanded, *columns in zip(
            part.names, goal.last, part.like.labels.T, ours.T, alone.T, strict=True
        ):
            if demanded:
                safe.setdefault(name, {})[split] = _missed(*columns)
    return {
        "stages": [
            {
                "left": {split: float(np.mean(one.stage == index)) for split, one in mixed.items()},
                "macro_f1_alone": _alone(members["test"], index, early, thresholds),
            }
            for index in range(len(probs))
        ],
        "rules": {
            split: {
                "demanded": float(np.mean(one.demanded)),
                "given": float(np.mean(one.given.any(axis=1))),
            }
            for split, one in ruled.items()
        },
        "lost": figures,
        "last": safe,
    }


def _alone(
    part: Members, index: int, early: Sequence[EarlyExit], thresholds: Float[np.ndarray, " classes"]
) -> float:
    """Macro F1 of a stage that decides all texts."""
    probs = part.probs[index].astype(np.float32)
    if index < len(early):
        probs = calibrated(early[index].calibration, probs)
    return aggregate(part.like.labels, probs, decide(probs, thresholds))["macro_f1"]


def _missed(
    truth: Float[np.ndarray, " examples"],
    ours: Bool[np.ndarray, " examples"],
    alone: Bool[np.ndarray, " examples"],
) -> dict[str, Any]:
    """Of the texts to which the last stage gives a label, those that the cascade does not; at_most:
    the share that is missed, at most, with 95 % confidence (Clopper and Pearson 1934)."""
    given, missed = int(alone.sum()), int((alone & ~ours).sum())
    true = truth == 1
    return {
        "given": given,
        "missed": missed,
        "at_most": float(betaincinv(missed + 1, given - missed, 0.95)) if missed < given else 1.0,
        "recall": float(ours[true].mean()) if true.any() else None,
        "recall_alone": float(alone[true].mean()) if true.any() else None,
    }


def counted(
    stage: Int[np.ndarray, " examples"],
    tokens: Int[np.ndarray, " examples"],
    work: Float64[np.ndarray, " stages"],
    alone: float,
) -> float:
    """The multiplications of a cascade as a share of its last stage's alone.

    tokens: of each text. work: for a token, of the networks that are new at each stage; alone: of
        all the last stage's.
    """
    done = sum(each * tokens[stage >= index].sum() for index, each in enumerate(work))
    return float(done / (alone * tokens.sum()))


def format_stages(about: Mapping[str, Any]) -> str:
    """The stages as text."""
    rows, lost, cost = about["stages"], about["lost"], about["cost"]
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'left at':<{width}}  {'val':>6}  {'test':>6}  {'macro F1 alone':>14}"]
    for row in rows:
        left = "".join(f"  {100 * row['left'][split]:>5.1f}%" for split in ("val", "test"))
        lines.append(f"{row['name']:<{width}}{left}  {row['macro_f1_alone']:>14.3f}")
    goal, test = about["goal"], lost["test"]
    low, high = test["interval"]
    lines += [
        "",
        f"lost {goal['metric']}: promised {lost['promised']:.4f} (out of fold "
        f"{lost['promised_out_of_fold']:.4f}), with {goal['sure']:.0%} chance at most "
        f"{goal['loss']:.4f} is measured",
        f"test macro F1 {test['macro_f1']:.4f}, the last stage alone {test['alone']:.4f}: "
        f"{test['difference']:+.4f} (95 % interval {low:+.4f} to {high:+.4f})",
        f"cost {cost['counted']:.2f} of the last stage's, counted by {cost['by']}",
    ]
    if cost["texts_per_second"]:
        speed = cost["texts_per_second"]
        lines[-1] += (
            f"; {speed['cascade']:,.0f} texts/s, the last stage alone {speed['last']:,.0f}: "
            f"{cost['speed']:.2f} times"
        )
    for name, splits in about["last"].items():
        one = splits["test"]
        lines.append(
            f"{name}: on test the last stage gives it to {one['given']}, of which {one['missed']} "
            f"left without it (at most {one['at_most']:.1%} with 95 % confidence)"
        )
    if about["rules"]["test"]["demanded"] or about["rules"]["test"]["given"]:
        one = about["rules"]["test"]
        lines.append(
            f"rules sent {one['demanded']:.1%} of the test texts to the last stage and gave a "
            f"label to {one['given']:.1%}"
        )
    return "\n".join(lines)
