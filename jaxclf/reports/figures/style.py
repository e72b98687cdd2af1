"""What all figures share: colors, shortened label names and a grid with a panel for each label.

The colors are those of Okabe and Ito (2008), some darkened, which color-blind readers can tell
apart. Dashes repeat the distinction.
"""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxclf.reports.figures.data import Columns, rows_by_label

STYLE_FILE = Path(__file__).parent / "report.mplstyle"
STYLE = matplotlib.rc_params_from_file(STYLE_FILE, use_default_template=False)
INK, GRAY, PAPER = STYLE["text.color"], STYLE["axes.edgecolor"], STYLE["axes.facecolor"]
BLUE, VERMILION, GREEN, PURPLE, PALE = "#0072b2 #c44e00 #007a5a #a8508a #b9b9b9".split()
WIDTH, DPI = 9.6, 160  # inches; pixels per inch in the file


class Mark(NamedTuple):
    """An entry of a legend: a line or a marker."""

    name: str
    color: str
    dash: Literal["", "-", "--", ":"] = ""
    marker: Literal["", "o", "s"] = ""


CURVE = Mark("curve", BLUE, "-")
CHOSEN = Mark("chosen threshold", VERMILION, marker="o")


def to_png(draw: Callable[[Columns], Figure], columns: Columns) -> bytes:
    """A figure as a PNG image. The user's matplotlib settings do not change it."""
    with matplotlib.style.context(STYLE_FILE, after_reset=True):
        file = io.BytesIO()
        draw(columns).savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def fit_labels(names: Iterable[str], room: float = 1.6, bold: bool = False) -> list[str]:
    """Label names for a figure: one wider than `room` (inches) loses its middle; one with
    characters that the font lacks becomes its number."""
    labels = []
    for number, name in enumerate(names, 1):
        name = " ".join(name.split()) if is_writable(name) else f"label {number}"
        short, length = name, min(len(name), 100)
        while length > 3 and (len(short) > 100 or text_width(short, bold) > room):
            length -= 1
            short = f"{name[: length // 2]}…{name[length // 2 + 1 - length :]}"
        labels.append(short)
    return labels


def text_width(text: str, bold: bool = False) -> float:
    """The width of a line at the figures' font size, in inches."""
    font = _font(bold)
    font.set_size(STYLE["font.size"], 64)  # its unit is then 1/4096 inch
    font.set_text(text)
    return font.get_width_height()[0] / 4096


def is_writable(name: str) -> bool:
    """Whether the figures' font has all characters of a name."""
    letters = "".join(name.split())
    return bool(letters) and all(_font().get_char_index(ord(letter)) for letter in letters)


def _font(bold: bool = False) -> FT2Font:
    weight = "bold" if bold else "normal"
    properties = font_manager.FontProperties(family=STYLE["font.family"], weight=weight)
    return font_manager.get_font(font_manager.findfont(properties))


def make_panels(
    columns: Columns,
    xlabel: str,
    ylabel: str,
    legend: Sequence[Mark],
    empty: str,
    own_scale: bool = False,
) -> tuple[Figure, list[tuple[Axes, Columns]]]:
    """A panel for each label, one legend for all, and the rows of each label with a value.

    empty: written into the panels of the other labels, whose first row has NaN.
    own_scale: each panel has its own horizontal scale; else both axes go from 0 to 1.
    """
    labels = rows_by_label(columns)
    column_count = min(len(labels), 3 if len(labels) <= 9 else 4)
    row_count = math.ceil(len(labels) / column_count)
    width = WIDTH if column_count > 2 else 3.2 * column_count + 0.6
    top, bottom, left, right, gap, row_height = 0.65, 0.5, 0.65, 0.15, 0.25, 1.75
    height = top + bottom + row_height * row_count
    panel = (width - left - right + gap) / column_count - gap
    titles = fit_labels(labels, panel - 0.6, bold=True)  # a value is written beside it
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(row_count, column_count, squeeze=False)
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=gap / panel,
        hspace=0.5 if own_scale else 0.36,
    )
    for index, axes in enumerate(grid.ravel()):
        axes.set(xlim=(0, 1), ylim=(-0.03, 1.03))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        is_lowest = index + column_count >= len(labels)
        axes.tick_params(
            length=2, labelbottom=own_scale or is_lowest, labelleft=index % column_count == 0
        )
        axes.set_visible(index < len(labels))
    figure.supxlabel(xlabel, fontsize=9, y=0.1 / height)
    figure.supylabel(ylabel, fontsize=9, x=0.06 / width)
    handles = [
        Line2D([], [], color=color, linestyle=dash, marker=marker, label=name)
        for name, color, dash, marker in legend
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=((left - 0.1) / width, 1 - 0.04 / height),
        ncols=len(legend),
        columnspacing=1.6,
    )
    panels = []
    for axes, title, rows in zip(grid.ravel(), titles, labels.values(), strict=False):
        axes.set_title(title, loc="left", fontweight="bold", pad=4)
        if any(values[0] != values[0] for values in rows.values()):
            axes.text(
                0.5, 0.5, empty, ha="center", va="center", color=GRAY, transform=axes.transAxes
            )
            axes.grid(False)
        else:
            panels.append((axes, rows))
    return figure, panels


def mark_chosen(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Mark the chosen threshold with a point."""
    axes.plot(x, y, "o", color=VERMILION, markersize=6, markeredgecolor=PAPER, clip_on=False)


def show_value(axes: Axes, name: str, value: float) -> None:
    """Write a label's value above its panel, on the right."""
    axes.set_title(f"{name} {value:.2f}", loc="right", color=GRAY, fontsize=8, pad=4)


def set_x_range(axes: Axes, low: float, high: float) -> None:
    """Give a panel its own horizontal scale."""
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")


def set_count_axis(axes: Axes, largest: float) -> None:
    """Make the vertical axis a logarithmic scale of counts."""
    axes.set(yscale="log", ylim=(0.5, 2 * max(largest, 1)))
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_locator(LogLocator(subs=[], numticks=5))
