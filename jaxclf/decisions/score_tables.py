"""Tables of one split's scores, with intervals, as text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.provenance import reuse_warnings
from jaxclf.decisions.targets import describe_missed
from jaxclf.files.markdown import escape_markdown

CONSTANT = (
    "constant: the best that the same answer for every text gets (no label, every label, or the "
    "labels of most texts, with the labels' frequencies as probabilities)."
)
LABEL_COLUMNS = ("precision", "recall", "f1", "auc", "ap", "threshold")


class Table(NamedTuple):
    """Cells as text, and sentences that belong below the table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def to_markdown(table: Table) -> str:
    """A table without its title, notes below; the columns after the first are aligned right."""
    rows = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.rows]
    lines = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
    return "\n".join([*lines, *(f"\n{escape_markdown(note)}" for note in table.notes)])


def score_tables(scores: Mapping[str, Any], split: str) -> tuple[Table, Table]:
    """One split's part of report.json: a row per label, and a row per metric with its interval.

    Notes say over how many labels macro F1 is the mean, which rows were used for fitting, and which
    rule `threshold=auto` chose.
    """
    labels = [
        (name, f"{row['support']:.0f}", *(format_score(row[column]) for column in LABEL_COLUMNS))
        for name, row in scores["labels"].items()
    ]
    intervals = scores["intervals"]
    metrics = [
        (
            metric.title,
            format_score(scores[name]),
            format_interval(intervals[name]),
            format_score(scores["constant"][name]),
        )
        for name, metric in METRICS.items()
    ]
    metrics.append(("Macro F1 at threshold 0.5", format_score(scores["macro_f1_at_half"]), "", ""))
    if crossfit := scores.get("crossfit"):
        in_sample, optimism = crossfit["macro_f1"]["in_sample"], crossfit["macro_f1"]["optimism"]
        fitted = "Macro F1, thresholds fitted on these rows"
        metrics.append((fitted, format_score(in_sample), "", ""))
        metrics.append(("Optimism of that macro F1", format_score(optimism, signed=True), "", ""))
    notes = [describe_macro(scores, split), CONSTANT, *reuse_warnings(scores, split)]
    if choice := scores.get("threshold_choice"):
        notes.append(describe_choice(choice))
    if missed := scores.get("missed_target"):
        notes.append(describe_missed(missed))
    return (
        Table("", (split, "support", *LABEL_COLUMNS), labels),
        Table("", ("metric", "value", "95 % interval", "constant"), metrics, notes),
    )


def describe_choice(choice: Mapping[str, Any]) -> str:
    """The rule that `threshold=auto` chose, and how much worse or better the other rule is."""
    chosen = choice["rule"]
    (rejected,) = choice["macro_f1"].keys() - {chosen}
    return (
        f"thresholds: the rule {chosen}. On validation, each fold decided by thresholds of the "
        f"others, the macro F1 of {rejected} minus that of {chosen} is "
        f"{format_score(choice['difference'], signed=True)} (standard error "
        f"{format_score(choice['error'])})."
    )


def describe_macro(scores: Mapping[str, Any], split: str) -> str:
    """A sentence about the labels whose mean is macro F1, from one split's part of report.json."""
    count, total = scores["labels_in_macro"], len(scores["labels"])
    return f"Macro F1 on {split} is over {count} of {total} labels: those with a positive there."


def format_score(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """A number with a fixed count of decimals; n/a if it is undefined."""
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def format_interval(ends: Sequence[float | None] | None, signed: bool = False) -> str:
    """An interval as `0.412 to 0.486`; n/a where it is undefined."""
    if ends is None or ends[0] is None or math.isnan(ends[0]):
        return "n/a"
    low, high = (format_score(end, signed=signed) for end in ends)
    return f"{low} to {high}"
