"""Histograms of the probabilities of positives and negatives, a panel for each label."""

import matplotlib.figure as mpl
import numpy as np

from jaxclf.reports.figures import style
from jaxclf.reports.figures.columns import Columns, describe_extremes, rows_by_label, stack_rows
from jaxclf.reports.figures.figure import Figure, RunData
from jaxclf.reports.figures.label_scores import iter_labels, score_range

BINS = 30


def make_columns(run: RunData) -> Columns:
    """Counts of positives and negatives with a probability from `low` to `high`, from a label's
    lowest to its highest. NaN for a label without a known value."""
    parts = []
    for label in iter_labels(run, run.test):
        if not len(label.truth):
            parts.append((label.name, np.nan, np.nan, 0, 0, label.threshold))
            continue
        edges = np.linspace(*score_range(label), BINS + 1)
        counts = (
            np.histogram(label.scores[mask], edges)[0] for mask in (label.truth, ~label.truth)
        )
        parts.append((label.name, edges[:-1], edges[1:], *counts, label.threshold))
    return stack_rows("label low high positives negatives threshold", parts)


def describe(columns: Columns) -> str:
    gaps = {}
    for name, rows in rows_by_label(columns).items():
        if rows["positives"].any() and rows["negatives"].any():
            centers = (rows["low"] + rows["high"]) / 2
            medians = (
                float(centers[np.searchsorted(np.cumsum(counts), counts.sum() / 2)])
                for counts in (rows["positives"], rows["negatives"])
            )
            gaps[name] = next(medians) - next(medians)
    return describe_extremes(gaps, "gap between the median positive and the median negative")


def draw(columns: Columns) -> mpl.Figure:
    legend = (
        style.Mark("positives", style.BLUE, "-"),
        style.Mark("negatives", style.PALE, marker="s"),
        style.Mark("chosen threshold", style.VERMILION, "--"),
    )
    figure, panels = style.make_panels(columns, "probability", "texts", legend, own_scale=True)
    largest = float(max(columns["positives"].max(), columns["negatives"].max()))
    for axes, rows in panels:
        style.set_count_axis(axes, largest)
        if np.isnan(rows["low"][0]):
            style.mark_empty(axes, "not known")
            continue
        edges = np.append(rows["low"], rows["high"][-1])
        # An empty bar ends where the logarithmic axis begins.
        positives, negatives = (np.maximum(rows[key], 0.5) for key in ("positives", "negatives"))
        axes.stairs(negatives, edges, baseline=0.5, fill=True, color=style.PALE)
        axes.stairs(positives, edges, baseline=0.5, fill=True, color=style.BLUE, alpha=0.15)
        axes.stairs(positives, edges, baseline=0.5, color=style.BLUE, linewidth=1.3)
        style.set_x_range(axes, edges[0], edges[-1])
        axes.axvline(rows["threshold"][0], color=style.VERMILION, linestyle="--", linewidth=1.2)
    return figure


FIGURE = Figure(
    name="score_histograms",
    order=50,
    title="Probabilities of positives and negatives",
    data=make_columns,
    draw=draw,
    alt="A panel for each label with histograms of the probabilities on test, counts on a "
    "logarithmic scale.",
    finding=describe,
    caption="Right of the dashed line, blue is a true positive and gray a false positive; blue "
    "left of it is a false negative. Each panel has its own horizontal scale.",
)
