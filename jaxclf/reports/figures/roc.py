"""True against false positive rate, a panel for each label."""

import numpy as np

from jaxclf.decisions.ranking import cumulative_counts
from jaxclf.reports.figures import data, style
from jaxclf.reports.figures.data import Columns, RunData

ORDER, TITLE = 20, "ROC"
ALT = "A panel for each label with the curve of true against false positive rate on test."
CAPTION = (
    "The closer a curve is to the upper left corner, the better positives are ranked above "
    "negatives. For a rare label this curve is more favorable than precision and recall."
)


def make_columns(run: RunData) -> Columns:
    """The corners of each label's curve, thresholds descending. The row with `chosen` 1 is the
    point at the label's own threshold. NaN for a label without positives or without negatives."""
    parts = []
    for label in data.iter_labels(run, run.test):
        positives, negatives = label.truth.sum(), (~label.truth).sum()
        if not positives or not negatives:
            parts.append((label.name, np.nan, np.nan, np.nan, 0))
            continue
        thresholds, true_positives, predicted = cumulative_counts(label.truth, label.scores)
        false_positives = predicted - true_positives
        changes = np.diff([true_positives, false_positives])
        corners = (changes[:, 1:] != changes[:, :-1]).any(axis=0)
        keep = np.concatenate([[True], corners, [True]])[: len(thresholds)]
        rates = false_positives[keep] / negatives, true_positives[keep] / positives
        parts.append((label.name, np.inf, 0.0, 0.0, 0))  # above every score
        parts.append((label.name, thresholds[keep], *rates, 0))
        true_positives, predicted = data.count_above(label, np.array([label.threshold]))
        rates = (predicted - true_positives) / negatives, true_positives / positives
        parts.append((label.name, label.threshold, *rates, 1))
    return data.stack_rows("label threshold false_positive_rate true_positive_rate chosen", parts)


def area_under_curve(rows: Columns) -> float:
    """The area under one label's curve; NaN if it has one class only."""
    x, y = rows["false_positive_rate"], rows["true_positive_rate"]
    curve = rows["chosen"] == 0
    return float(np.trapezoid(y[curve], x[curve]) if curve.sum() > 1 else np.nan)


def describe(columns: Columns) -> str:
    return data.describe_extremes(columns, area_under_curve, "area under the curve")


def draw(columns: Columns) -> style.Figure:
    legend = (style.CURVE, style.Mark("guessing", style.GRAY, "--"), style.CHOSEN)
    figure, panels = style.make_panels(
        columns, "false positive rate", "true positive rate", legend, "one class only"
    )
    for axes, rows in panels:
        curve, chosen = data.split_chosen(rows)
        x, y = "false_positive_rate", "true_positive_rate"
        axes.plot(curve[x], curve[y], color=style.BLUE)
        axes.plot([0, 1], [0, 1], color=style.GRAY, linestyle="--", linewidth=1)
        style.mark_chosen(axes, chosen[x], chosen[y])
        style.show_value(axes, "AUC", area_under_curve(rows))
    return figure
