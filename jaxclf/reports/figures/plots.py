"""The pictures of a run: columns of curves.py -> figures, of up to some thirty labels.

This module imports matplotlib, so it is imported where a picture is drawn.
"""

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxclf.reports.figures.captions import calibration_gap
from jaxclf.reports.figures.curves import Columns, by_label
from jaxclf.reports.figures.style import (
    BLUE,
    CHOSEN,
    GREEN,
    GREY,
    INK,
    PALE,
    PAPER,
    PURPLE,
    VERMILION,
    WIDTH,
    Mark,
    count_axis,
    empty_panel,
    figure_of,
    fit_labels,
    panels,
    point,
    scale,
    width,
)

CURVE = Mark("curve", BLUE, "-")
FEW = 10  # examples: a label's bin with fewer is not drawn, for it shows chance


def precision_recall(columns: Columns) -> Figure:
    marks = (CURVE, Mark("share of positives", GREY, "--"), CHOSEN)
    figure, each = panels(columns, "recall", "precision", marks)
    for axes, rows in each:
        curve, chosen = rows["chosen"] == 0, rows["chosen"] == 1
        recall, precision = rows["recall"][curve], rows["precision"][curve]
        if np.isnan(recall[0]):
            empty_panel(axes, "no positives")
            continue
        axes.plot(recall, precision, color=BLUE, drawstyle="steps-pre")
        axes.axhline(precision[-1], color=GREY, linestyle="--", linewidth=1)
        point(axes, rows["recall"][chosen], rows["precision"][chosen])
        figure_of(axes, "AP", float(np.sum(np.diff(recall) * precision[1:])))
    return figure


def roc(columns: Columns) -> Figure:
    marks = (CURVE, Mark("guessing", GREY, "--"), CHOSEN)
    figure, each = panels(columns, "false positive rate", "true positive rate", marks)
    for axes, rows in each:
        curve, chosen = rows["chosen"] == 0, rows["chosen"] == 1
        x, y = rows["false_positive_rate"], rows["true_positive_rate"]
        if np.isnan(x[0]):
            empty_panel(axes, "one class only")
            continue
        axes.plot(x[curve], y[curve], color=BLUE)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        point(axes, x[chosen], y[chosen])
        figure_of(axes, "AUC", float(np.trapezoid(y[curve], x[curve])))
    return figure


def threshold_curves(columns: Columns) -> Figure:
    lines = (Mark("F1", BLUE, "-"), Mark("precision", PURPLE, "--"), Mark("recall", GREEN, ":"))
    figure, each = panels(columns, "threshold", "score on val", (*lines, CHOSEN), own_scale=True)
    for axes, rows in each:
        line, chosen = rows["chosen"] == 0, rows["chosen"] == 1
        if np.isnan(rows["recall"][0]):
            empty_panel(axes, "no positives")
            continue
        for mark in lines:
            values = rows[mark.name.lower()][line]
            axes.plot(rows["threshold"][line], values, mark.dash, color=mark.colour)
        scale(axes, *rows["threshold"][line][[0, -1]])
        axes.axvline(rows["threshold"][chosen].item(), color=VERMILION, linewidth=0.8)
        point(axes, rows["threshold"][chosen], rows["f1"][chosen])
        figure_of(axes, "F1", rows["f1"][chosen].item())
    return figure


def score_histograms(columns: Columns) -> Figure:
    marks = (Mark("positives", BLUE, "-"), Mark("negatives", PALE, marker="s"))
    threshold = Mark("chosen threshold", VERMILION, "--")
    figure, each = panels(columns, "probability", "texts", (*marks, threshold), own_scale=True)
    for axes, rows in each:
        count_axis(axes, float(max(columns["positives"].max(), columns["negatives"].max())))
        if np.isnan(rows["low"][0]):
            empty_panel(axes, "not known")
            continue
        edges = np.append(rows["low"], rows["high"][-1])
        # An empty bar ends where the axis begins.
        positives, negatives = (np.maximum(rows[key], 0.5) for key in ("positives", "negatives"))
        axes.stairs(negatives, edges, baseline=0.5, fill=True, color=PALE)
        axes.stairs(positives, edges, baseline=0.5, fill=True, color=BLUE, alpha=0.15)
        axes.stairs(positives, edges, baseline=0.5, color=BLUE, linewidth=1.3)
        scale(axes, edges[0], edges[-1])
        axes.axvline(rows["threshold"][0], color=VERMILION, linestyle="--", linewidth=1.2)
    return figure


