"""Members of an ensemble: their probabilities, weights, scores and gains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxclf.decisions.arrays import Labels, Probs
from jaxclf.decisions.blending import Blender, diversity, leave_one_out
from jaxclf.decisions.compare_runs import read_system
from jaxclf.decisions.evaluation import Rule, decide_crossfit
from jaxclf.decisions.metrics import macro_f1
from jaxclf.decisions.predictions import load_predictions, merge_predictions
from jaxclf.types import Predictions

MEMBERS = "members.json"

# Name -> run folders: one, or one for each fold.
Systems = Mapping[str, Sequence[Path]]


class Members(NamedTuple):
    """The probabilities of several systems for the same examples.

    probs: [systems, examples, classes], each the mean of the system's runs.
    reference: ids and labels of the examples; its probabilities are one run's.
    """

    probs: Float64[np.ndarray, "systems examples classes"]
    reference: Predictions
    names: tuple[str, ...]


def read_members(systems: Systems, split: str) -> Members:
    """Read the probabilities of a split that all runs have scored.

    Raises DataError for runs with different examples or labels.
    """
    members = [read_system(name, runs, split) for name, runs in systems.items()]
    all_runs = [run for runs in systems.values() for run in runs]
    first = read_system("the ensemble", all_runs, split)  # checks that all runs can be paired
    means = [np.mean([probs for probs, _ in member.runs], axis=0) for member in members]
    reference = Predictions(first.ids, first.runs[0][0], first.labels, split)
    return Members(np.array(means, np.float64), reference, first.names)


def read_held_out(systems: Systems, split: str) -> Members:
    """Read the probabilities of the rows that the runs of each system held out, joined."""
    members = []
    for runs in systems.values():
        parts = [load_predictions(run / "predictions" / f"{split}.npz") for run in runs]
        ids, probs, labels, _ = merge_predictions(parts)
        order = np.argsort(ids)
        members.append(Predictions(ids[order], probs[order], labels[order], split))
    names = read_system("the ensemble", next(iter(systems.values())), "val").names
    probs = np.array([member.probs for member in members], np.float64)
    return Members(probs, members[0], names)


def describe(
    systems: Systems,
    source: Members,
    weights: Float64[np.ndarray, "systems classes"],
    blender: Blender,
    rule: Rule,
) -> dict[str, Any]:
    """The content of members.json: each system's weight, macro F1 and gain, and how alike they are.

    source: the split that fitted the weights.
    """
    labels = source.reference.labels

    def score(labels: Labels, probs: Probs) -> float:
        return macro_f1(labels, probs, decide_crossfit(labels, probs, rule))

    members = [probs.astype(np.float32) for probs in source.probs]
    decided = np.array([decide_crossfit(labels, probs, rule) for probs in members])
    gains = leave_one_out(labels, source.probs, blender, score)
    similarity = diversity(labels, source.probs, decided)
    return {
        "split": source.reference.split,
        "members": {
            name: {
                "runs": [str(run) for run in runs],
                "weight": float(weights[index].mean()),
                "macro_f1": macro_f1(labels, members[index], decided[index]),
                "gain": float(gains[index]),
            }
            for index, (name, runs) in enumerate(systems.items())
        },
        "disagreement": similarity.disagreement.tolist(),
        "correlation": similarity.correlation.tolist(),
    }
