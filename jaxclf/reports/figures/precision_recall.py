"""Precision against recall, a panel for each label."""

import matplotlib.figure as mpl
import numpy as np

from jaxclf.decisions.arrays import ratio
from jaxclf.decisions.ranking import cumulative_counts
from jaxclf.reports.figures import style
from jaxclf.reports.figures.columns import Columns, describe_extremes, rows_by_label, stack_rows
from jaxclf.reports.figures.figure import Figure, RunData
from jaxclf.reports.figures.label_scores import count_above, iter_labels


def make_columns(run: RunData) -> Columns:
    """The corners of each label's curve, thresholds descending. The row with `chosen` 1 is the
    point at the label's own threshold. NaN for a label without positives."""
    parts = []
    for label in iter_labels(run, run.test):
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
        true_positives, predicted = count_above(label, np.array([label.threshold]))
        chosen = true_positives / positives, ratio(true_positives, predicted)
        parts.append((label.name, label.threshold, *chosen, 1))
    return stack_rows("label threshold recall precision chosen", parts)


def average_precision(rows: Columns) -> float:
    """The area under the steps of one label's curve; NaN without positives."""
    recall, precision = (rows[name][rows["chosen"] == 0] for name in ("recall", "precision"))
    return float(np.nan if np.isnan(recall[0]) else np.sum(np.diff(recall) * precision[1:]))


def describe(columns: Columns) -> str:
    areas = {name: average_precision(rows) for name, rows in rows_by_label(columns).items()}
    known = {name: area for name, area in areas.items() if not np.isnan(area)}
    return describe_extremes(known, "average precision")


def draw(columns: Columns) -> mpl.Figure:
    legend = (style.CURVE, style.Mark("share of positives", style.GRAY, "--"), style.CHOSEN)
    figure, panels = style.make_panels(columns, "recall", "precision", legend)
    for axes, rows in panels:
        curve, chosen = rows["chosen"] == 0, rows["chosen"] == 1
        recall, precision = rows["recall"][curve], rows["precision"][curve]
        if np.isnan(recall[0]):
            style.mark_empty(axes, "no positives")
            continue
        axes.plot(recall, precision, color=style.BLUE, drawstyle="steps-pre")
        axes.axhline(precision[-1], color=style.GRAY, linestyle="--", linewidth=1)
        style.mark_chosen(axes, rows["recall"][chosen], rows["precision"][chosen])
        style.show_value(axes, "AP", average_precision(rows))
    return figure


FIGURE = Figure(
    name="precision_recall",
    order=10,
    title="Precision and recall",
    data=make_columns,
    draw=draw,
    alt="A panel for each label with the curve of precision against recall on test.",
    finding=describe,
    caption="The closer a curve is to the upper right corner, the better. The threshold chooses "
    "one point of the curve. A curve near its dashed line is close to guessing.",
)
