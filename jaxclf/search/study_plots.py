"""The pictures of a search: its history, what matters, and a slice along each dimension.

This module imports matplotlib, so it is imported where a picture is drawn.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from jaxclf.experiment.search_space import Choice, Dimension, Float, Int, Space
from jaxclf.reports.figures.curves import Columns
from jaxclf.reports.figures.style import (
    BLUE,
    GREY,
    INK,
    PALE,
    PAPER,
    VERMILION,
    WIDTH,
    Mark,
    fit_labels,
    panels,
    scale,
    width,
)

TRIAL, BEST = Mark("trial", BLUE, marker="o"), Mark("best trial", VERMILION, marker="o")
SPREAD = 0.3  # of a Choice's points to the sides, so that they do not cover each other


def history(metric: str, columns: Columns) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.add_axes((0.08, 0.14, 0.9, 0.74))
    pruned = columns["pruned"] == 1
    for which, colour, name in ((~pruned, BLUE, "trial"), (pruned, PALE, "pruned")):
        x, y = columns["trial"][which], columns["score"][which]
        axes.plot(x, y, "o", color=colour, markersize=5, label=name if which.any() else None)
    axes.plot(
        columns["trial"],
        columns["best"],
        color=VERMILION,
        drawstyle="steps-post",
        label="best so far",
    )
    axes.set(xlabel="trial", ylabel=f"{metric} on val")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def importance(columns: Columns) -> Figure:
    names, values = fit_labels(columns["dimension"].tolist(), 2.4), columns["importance"]
    left = max(map(width, names)) + 0.3
    height = 0.7 + 0.28 * len(names)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((left / WIDTH, 0.5 / height, 0.94 - left / WIDTH, 1 - 0.6 / height))
    axes.barh(names[::-1], values[::-1], color=BLUE, height=0.6)
    for place, value in enumerate(values[::-1]):
        axes.text(value, place, f" {value:.2f}", va="center", color=GREY, fontsize=8)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="share", xlim=(0, 1.08 * max(values.max(), 1e-9)))
    return figure


def slices(metric: str, space: Space, columns: Columns) -> Figure:
    """space: the dimensions that `label` names."""
    figure, each = panels(columns, "", f"{metric} on val", (TRIAL, BEST), own_scale=True)
    low, high = columns["score"].min(), columns["score"].max()
    room = 0.06 * max(high - low, 1e-3)
    for (axes, rows), (name, dimension) in zip(each, space.items(), strict=True):
        axes.set_title(fit_labels([name], 2.0, bold=True)[0], loc="left", fontweight="bold", pad=4)
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        x = rows["value"]
        if isinstance(dimension, Choice):
            # By the golden ratio: evenly, and the same each time.
            x = x + SPREAD * ((0.618 * rows["trial"]) % 1 - 0.5)
            _names(axes, dimension)
        else:
            _range(axes, dimension)
        best = rows["best"]
        axes.plot(x[~best], rows["score"][~best], "o", color=BLUE, markersize=4, alpha=0.7)
        axes.plot(
            x[best], rows["score"][best], "o", color=VERMILION, markersize=6, markeredgecolor=PAPER
        )
    return figure


def _names(axes: Axes, choice: Choice) -> None:
    names = [str(value) for value in choice.values]
    room = 2.2 / len(names)
    axes.set_xticks(range(len(names)), fit_labels(names, room))
    axes.set_xlim(-0.5, len(names) - 0.5)


def _range(axes: Axes, dimension: Dimension) -> None:
    assert isinstance(dimension, Float | Int)
    low, high = dimension.low, dimension.high
    if dimension.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(low * 0.9, high * 1.1)
    else:
        room = 0.06 * (high - low)
        scale(axes, low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=isinstance(dimension, Int)))
