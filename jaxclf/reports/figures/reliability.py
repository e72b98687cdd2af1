"""Frequency of the labels against their probability."""

import numpy as np

from jaxclf.decisions.arrays import ECE_BINS
from jaxclf.reports.figures import style
from jaxclf.reports.figures.data import Columns, RunData, rows_by_label, select_rows, stack_rows

MIN_COUNT = 10  # examples: a label's bin with fewer is not drawn

ORDER, TITLE = 30, "Reliability"
ALT = (
    "Frequency of the labels against their probability on test, and below it the number of "
    "probabilities in each bin."
)
CAPTION = (
    "On the diagonal a probability of 0.7 comes true seven times in ten. Above it the "
    "model is underconfident, below it overconfident. A label's bin with fewer than "
    f"{MIN_COUNT} texts is not drawn."
)


def make_columns(run: RunData) -> Columns:
    """Mean probability and frequency in bins of equal width, without empty bins: first of all
    labels together (`all` 1), whose mean gap weighted by count is the ECE, then of each label."""
    labels, probs = run.test.labels, run.test.probs
    parts = [("all labels", 1, *_bin_probabilities(labels.ravel(), probs.ravel()))]
    parts += [
        (run.names[index], 0, *_bin_probabilities(labels[:, index], probs[:, index]))
        for index in run.label_indices
    ]
    return stack_rows("label all low high probability frequency count", parts)


def _bin_probabilities(labels: np.ndarray, probs: np.ndarray) -> tuple:
    """(low, high, probability, frequency, count) of the bins that are not empty."""
    is_known = ~np.isnan(labels)
    y, p = labels[is_known], probs[is_known].astype(np.float64)
    bins = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    count = np.bincount(bins, minlength=ECE_BINS)
    filled = np.flatnonzero(count)
    if not len(filled):
        return np.nan, np.nan, np.nan, np.nan, 0
    means = (np.bincount(bins, values, ECE_BINS)[filled] / count[filled] for values in (p, y))
    return filled / ECE_BINS, (filled + 1) / ECE_BINS, *means, count[filled]


def calibration_gap(rows: Columns) -> float:
    """The mean distance between probability and frequency, weighted by count; 0 if empty."""
    gaps = np.abs(rows["probability"] - rows["frequency"]) * rows["count"]
    return float(np.nansum(gaps) / max(rows["count"].sum(), 1))


def describe(columns: Columns) -> str:
    pooled = select_rows(columns, columns["all"] == 1)
    if not pooled["count"].any():
        return "No label is known."
    sentence = f"The ECE of all labels together is {calibration_gap(pooled):.2f}."
    excess = float(np.sum((pooled["probability"] - pooled["frequency"]) * pooled["count"]))
    excess /= float(pooled["count"].sum())
    if abs(excess) >= 0.01:
        side = "above" if excess > 0 else "below"
        sentence += f" On average the probabilities are {abs(excess):.2f} {side} the frequencies."
    return sentence


def draw(columns: Columns) -> style.Figure:
    """The three labels farthest from the diagonal are colored, the others gray."""
    pooled = select_rows(columns, columns["all"] == 1)
    labels = rows_by_label(select_rows(columns, columns["all"] == 0))
    figure = style.Figure(figsize=(style.WIDTH, 6.6))
    grid = figure.add_gridspec(
        2, 1, height_ratios=(4, 1), hspace=0.08, left=0.08, right=0.68, top=0.97, bottom=0.08
    )
    axes = figure.add_subplot(grid[0])
    axes.plot([0, 1], [0, 1], color=style.GRAY, linestyle="--", linewidth=1, label="ideal")
    x, y = pooled["probability"], pooled["frequency"]
    axes.plot(x, y, "o-", color=style.BLUE, linewidth=3, label="all labels")
    _draw_labels(axes, labels)
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="frequency of the label")
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, labelspacing=0.8)

    counts = figure.add_subplot(grid[1], sharex=axes)
    low, count = pooled["low"], pooled["count"]
    if count.any():
        widths = pooled["high"] - low
        counts.bar(low, count, widths, align="edge", color=style.BLUE, edgecolor=style.PAPER)
    style.set_count_axis(counts, float(count.max()))
    counts.set(xlim=(0, 1), xlabel="probability", ylabel="count")
    return figure


def _draw_labels(axes: style.Axes, labels: dict[str, Columns]) -> None:
    short_names = dict(zip(labels, style.fit_labels(labels), strict=True))
    gaps = {name: calibration_gap(rows) for name, rows in labels.items()}
    far = sorted((name for name in labels if gaps[name] > 0), key=lambda name: -gaps[name])[:3]
    colors = [(style.VERMILION, "--"), (style.GREEN, "-."), (style.PURPLE, ":")]
    styles = dict(zip(far, colors, strict=False))
    for name in [*far, *(name for name in labels if name not in far)]:
        color, dash = styles.get(name, (style.PALE, "-"))
        is_drawn = labels[name]["count"] >= MIN_COUNT
        x, y = (labels[name][column][is_drawn] for column in ("probability", "frequency"))
        text = f"off by {gaps[name]:.2f}: {short_names[name]}" if name in far else None
        axes.plot(x, y, dash, color=color, linewidth=1.2, zorder=1.8 + (name in far), label=text)
    if len(labels) > len(far):
        axes.plot([], [], color=style.PALE, linewidth=1.2, label="other labels")
