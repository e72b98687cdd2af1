"""The figures of a report: every module of this package that defines ORDER, TITLE, ALT, CAPTION,
`make_columns`, `describe` and `draw`.

matplotlib is imported with the first figure, since it takes a second.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.files.atomic import write_bytes
from jaxclf.reports.figures.data import Columns, RunData, save_columns
from jaxclf.reports.rendering import Picture
from jaxclf.types import Predictions

MAX_LABELS = 40  # with a panel or a row of their own


class Figure(NamedTuple):
    """One figure of the report. Its files are `plots/NAME.png` and `plots/NAME.csv`."""

    name: str
    order: int  # on the page
    title: str
    # What is drawn, as columns of equal length; or the reason why the run has no such figure.
    data: Callable[[RunData], Columns | str]
    draw: Callable[[Columns], Any]  # a matplotlib figure
    alt: str  # what a reader would see; `finding` is appended
    finding: Callable[[Columns], str]  # the result in a sentence or two
    caption: str  # how to read it


@functools.cache
def load_figures() -> tuple[Figure, ...]:
    """All figures, in the order of the page."""
    figures = []
    for name in (info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)])):
        part = importlib.import_module(f"jaxclf.reports.figures.{name}")
        if hasattr(part, "CAPTION"):
            functions = part.make_columns, part.draw, part.ALT, part.describe
            figures.append(Figure(name, part.ORDER, part.TITLE, *functions, part.CAPTION))
    return tuple(sorted(figures, key=lambda figure: figure.order))


def most_frequent_labels(test: Predictions) -> np.ndarray:
    """Indices of the labels with most positives, at most MAX_LABELS, ascending."""
    order = np.argsort(-np.nansum(test.labels, axis=0), kind="stable")
    return np.sort(order[:MAX_LABELS])


def draw_figures(folder: Path, run: RunData) -> list[Picture]:
    """Draw every figure into the folder, as a PNG and a CSV file. A figure that the run does not
    have leaves no file behind."""
    return [_draw_figure(folder, figure, run) for figure in load_figures()]


def _draw_figure(folder: Path, figure: Figure, run: RunData) -> Picture:
    from jaxclf.reports.figures.style import to_png

    table, image = (folder / f"{figure.name}.{suffix}" for suffix in ("csv", "png"))
    columns = figure.data(run)
    if isinstance(columns, str):
        for path in (table, image):
            path.unlink(missing_ok=True)
        return Picture(figure.title, missing=columns)
    save_columns(table, columns)
    png = to_png(figure.draw, columns)
    write_bytes(image, png)
    finding = figure.finding(columns)
    return Picture(
        title=figure.title,
        alt=f"{figure.alt} {finding}",
        finding=finding,
        caption=figure.caption,
        png=png,
        file=f"{folder.name}/{table.name}",
    )


def make_notes(run: RunData) -> list[str]:
    """Sentences about labels that the figures leave out or cannot write."""
    from jaxclf.reports.figures.style import fit_labels, is_writable

    notes = []
    names = [run.names[index] for index in run.label_indices]
    pairs = zip(fit_labels(names), names, strict=True)
    if replaced := ", ".join(
        f"{short} is {name}" for short, name in pairs if not is_writable(name)
    ):
        notes.append(f"The font of the figures lacks characters of some labels: {replaced}.")
    if len(names) < len(run.names):
        notes.append(
            f"Figures with a panel or a row for each label show {len(names)} of {len(run.names)} "
            "labels, those with most positives on test."
        )
    return notes
