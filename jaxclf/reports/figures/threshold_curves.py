"""F1, precision and recall against the threshold, a panel for each label."""

import matplotlib.figure as mpl
import numpy as np

from jaxclf.decisions.arrays import ratio
from jaxclf.reports.figures import style
from jaxclf.reports.figures.columns import (
    Columns,
    describe_extremes,
    join_names,
    rows_by_label,
    stack_rows,
)
from jaxclf.reports.figures.figure import Figure, RunData
from jaxclf.reports.figures.label_scores import count_above, iter_labels, score_range

POINTS = 201  # thresholds along a curve
LINES = (
    style.Mark("F1", style.BLUE, "-"),
    style.Mark("precision", style.PURPLE, "--"),
    style.Mark("recall", style.GREEN, ":"),
)


def make_columns(run: RunData) -> Columns:
    """Scores at evenly spaced thresholds from a label's lowest to its highest probability, and at
    its own threshold (`chosen` 1). NaN for a label without positives."""
    parts = []
    for label in iter_labels(run, run.val):
        if not label.truth.any():
            parts.append((label.name, label.threshold, np.nan, np.nan, np.nan, 0))
            continue
        positives = label.truth.sum()
        grid = np.linspace(*score_range(label), POINTS)
        for thresholds, chosen in ((grid, 0), (np.array([label.threshold]), 1)):
            true_positives, predicted = count_above(label, thresholds)
            recall, f1 = true_positives / positives, 2 * true_positives / (predicted + positives)
            precision = ratio(true_positives, predicted)
            parts.append((label.name, thresholds, precision, recall, f1, chosen))
    return stack_rows("label threshold precision recall f1 chosen", parts)


def describe(columns: Columns) -> str:
    chosen = columns["chosen"] == 1
    names, thresholds = columns["label"][chosen].tolist(), columns["threshold"][chosen].tolist()
    sentence = describe_extremes(dict(zip(names, thresholds, strict=True)), "chosen threshold")
    sensitive = [name for name, rows in rows_by_label(columns).items() if is_sensitive(rows)]
    if sensitive:
        sentence += (
            " A threshold 10 % lower or higher would cost more than 0.1 of F1 on "
            f"{join_names(sensitive)}."
        )
    return sentence


def is_sensitive(rows: Columns) -> bool:
    """Whether F1 falls by more than 0.1 within 10 % of the chosen threshold."""
    if np.isnan(rows["f1"]).any() or not (rows["chosen"] == 1).any():
        return False
    chosen = rows["chosen"] == 1
    threshold, f1 = rows["threshold"][chosen].item(), rows["f1"][chosen].item()
    is_near = np.abs(rows["threshold"] - threshold) <= threshold / 10
    return bool(rows["f1"][is_near].min() < f1 - 0.1)


def draw(columns: Columns) -> mpl.Figure:
    figure, panels = style.make_panels(
        columns, "threshold", "score on val", (*LINES, style.CHOSEN), own_scale=True
    )
    for axes, rows in panels:
        curve, chosen = rows["chosen"] == 0, rows["chosen"] == 1
        if np.isnan(rows["recall"][0]):
            style.mark_empty(axes, "no positives")
            continue
        thresholds = rows["threshold"][curve]
        for mark in LINES:
            axes.plot(thresholds, rows[mark.name.lower()][curve], mark.dash, color=mark.color)
        style.set_x_range(axes, thresholds[0], thresholds[-1])
        axes.axvline(rows["threshold"][chosen].item(), color=style.VERMILION, linewidth=0.8)
        style.mark_chosen(axes, rows["threshold"][chosen], rows["f1"][chosen])
        style.show_value(axes, "F1", rows["f1"][chosen].item())
    return figure


FIGURE = Figure(
    name="threshold_curves",
    order=40,
    title="Thresholds",
    data=make_columns,
    draw=draw,
    alt="A panel for each label with F1, precision and recall on val against the threshold.",
    finding=describe,
    caption="If F1 is flat around the chosen point, the exact threshold hardly matters; a narrow "
    "peak may be chance. Each panel has its own horizontal scale.",
)
