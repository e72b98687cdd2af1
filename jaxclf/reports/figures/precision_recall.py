"""Precision against recall, a panel for each label."""

import numpy as np

from jaxclf.decisions.arrays import ratio
from jaxclf.decisions.ranking import cumulative_counts
from jaxclf.reports.figures import data, style
from jaxclf.reports.figures.data import Columns, RunData

ORDER, TITLE = 10, "Precision and recall"
ALT = "A panel for each label with the curve of precision against recall on test."
CAPTION = (
    "The closer a curve is to the upper right corner, the better. The threshold chooses "
    "one point of the curve. A curve near its dashed line is close to guessing."
)


def make_columns(run: RunData) -> Columns:
    """The corners of each label's curve, thresholds descending. The row with `chosen` 1 is the
    point at the label's own threshold. NaN for a label without positives."""
    parts = []
    for label in data.iter_labels(run, run.test):
        if not label.truth.any():
            parts.append((label.name, np.nan, np.nan, np.nan, 0))
            continue
        positives = label.truth.sum()
        thresholds, true_positives, predicted = cumulative_counts(label.truth, label.scores)
        changes = np.diff(true_positives) != 0
        keep = np.append(True, changes) | np.append(changes, True)
        recall, precision = true_positives[keep] / positives, (true_positives / predicted)[keep]
        parts.append((label.name, np.inf, 0.0, 1.0, 0))  # above every score
        parts.append((label.name, thresholds[keep], recall, precision, 0))
        true_positives, predicted = data.count_above(label, np.array([label.threshold]))
        chosen = true_positives / positives, ratio(true_positives, predicted)
        parts.append((label.name, label.threshold, *chosen, 1))
    return data.stack_rows("label threshold recall precision chosen", parts)


def average_precision(rows: Columns) -> float:
    """The area under the steps of one label's curve; NaN without positives."""
    curve, _ = data.split_chosen(rows)
    is_empty = np.isnan(curve["recall"][0])
    return float(np.nan if is_empty else np.sum(np.diff(curve["recall"]) * curve["precision"][1:]))


def describe(columns: Columns) -> str:
    return data.describe_extremes(columns, average_precision, "average precision")


def draw(columns: Columns) -> style.Figure:
    legend = (style.CURVE, style.Mark("share of positives", style.GRAY, "--"), style.CHOSEN)
    figure, panels = style.make_panels(columns, "recall", "precision", legend, "no positives")
    for axes, rows in panels:
        curve, chosen = data.split_chosen(rows)
        axes.plot(curve["recall"], curve["precision"], color=style.BLUE, drawstyle="steps-pre")
        axes.axhline(curve["precision"][-1], color=style.GRAY, linestyle="--", linewidth=1)
        style.mark_chosen(axes, chosen["recall"], chosen["precision"])
        style.show_value(axes, "AP", average_precision(rows))
    return figure
