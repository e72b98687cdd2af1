"""The problems that the scores of a run reveal, and the keys that may mend them, as sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxclf.decisions.selection import rank_epochs
from jaxclf.experiment.config import Experiment, Spec, Train
from jaxclf.reports.label_checks import (
    MIN_SUPPORT,
    check_missed,
    check_overpredicted,
    check_separation,
    check_support,
    check_training_positives,
    name_labels,
)

MAX_ECE = 0.05
MIN_GAIN = 0.005  # of macro F1 at a fixed threshold of 0.5
LOSS_RISE, SCORE_RISE = 0.02, 0.02  # relative changes between epochs that are no chance
SEARCHED = ("per_label", "recall_at", "precision_at")  # a threshold rests on one label's positives
TARGETED = ("recall_at", "precision_at")
# They count decisions and so jump with single texts.
COUNTED = (
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "subset_accuracy",
    "label_accuracy",
)

History = Sequence[Mapping[str, float | int]]


def diagnose(
    history: History,
    report: Mapping[str, Any],
    experiment: Experiment,
    training_positives: Mapping[str, float],
) -> list[str]:
    """List the problems of a run as sentences, the most important first: what is missed, then what
    is predicted wrongly, then what makes scores and probabilities unreliable.

    history: one mapping per epoch with epoch, train_loss, log_loss (validation) and score; empty
        for an ensemble.
    report: as report.json.
    experiment: what is on already; it is not advised.
    training_positives: of each label; empty where it is not known.
    """
    val, test = report["val"], report["test"]
    return [
        *check_missed(test["labels"], experiment.threshold),
        *check_training_positives(training_positives),
        *check_overpredicted(test["labels"], experiment.threshold),
        *check_separation(test["labels"]),
        *check_half(val, test, experiment.threshold),
        *check_calibration(test["ece"], experiment.calibration),
        *check_validation(val, experiment.threshold, experiment.train.metric, len(history)),
        *check_fit(history, experiment.train),
        *check_support(val["labels"], "val"),
        *check_support(test["labels"], "test"),
    ]


def check_half(val: Mapping[str, Any], test: Mapping[str, Any], threshold: Spec) -> list[str]:
    """Thresholds whose macro F1 is below that of a fixed 0.5 on test. Advises it only if validation
    agrees, because a choice on test would make the scores on it too high."""
    fitted, half = test["macro_f1"], test["macro_f1_at_half"]
    loses = fitted is not None and half - fitted > MIN_GAIN  # an undefined score is None or NaN
    if threshold.name in ("fixed", *TARGETED) or not loses:
        return []
    sentence = (
        f"The thresholds lose to a fixed 0.5 on test: macro F1 {fitted:.3f} against {half:.3f}."
    )
    if val["macro_f1"] is not None and val["macro_f1_at_half"] > val["macro_f1"]:
        gain = val["macro_f1_at_half"] - val["macro_f1"]
        return [
            f"{sentence} threshold=fixed is better on val too, by {gain:.3f}; it should gain "
            f"between {min(gain, half - fitted):.3f} and {max(gain, half - fitted):.3f}."
        ]
    if threshold.name != "auto":
        return [f"{sentence} threshold=auto may gain a part of the difference: it compares on val."]
    return [f"{sentence} More labeled data in data.val makes the thresholds more certain."]


def check_calibration(ece: float | None, calibration: Spec) -> list[str]:
    """An ECE on test that is high, with or without calibration."""
    is_high = ece is not None and ece > MAX_ECE
    if not is_high:
        return []
    sentence = f"The probabilities are not frequencies: ECE on test is {ece:.3f}."
    if calibration.name == "none":
        return [
            f"{sentence} calibration=platt should bring it near 0. It keeps each label's ranking "
            "of the texts."
        ]
    return [
        f"{sentence} The {calibration.name} calibration, fitted on val, does not hold on test. "
        "Check that data.val has texts of the same kind, or add labeled data to it."
    ]


def check_validation(
    val: Mapping[str, Any], threshold: Spec, metric: str, epochs: int
) -> list[str]:
    """Labels with too few positives in validation for the thresholds and the epoch that it chooses.

    epochs: how many were compared.
    """
    support = {name: row["support"] for name, row in val["labels"].items() if row["support"] > 0}
    few = sorted((name for name in support if support[name] < MIN_SUPPORT), key=support.__getitem__)
    searches = threshold.name in SEARCHED and not threshold.options.get("prior_strength")
    compares = metric in COUNTED and epochs > 1
    if not few or not (searches or compares):
        return []
    choices = [f"{len(support)} thresholds"] * searches + [f"1 of {epochs} epochs"] * compares
    counts = name_labels([f"{name} ({support[name]:.0f})" for name in few])
    sentence = (
        f"Validation is small for what it chooses ({' and '.join(choices)}): {counts}, with fewer "
        f"than {MIN_SUPPORT} positives."
    )
    optimism = val["crossfit"]["macro_f1"]["optimism"]
    if searches and optimism is not None and optimism > 0:
        sentence += (
            f" Thresholds fitted on it look {optimism:.3f} better in macro F1 than they are."
        )
    if threshold.name == "per_label" and searches:
        sentence += " threshold=auto takes searched thresholds only where they are certain."
    if compares:
        sentence += " train.metric=calibrated_log_loss chooses the epoch with less chance."
    return [f"{sentence} More labeled data in data.val helps too."]


def check_fit(history: History, train: Train) -> list[str]:
    """Overfitting, where an earlier epoch has the better score and the lower loss; underfitting,
    where the last one still gains."""
    if len(history) < 2:
        return []
    losses = [epoch["log_loss"] for epoch in history]
    scores = [epoch["score"] for epoch in history]
    lowest, best, last = losses.index(min(losses)), rank_epochs(scores)[0], len(history) - 1
    if best < last and lowest < last and losses[last] > (1 + LOSS_RISE) * losses[lowest]:
        fewer = f" train.epochs={best + 1} takes less time for a similar score."
        return [
            f"Overfitting: the validation loss was lowest after epoch {lowest + 1} "
            f"({losses[lowest]:.4f}) and is {losses[last]:.4f} after epoch {last + 1}; "
            f"{train.metric} was best after epoch {best + 1}.{'' if train.patience else fewer} "
            "A higher encoder.dropout or a lower optim.lr may gain."
        ]
    gain = scores[last] - scores[last - 1]
    if best == last and gain > SCORE_RISE * abs(scores[last]):
        return [
            f"Underfitting: {train.metric} on validation still improved by {gain:.3f} in the last "
            f"epoch. train.epochs={2 * len(history)} may gain more and takes twice as long; a "
            "higher optim.lr may gain more in the same time."
        ]
    return []
