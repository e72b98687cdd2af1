"""Members of an ensemble: their probabilities side by side, and what each is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxclf.decisions.blending import Blender, diversity, leave_one_out
from jaxclf.decisions.compare_runs import read_system
from jaxclf.decisions.crossfit import Rule, decide_crossfit
from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.predictions import load_predictions, merge_predictions
from jaxclf.types import Predictions

MEMBERS = "members.json"

# Each system's name and its runs: one, or one for each fold.
Systems = Mapping[str, Sequence[Path]]


class Members(NamedTuple):
    """Several systems' probabilities of the same examples.

    probs: float64 [systems, examples, classes], a system's being the mean of its runs'.
    """

    probs: Float64[np.ndarray, "systems examples classes"]
    like: Predictions  # whose ids and labels they all have
    names: tuple[str, ...]


def read_members(systems: Systems, split: str) -> Members:
    """Probabilities of a split that all runs have scored. Raises DataError where runs are of other
    examples or labels."""
    found = [read_system(name, runs, split) for name, runs in systems.items()]
    every = [run for runs in systems.values() for run in runs]
    first = read_system("the ensemble", every, split)  # all of one kind
    probs = np.array([np.mean([p for p, _ in one.runs], axis=0) for one in found], np.float64)
    return Members(
        probs, Predictions(first.ids, first.runs[0][0], first.labels, split), first.names
    )


def read_held_out(systems: Systems, split: str) -> Members:
    """Each system's probabilities of the rows that its runs held out, all of them together."""
    merged = []
    for runs in systems.values():
        parts = [load_predictions(run / "predictions" / f"{split}.npz") for run in runs]
        whole = merge_predictions(parts)
        order = np.argsort(whole.ids)
        merged.append(Predictions(whole.ids[order], whole.probs[order], whole.labels[order], split))
    names = read_system("the ensemble", next(iter(systems.values())), "val").names
    return Members(np.array([one.probs for one in merged], np.float64), merged[0], names)


def describe(
    systems: Systems,
    source: Members,
    weights: Float64[np.ndarray, "systems classes"],
    blender: Blender,
    rule: Rule,
) -> dict[str, Any]:
    """What each system weighs, scores and gains, and how alike they are, on the split that fitted
    the weights."""
    labels = source.like.labels

    def score(labels: np.ndarray, probs: np.ndarray) -> float:
        return compute_metrics(labels, probs, decide_crossfit(labels, probs, rule))["macro_f1"]

    each = [one.astype(np.float32) for one in source.probs]
    decided = np.array([decide_crossfit(labels, one, rule) for one in each])
    gains = leave_one_out(labels, source.probs, blender, score)
    alike = diversity(labels, source.probs, decided)
    return {
        "split": source.like.split,
        "members": {
            name: {
                "runs": [str(run) for run in runs],
                "weight": float(weights[index].mean()),
                "macro_f1": compute_metrics(labels, each[index], decided[index])["macro_f1"],
                "gain": float(gains[index]),
            }
            for index, (name, runs) in enumerate(systems.items())
        },
        "disagreement": alike.disagreement.tolist(),
        "correlation": alike.correlation.tolist(),
    }
