"""Checks of single labels: what is missed, predicted too often, poorly separated, or too rare.

Each takes values of a report and returns sentences; none where nothing is wrong.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jaxclf.experiment.config import Spec

# Fewest positives of a label: in a split to judge its scores, in training to learn it.
MIN_SUPPORT, MIN_TRAINING_POSITIVES = 20, 10
LOW_RECALL, LOW_PRECISION, LOW_AUC, HIGH_AUC = 0.3, 0.2, 0.7, 0.8
MAX_PREDICTED = 3.0  # times as often as the label occurs
MAX_NAMED = 4  # labels in one sentence

LabelRows = Mapping[str, Mapping[str, Any]]  # `labels` of a split's part of report.json
MORE_DATA = "jaxclf curve estimates what more data gains"


def name_labels(labels: Sequence[str]) -> str:
    """Up to four labels; of more, the first three and their number: "a, b, c and 11 more"."""
    if len(labels) <= MAX_NAMED:
        return ", ".join(labels)
    return f"{', '.join(labels[: MAX_NAMED - 1])} and {len(labels) - MAX_NAMED + 1} more"


def check_missed(rows: LabelRows, threshold: Spec) -> list[str]:
    """Labels of which most positives are missed, the most missed first; apart those that the model
    ranks well, whose threshold is too high, and those that it does not."""
    low = [
        (name, row) for name, row in rows.items() if row["support"] and row["recall"] < LOW_RECALL
    ]
    low.sort(key=lambda item: -_missed(item[1]))
    ranked: dict[str, Mapping[str, Any]] = {}
    unranked: dict[str, Mapping[str, Any]] = {}
    for name, row in low:
        is_ranked = row["auc"] is not None and row["auc"] >= HIGH_AUC
        has_target = _has_target("recall_at", threshold, name)
        (ranked if is_ranked and not has_target else unranked)[name] = row
    sentences = []
    if ranked:
        sentences.append(
            f"Very low recall on test: {_name_missed(ranked)} Their probabilities rank the texts "
            f"well (AUC of {HIGH_AUC} or more), so their thresholds may be too high. "
            f"threshold=recall_at {_labels_option(ranked)} finds more and gives more false "
            "alarms; the other labels then get searched thresholds."
        )
    if unranked:
        sentences.append(
            f"Very low recall on test: {_name_missed(unranked)} More labeled data of these labels "
            f"in data.train should find more of them; {MORE_DATA}."
        )
    return sentences


def _name_missed(rows: LabelRows) -> str:
    missed = [
        f"{name} ({_missed(row)} of {row['support']:.0f} missed)" for name, row in rows.items()
    ]
    return f"{name_labels(missed)}.{_chance(rows)}"


def _chance(rows: LabelRows) -> str:
    """A sentence on what was counted on few positives."""
    few = sum(row["support"] < MIN_SUPPORT for row in rows.values())
    if not few:
        return ""
    who = "They have" if few == len(rows) else f"{few} of them have"
    return f" {who} fewer than {MIN_SUPPORT} positives there, so this may be chance."


def _labels_option(rows: LabelRows) -> str:
    """The option that names the first labels, as a shell takes it."""
    labels = json.dumps(list(rows)[:MAX_NAMED], ensure_ascii=False)
    return shlex.quote(f"threshold.labels={labels}")


def _missed(row: Mapping[str, Any]) -> int:
    return round(row["support"] * (1 - row["recall"]))


def _has_target(rule: str, threshold: Spec, name: str) -> bool:
    """Whether a label has the target of a threshold rule."""
    labels = threshold.options.get("labels") or (name,)
    return threshold.name == rule and name in labels


def check_overpredicted(rows: LabelRows, threshold: Spec) -> list[str]:
    """Labels that are predicted far more often than they occur, or mostly wrongly; that with most
    false alarms first."""
    # Without a hit, how often a label is predicted does not follow from the report.
    hits = [(name, row) for name, row in rows.items() if row["support"] and row["recall"]]
    by_target: dict[str, Mapping[str, Any]] = {}
    by_rule: dict[str, Mapping[str, Any]] = {}
    for name, row in sorted(hits, key=lambda item: -_false_alarms(item[1])):
        is_frequent = _predicted(row) > MAX_PREDICTED * row["support"]
        if is_frequent or row["precision"] < LOW_PRECISION:
            has_target = _has_target("recall_at", threshold, name)
            (by_target if has_target else by_rule)[name] = row
    sentences = []
    if by_target:
        sentences.append(
            f"Predicted too often on test: {_name_predicted(by_target)} This is the price of "
            "threshold=recall_at; a lower threshold.target gives fewer false alarms and misses "
            "more."
        )
    if by_rule:
        sentences.append(
            f"Predicted too often on test: {_name_predicted(by_rule)} "
            f"{_rule_advice(threshold, by_rule)}"
        )
    return sentences


def _name_predicted(rows: LabelRows) -> str:
    counts = [
        f"{name} ({_predicted(row):.0f} predicted, {row['support']:.0f} true, precision "
        f"{row['precision']:.2f})"
        for name, row in rows.items()
    ]
    return f"{name_labels(counts)}.{_chance(rows)}"


def _predicted(row: Mapping[str, Any]) -> float:
    """How often a label with a hit is predicted."""
    return row["recall"] * row["support"] / row["precision"]


def _false_alarms(row: Mapping[str, Any]) -> float:
    """Of a label with a hit."""
    return row["recall"] * row["support"] * (1 / row["precision"] - 1)


def _rule_advice(threshold: Spec, rows: LabelRows) -> str:
    if threshold.name == "per_label" and not threshold.options.get("prior_strength"):
        return (
            "A threshold that few positives chose may lie too low. threshold=auto guards against "
            "that: it gives fewer false alarms and may miss more."
        )
    advice = (
        "More labeled data of these labels in data.train and data.val should raise the precision; "
        f"{MORE_DATA}."
    )
    if threshold.name == "precision_at":
        return advice
    return (
        f"{advice} threshold=precision_at {_labels_option(rows)} gives fewer false alarms and "
        "misses more."
    )


def check_separation(rows: LabelRows) -> list[str]:
    """Labels that the model hardly tells from other texts."""
    weak = [
        f"{name} ({row['auc']:.2f})"
        for name, row in rows.items()
        if row["support"] >= MIN_SUPPORT and row["auc"] is not None and row["auc"] < LOW_AUC
    ]
    if not weak:
        return []
    return [
        f"Poorly separated from the other texts (AUC below {LOW_AUC}): {name_labels(weak)}. Check "
        "their annotations with jaxclf audit, and add labeled data of these labels to "
        "data.train; no threshold helps."
    ]


def check_training_positives(positives: Mapping[str, float]) -> list[str]:
    """Labels that are too rare in training to be learned. positives: of each label in training."""
    rare = [
        f"{name} ({count:.0f})"
        for name, count in sorted(positives.items(), key=lambda item: item[1])
        if count < MIN_TRAINING_POSITIVES
    ]
    if not rare:
        return []
    return [
        f"Too rare in training to be learned: {name_labels(rare)}, with fewer than "
        f"{MIN_TRAINING_POSITIVES} positives. Add labeled data of these labels to data.train, or "
        "merge them with a similar label."
    ]


def check_support(rows: LabelRows, split: str) -> list[str]:
    """Labels without a positive, or with too few to judge, in val or test."""
    support = {name: row["support"] for name, row in rows.items()}
    sentences = []
    if absent := [name for name, count in support.items() if count == 0]:
        sentences.append(
            f"No positive example in {split}: {name_labels(absent)}. Their scores are n/a and are "
            f"left out of every macro mean. Add labeled data of these labels to data.{split}."
        )
    rare = [(name, count) for name, count in support.items() if 0 < count < MIN_SUPPORT]
    if counts := [
        f"{name} ({count:.0f})" for name, count in sorted(rare, key=lambda item: item[1])
    ]:
        sentences.append(
            f"Too rare in {split} to judge: {name_labels(counts)}, with fewer than {MIN_SUPPORT} "
            f"positives. Their scores may be chance; more labeled data in data.{split} narrows the "
            "intervals."
        )
    return sentences
