"""What a run's figures say, in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

# Marks, not laws: a label with fewer positives than this in a split has an F1 that says little.
RARE = 20
LOW_RECALL = 0.3
WEAK_AUC = 0.7


def diagnose(history: Sequence[Mapping[str, float | int]], report: Mapping[str, Any]) -> list[str]:
    """Sentences, most important first.

    history: one mapping per epoch with epoch, train_loss, log_loss (validation) and score.
    report: as report.json.
    """
    return [*_fit(history), *_labels(report)]


def _fit(history: Sequence[Mapping[str, float | int]]) -> list[str]:
    if len(history) < 2:
        return []
    losses = [epoch["log_loss"] for epoch in history]
    scores = [epoch["score"] for epoch in history]
    lowest, best = losses.index(min(losses)), scores.index(max(scores))
    last = len(history) - 1
    said = []
    if lowest < last and losses[last] > 1.02 * losses[lowest]:
        said.append(
            f"Overfitting: the validation loss was lowest after epoch {lowest + 1} "
            f"({losses[lowest]:.4f}) and is {losses[last]:.4f} after epoch {last + 1}; the best "
            f"checkpoint (epoch {best + 1}) was taken. Fewer epochs, more dropout or a lower rate "
            "may help."
        )
    elif best == last and (gain := scores[last] - scores[last - 1]) > 0.01:
        said.append(
            f"Underfitting: the validation score still rose by {gain:.3f} in the last epoch; more "
            "epochs or a higher rate may help."
        )
    return said


def _labels(report: Mapping[str, Any]) -> list[str]:
    said = []
    for split in ("val", "test"):
        labels = report[split]["labels"]
        none = [name for name, row in labels.items() if row["support"] == 0]
        few = [name for name, row in labels.items() if 0 < row["support"] < RARE]
        if none:
            said.append(
                f"{split} has no example of {', '.join(none)}: n/a, left out of every macro mean."
            )
        if few:
            counts = ", ".join(f"{name} ({labels[name]['support']:.0f})" for name in few)
            said.append(f"Too rare in {split} to judge: {counts}; their figures may be chance.")
    test = report["test"]["labels"]
    missed = [
        f"{name} ({row['recall']:.2f})"
        for name, row in test.items()
        if row["support"] > 0 and row["recall"] < LOW_RECALL
    ]
    if missed:
        said.append(
            f"Very low recall on test: {', '.join(missed)}. More examples of them, the balanced "
            "sampler or pos_weight may help."
        )
    weak = [
        name
        for name, row in test.items()
        if row["support"] >= RARE and row["auc"] is not None and row["auc"] < WEAK_AUC
    ]
    if weak:
        said.append(f"Hardly told apart from the rest (AUC below {WEAK_AUC}): {', '.join(weak)}.")
    return said
