"""Histograms of the probabilities of positives and negatives, a panel for each label."""

import numpy as np

from jaxclf.reports.figures import data, style
from jaxclf.reports.figures.data import Columns, RunData

ORDER, TITLE = 50, "Probabilities of positives and negatives"
ALT = (
    "A panel for each label with histograms of the probabilities on test, counts on a "
    "logarithmic scale."
)
CAPTION = (
    "Right of the dashed line, blue is a true positive and gray a false positive; blue "
    "left of it is a false negative. Each panel has its own horizontal scale."
)

BINS = 30


def make_columns(run: RunData) -> Columns:
    """Counts of positives and negatives with a probability from `low` to `high`, from a label's
    lowest to its highest. NaN for a label without a known value."""
    parts = []
    for label in data.iter_labels(run, run.test):
        if not len(label.truth):
            parts.append((label.name, np.nan, np.nan, 0, 0, label.threshold))
            continue
        edges = np.linspace(*data.score_range(label), BINS + 1)
        counts = (
            np.histogram(label.scores[mask], edges)[0] for mask in (label.truth, ~label.truth)
        )
        parts.append((label.name, edges[:-1], edges[1:], *counts, label.threshold))
    return data.stack_rows("label low high positives negatives threshold", parts)


def median_gap(rows: Columns) -> float:
    """From the median negative to the median positive; NaN if there are none of either."""
    centers = (rows["low"] + rows["high"]) / 2
    positive, negative = (
        centers[np.searchsorted(np.cumsum(counts), counts.sum() / 2)] if counts.any() else np.nan
        for counts in (rows["positives"], rows["negatives"])
    )
    return float(positive) - float(negative)


def describe(columns: Columns) -> str:
    quantity = "gap between the median positive and the median negative"
    return data.describe_extremes(columns, median_gap, quantity)


def draw(columns: Columns) -> style.Figure:
    legend = (
        style.Mark("positives", style.BLUE, "-"),
        style.Mark("negatives", style.PALE, marker="s"),
        style.Mark("chosen threshold", style.VERMILION, "--"),
    )
    figure, panels = style.make_panels(
        columns, "probability", "texts", legend, "not known", own_scale=True
    )
    largest = float(max(columns["positives"].max(), columns["negatives"].max()))
    for axes in figure.axes:
        style.set_count_axis(axes, largest)
    for axes, rows in panels:
        edges = np.append(rows["low"], rows["high"][-1])
        # An empty bar ends where the logarithmic axis begins.
        positives, negatives = (np.maximum(rows[key], 0.5) for key in ("positives", "negatives"))
        axes.stairs(negatives, edges, baseline=0.5, fill=True, color=style.PALE)
        axes.stairs(positives, edges, baseline=0.5, fill=True, color=style.BLUE, alpha=0.15)
        axes.stairs(positives, edges, baseline=0.5, color=style.BLUE, linewidth=1.3)
        style.set_x_range(axes, edges[0], edges[-1])
        axes.axvline(rows["threshold"][0], color=style.VERMILION, linestyle="--", linewidth=1.2)
    return figure
