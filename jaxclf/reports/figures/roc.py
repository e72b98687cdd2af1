"""True against false positive rate, a panel for each label."""

import matplotlib.figure as mpl
import numpy as np

from jaxclf.decisions.ranking import cumulative_counts
from jaxclf.reports.figures import style
from jaxclf.reports.figures.columns import Columns, describe_extremes, rows_by_label, stack_rows
from jaxclf.reports.figures.figure import Figure, RunData
from jaxclf.reports.figures.label_scores import count_above, iter_labels


def make_columns(run: RunData) -> Columns:
    """The corners of each label's curve, thresholds descending. The row with `chosen` 1 is the
    point at the label's own threshold. NaN for a label without positives or without negatives."""
    parts = []
    for label in iter_labels(run, run.test):
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
        true_positives, predicted = count_above(label, np.array([label.threshold]))
        rates = (predicted - true_positives) / negatives, true_positives / positives
        parts.append((label.name, label.threshold, *rates, 1))
    return stack_rows("label threshold false_positive_rate true_positive_rate chosen", parts)


def area_under_curve(rows: Columns) -> float:
    """The area under one label's curve; NaN if it has one class only."""
    curve = rows["chosen"] == 0
    return float(
        np.trapezoid(rows["true_positive_rate"][curve], rows["false_positive_rate"][curve])
        if curve.sum() > 1
        else np.nan
    )


def describe(columns: Columns) -> str:
    areas = {name: area_under_curve(rows) for name, rows in rows_by_label(columns).items()}
    known = {name: area for name, area in areas.items() if not np.isnan(area)}
    return describe_extremes(known, "area under the curve")


def draw(columns: Columns) -> mpl.Figure:
    legend = (style.CURVE, style.Mark("guessing", style.GRAY, "--"), style.CHOSEN)
    figure, panels = style.make_panels(columns, "false positive rate", "true positive rate", legend)
    for axes, rows in panels:
        curve, chosen = rows["chosen"] == 0, rows["chosen"] == 1
        x, y = rows["false_positive_rate"], rows["true_positive_rate"]
        if np.isnan(x[0]):
            style.mark_empty(axes, "one class only")
            continue
        axes.plot(x[curve], y[curve], color=style.BLUE)
        axes.plot([0, 1], [0, 1], color=style.GRAY, linestyle="--", linewidth=1)
        style.mark_chosen(axes, x[chosen], y[chosen])
        style.show_value(axes, "AUC", area_under_curve(rows))
    return figure


FIGURE = Figure(
    name="roc",
    order=20,
    title="ROC",
    data=make_columns,
    draw=draw,
    alt="A panel for each label with the curve of true against false positive rate on test.",
    finding=describe,
    caption="The closer a curve is to the upper left corner, the better positives are ranked above "
    "negatives. For a rare label this curve is more favorable than precision and recall.",
)
