"""The problems that the scores of a run reveal, in plain English."""

from collections.abc import Mapping, Sequence
from typing import Any

MIN_SUPPORT = 20  # positives in a split; with fewer, the scores of a label are mostly chance
LOW_RECALL = 0.3
LOW_AUC = 0.7


def diagnose(history: Sequence[Mapping[str, float | int]], report: Mapping[str, Any]) -> list[str]:
    """List the problems of a run as sentences, the most important first.

    history: one mapping per epoch with epoch, train_loss, log_loss (validation) and score.
    report: as report.json.
    """
    return [
        *_check_fit(history),
        *_check_support(report["val"], "val"),
        *_check_support(report["test"], "test"),
        *_check_scores(report["test"]),
    ]


def _check_fit(history: Sequence[Mapping[str, float | int]]) -> list[str]:
    if len(history) < 2:
        return []
    losses = [epoch["log_loss"] for epoch in history]
    scores = [epoch["score"] for epoch in history]
    lowest, best, last = losses.index(min(losses)), scores.index(max(scores)), len(history) - 1
    if lowest < last and losses[last] > 1.02 * losses[lowest]:
        return [
            f"Overfitting: the validation loss was lowest after epoch {lowest + 1} "
            f"({losses[lowest]:.4f}) and is {losses[last]:.4f} after epoch {last + 1}. The best "
            f"checkpoint (epoch {best + 1}) was kept. Try fewer epochs, more dropout or a lower "
            "learning rate."
        ]
    if best == last and (gain := scores[last] - scores[last - 1]) > 0.01:
        return [
            f"Underfitting: the validation score still rose by {gain:.3f} in the last epoch. Try "
            "more epochs or a higher learning rate."
        ]
    return []


def _check_support(scores: Mapping[str, Any], split: str) -> list[str]:
    support = {name: row["support"] for name, row in scores["labels"].items()}
    sentences = []
    if absent := [name for name, count in support.items() if count == 0]:
        sentences.append(
            f"No positive example in {split}: {', '.join(absent)}. Their scores are n/a and are "
            "left out of every macro mean."
        )
    if rare := [f"{name} ({n:.0f})" for name, n in support.items() if 0 < n < MIN_SUPPORT]:
        sentences.append(
            f"Too rare in {split} to judge: {', '.join(rare)}. Their scores may be chance."
        )
    return sentences


def _check_scores(scores: Mapping[str, Any]) -> list[str]:
    missed, weak, sentences = [], [], []
    for name, row in scores["labels"].items():
        if row["support"] > 0 and row["recall"] < LOW_RECALL:
            missed.append(f"{name} ({row['recall']:.2f})")
        if row["support"] >= MIN_SUPPORT and row["auc"] is not None and row["auc"] < LOW_AUC:
            weak.append(name)
    if missed:
        sentences.append(
            f"Very low recall on test: {', '.join(missed)}. Label more examples of them."
        )
    if weak:
        sentences.append(
            f"Poorly separated from the other texts (AUC below {LOW_AUC}): {', '.join(weak)}."
        )
    return sentences
