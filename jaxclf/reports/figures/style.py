"""What all pictures share: their style, labels' names cut to fit, and a small panel per label.

This module imports matplotlib. Colours are those of Okabe and Ito (2008), some darkened, which the
colour-blind tell apart; dashes say the same once more.
"""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from jaxclf.reports.figures.curves import Columns, by_label

BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#c44e00", "#007a5a", "#a8508a"
INK, GREY, PALE, PAPER = "#222222", "#666666", "#b9b9b9", "#fbfbf9"
STYLE = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib
    "font.size": 9,
    "text.parse_math": False,  # a label may hold a dollar sign
    "text.color": INK,
    "axes.facecolor": PAPER,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "grid.color": "#e2e2de",
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
}
WIDTH, DPI = 9.6, 160  # inches, of which a page shows 100 pixels; pixels per inch in the file


class Mark(NamedTuple):
    """An entry of a legend: a line with a dash, or a marker."""

    name: str
    colour: str
    dash: Literal["", "-", "--", ":"] = ""
    marker: Literal["", "o", "s"] = ""


CHOSEN = Mark("chosen threshold", VERMILION, marker="o")


def png(draw: Callable[[Columns], Figure], columns: Columns) -> bytes:
    """One picture in the style of all, whatever the user's own settings."""
    with matplotlib.style.context(STYLE, after_reset=True):
        file = io.BytesIO()
        draw(columns).savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def fit_labels(names: Iterable[str], room: float = 1.6, bold: bool = False) -> list[str]:
    """Names as a picture shows them: one wider than `room` (inches) without its middle, one in
    letters that the font lacks as its place among the labels."""
    said = []
    for place, name in enumerate(names, 1):
        name = " ".join(name.split()) if writable(name) else f"label {place}"
        short, letters = name, min(len(name), 100)
        while letters > 3 and (len(short) > 100 or width(short, bold) > room):
            letters -= 1
            short = f"{name[: letters // 2]}…{name[letters // 2 + 1 - letters :]}"
        said.append(short)
    return said


def width(text: str, bold: bool = False) -> float:
    """Of a line at the pictures' size of letters, in inches."""
    font = _font(bold)
    font.set_size(STYLE["font.size"], 64)  # so the 64ths it counts in are 4096ths of an inch
    font.set_text(text)
    return font.get_width_height()[0] / 4096


def writable(name: str) -> bool:
    """Whether the pictures' font has all of a name's letters."""
    letters = "".join(name.split())
    return bool(letters) and all(_font().get_char_index(ord(letter)) for letter in letters)


def _font(bold: bool = False) -> FT2Font:
    return font_manager.get_font(
        font_manager.findfont(
            font_manager.FontProperties(
                family=STYLE["font.family"], weight="bold" if bold else "normal"
            )
        )
    )


def panels(
    columns: Columns, across: str, up: str, marks: Sequence[Mark], own_scale: bool = False
) -> tuple[Figure, list[tuple[Axes, Columns]]]:
    """A panel per label with its rows, names of the axes and one legend for all.

    own_scale: each panel has its own horizontal scale, else both go from 0 to 1.
    """
    labels = by_label(columns)
    across_count = min(len(labels), 3 if len(labels) <= 9 else 4)
    down_count = math.ceil(len(labels) / across_count)
    wide = WIDTH if across_count > 2 else 3.2 * across_count + 0.6
    top, bottom, left, right, gap, each = 0.65, 0.5, 0.65, 0.15, 0.25, 1.75
    height = top + bottom + each * down_count
    panel = (wide - left - right + gap) / across_count - gap
    short = fit_labels(labels, panel - 0.6, bold=True)  # a figure stands beside it
    figure = Figure(figsize=(wide, height))
    grid = figure.subplots(down_count, across_count, squeeze=False)
    figure.subplots_adjust(
        left=left / wide,
        right=1 - right / wide,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=gap / panel,
        hspace=0.5 if own_scale else 0.36,
    )
    for index, axes in enumerate(grid.ravel()):
        axes.set(xlim=(0, 1), ylim=(-0.03, 1.03))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        last_of_column = index + across_count >= len(labels)
        axes.tick_params(
            length=2, labelbottom=own_scale or last_of_column, labelleft=index % across_count == 0
        )
        axes.set_visible(index < len(labels))
    for axes, name in zip(grid.ravel(), short, strict=False):
        axes.set_title(name, loc="left", fontweight="bold", pad=4)
    figure.supxlabel(across, fontsize=9, y=0.1 / height)
    figure.supylabel(up, fontsize=9, x=0.06 / wide)
    handles = [
        Line2D([], [], color=mark.colour, linestyle=mark.dash, marker=mark.marker) for mark in marks
    ]
    figure.legend(
        handles,
        [mark.name for mark in marks],
        loc="upper left",
        bbox_to_anchor=((left - 0.1) / wide, 1 - 0.04 / height),
        ncols=len(marks),
        columnspacing=1.6,
    )
    return figure, list(zip(grid.ravel(), labels.values(), strict=False))


def point(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Where the chosen threshold lies."""
    axes.plot(x, y, "o", color=VERMILION, markersize=6, markeredgecolor=PAPER, clip_on=False)


def figure_of(axes: Axes, name: str, value: float) -> None:
    """A label's figure at the right above its panel."""
    said = "n/a" if math.isnan(value) else f"{value:.2f}"
    axes.set_title(f"{name} {said}", loc="right", color=GREY, fontsize=8, pad=4)


def empty_panel(axes: Axes, why: str) -> None:
    """Where a panel has nothing to show."""
    axes.text(0.5, 0.5, why, ha="center", va="center", color=GREY, transform=axes.transAxes)
    axes.grid(False)


def scale(axes: Axes, low: float, high: float) -> None:
    """A panel's own horizontal scale."""
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def count_axis(axes: Axes, most: float) -> None:
    """Counts on a vertical logarithmic scale, written as whole numbers."""
    axes.set(yscale="log", ylim=(0.5, 2 * max(most, 1)))
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(LogLocator(subs=[], numticks=5))
