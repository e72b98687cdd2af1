"""F1, precision and recall against the threshold, a panel for each label."""

import numpy as np

from jaxclf.decisions.arrays import ratio
from jaxclf.reports.figures import data, style
from jaxclf.reports.figures.data import Columns, RunData

ORDER, TITLE = 40, "Thresholds"
ALT = "A panel for each label with F1, precision and recall on val against the threshold."
CAPTION = (
    "If F1 is flat around the chosen point, the exact threshold hardly matters; a narrow "
    "peak may be chance. Each panel has its own horizontal scale."
)

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
    for label in data.iter_labels(run, run.val):
        if not label.truth.any():
            parts.append((label.name, label.threshold, np.nan, np.nan, np.nan, 0))
            continue
        positives = label.truth.sum()
        grid = np.linspace(*data.score_range(label), POINTS)
        for thresholds, chosen in ((grid, 0), (np.array([label.threshold]), 1)):
            true_positives, predicted = data.count_above(label, thresholds)
            recall, f1 = true_positives / positives, 2 * true_positives / (predicted + positives)
            precision = ratio(true_positives, predicted)
            parts.append((label.name, thresholds, precision, recall, f1, chosen))
    return data.stack_rows("label threshold precision recall f1 chosen", parts)


def chosen_threshold(rows: Columns) -> float:
    """The label's own threshold; NaN without positives."""
    return float(next(iter(data.split_chosen(rows)[1]["threshold"]), np.nan))


def describe(columns: Columns) -> str:
    sentence = data.describe_extremes(columns, chosen_threshold, "chosen threshold")
    sensitive = [name for name, rows in data.rows_by_label(columns).items() if is_sensitive(rows)]
    if sensitive:
        sentence += (
            " A threshold 10 % lower or higher would cost more than 0.1 of F1 on "
            f"{data.join_names(sensitive)}."
        )
    return sentence


def is_sensitive(rows: Columns) -> bool:
    """Whether F1 falls by more than 0.1 within 10 % of the chosen threshold."""
    threshold, f1 = chosen_threshold(rows), data.split_chosen(rows)[1]["f1"]
    is_near = np.abs(rows["threshold"] - threshold) <= threshold / 10
    return bool((rows["f1"][is_near] < f1 - 0.1).any())


def draw(columns: Columns) -> style.Figure:
    figure, panels = style.make_panels(
        columns, "threshold", "score on val", (*LINES, style.CHOSEN), "no positives", own_scale=True
    )
    for axes, rows in panels:
        curve, chosen = data.split_chosen(rows)
        thresholds = curve["threshold"]
        for name, color, dash, _ in LINES:
            axes.plot(thresholds, curve[name.lower()], dash, color=color)
        style.set_x_range(axes, thresholds[0], thresholds[-1])
        axes.axvline(chosen_threshold(rows), color=style.VERMILION, linewidth=0.8)
        style.mark_chosen(axes, chosen["threshold"], chosen["f1"])
        style.show_value(axes, "F1", chosen["f1"].item())
    return figure