def reliability(columns: Columns) -> Figure:
    """The three labels farthest from the diagonal in colour, the others grey."""
    whole = {name: values[columns["all"] == 1] for name, values in columns.items()}
    labels = by_label({name: values[columns["all"] == 0] for name, values in columns.items()})
    names = dict(zip(labels, fit_labels(labels), strict=True))
    gaps = {name: calibration_gap(rows) for name, rows in labels.items()}
    far = sorted((name for name in labels if gaps[name] > 0), key=lambda name: -gaps[name])[:3]
    styles = dict(zip(far, [(VERMILION, "--"), (GREEN, "-."), (PURPLE, ":")], strict=False))

    figure = Figure(figsize=(WIDTH, 6.6))
    grid = figure.add_gridspec(
        2, 1, height_ratios=(4, 1), hspace=0.08, left=0.08, right=0.68, top=0.97, bottom=0.08
    )
    axes = figure.add_subplot(grid[0])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as it should be")
    axes.plot(
        whole["probability"], whole["frequency"], "o-", color=BLUE, linewidth=3, label="all labels"
    )
    for name in [*far, *(name for name in labels if name not in far)]:
        colour, dash = styles.get(name, (PALE, "-"))
        often = labels[name]["count"] >= FEW
        x, y = (labels[name][column][often] for column in ("probability", "frequency"))
        said = f"off by {gaps[name]:.2f}: {names[name]}" if name in far else None
        axes.plot(x, y, dash, color=colour, linewidth=1.2, zorder=1.8 + (name in far), label=said)
    if len(labels) > len(far):
        axes.plot([], [], color=PALE, linewidth=1.2, label="the other labels")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="frequency of the label")
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, labelspacing=0.8)

    below = figure.add_subplot(grid[1], sharex=axes)
    if whole["count"].any():
        widths = whole["high"] - whole["low"]
        below.bar(whole["low"], whole["count"], widths, align="edge", color=BLUE, edgecolor=PAPER)
    count_axis(below, float(whole["count"].max()))
    below.set(xlim=(0, 1), xlabel="probability", ylabel="count")
    return figure


def error_pairs(columns: Columns) -> Figure:
    names = list(dict.fromkeys(columns["given"].tolist()))
    texts = columns["texts"].reshape(len(names), len(names))
    wrongly = columns["false_positives"].reshape(texts.shape)[:, 0]
    short = fit_labels(names)
    cell = float(np.clip(5.4 / len(names), 0.265, 0.8))
    side, most, longest = cell * len(names), max(int(texts.max()), 1), max(map(width, short))
    left, bottom, top, right = longest + 0.85, longest + 0.4, 0.1, 0.1
    wide, high = max(left + side + right, 5.0), bottom + side + top
    figure = Figure(figsize=(wide, high))
    axes = figure.add_axes((left / wide, bottom / high, side / wide, side / high))
    axes.imshow(texts, cmap="Blues", norm=PowerNorm(0.5, 0, most))
    for given, missed in np.argwhere(texts > 0):
        count = texts[given, missed]
        colour = "white" if count > 0.4 * most else INK
        size = 9 if cell > 0.4 else 6.5
        axes.text(missed, given, f"{count}", ha="center", va="center", color=colour, fontsize=size)
    rows = [f"{name}  ({count:,})" for name, count in zip(short, wrongly, strict=True)]
    axes.set_xticks(range(len(names)), short, rotation=90)
    axes.set_yticks(range(len(names)), rows)
    figure.supxlabel("missed", fontsize=9, x=(left + side / 2) / wide, y=0.08 / high)
    figure.supylabel("given wrongly (texts)", fontsize=9, y=(bottom + side / 2) / high, x=0.01)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def training(columns: Columns) -> Figure:
    figure = Figure(figsize=(WIDTH, 5.2))
    grid = figure.subplots(2, 2, sharex=True)
    figure.subplots_adjust(0.07, 0.09, 0.985, 0.94, 0.16, 0.22)
    batch, epochs = columns["batch"], ~np.isnan(columns["epoch"])
    losses, score, rate, log_loss = grid.ravel()
    losses.plot(batch, columns["loss"], ".", color=PALE, markersize=3)
    losses.plot(batch, columns["running_mean"], color=BLUE, linewidth=2)
    losses.set_title("training loss, with its running mean", loc="left")
    rate.plot(batch[~epochs], columns["rate"][~epochs], color=BLUE)
    rate.set_title("learning rate", loc="left")
    rate.yaxis.set_major_locator(MaxNLocator(4))
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1e}" if value else "0"))
    for axes, name, title in (
        (score, "score", "score on val"),
        (log_loss, "log_loss", "log loss on val"),
    ):
        axes.plot(batch[epochs], columns[name][epochs], "o-", color=BLUE)
        axes.set_title(f"{title}, after each epoch", loc="left")
    for axes in (rate, log_loss):
        axes.set_xlabel("batches")
    losses.set_xlim(0, None)
    losses.set_ylim(0, None)
    rate.set_ylim(0, None)
    return figure


def length_errors(columns: Columns) -> Figure:
    share, place = columns["share"], np.arange(len(columns["share"]))
    below, above = share - columns["interval_low"], columns["interval_high"] - share
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.add_axes((0.07, 0.2, 0.92, 0.76))
    reach = np.maximum([below, above], 0)
    axes.errorbar(place, share, reach, fmt="o", color=BLUE, ecolor=BLUE, capsize=4, linewidth=1.5)
    said = [
        (f"{low}" if low == high else f"{low}–{high}") + f"\n{texts:,} texts"  # noqa: RUF001
        for low, high, texts in zip(
            columns["shortest"], columns["longest"], columns["texts"], strict=True
        )
    ]
    axes.set_xticks(place, said)
    axes.set(ylim=(0, 1), xlim=(-0.5, len(place) - 0.5), xlabel="length in tokens")
    axes.set_ylabel("texts with a wrong label")
    axes.grid(False, axis="x")
    return figure


PICTURES = {
    "precision_recall": precision_recall,
    "roc": roc,
    "reliability": reliability,
    "threshold_curves": threshold_curves,
    "score_histograms": score_histograms,
    "error_pairs": error_pairs,
    "training": training,
    "length_errors": length_errors,
}
