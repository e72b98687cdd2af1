"""Scores against the number of training rows, fitted and extrapolated. Part of curve.html, not of a
run's report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

from jaxclf.decisions.extrapolation import PowerLaw
from jaxclf.reports.figures import style
from jaxclf.reports.figures.data import Columns, select_rows, stack_rows

POINTS = 60  # of the fitted curve


def make_columns(rows: Sequence[int], curves: Mapping[str, Mapping[str, Any]]) -> Columns:
    """Each curve's trained, fitted and expected scores by number of rows; the fitted ones have no
    interval.

    curves: title -> a curve of curve.json.
    """
    nan, parts = np.nan, []
    for title, curve in curves.items():
        forecasts = curve["forecasts"]
        expected_rows = [rows[-1] * forecast["times"] for forecast in forecasts]
        fractions = np.geomspace(rows[0], expected_rows[-1], POINTS) / rows[-1]
        fit = PowerLaw(np.full(POINTS, curve["slope"]), np.full(POINTS, curve["exponent"]))
        fitted = curve["scores"][-1] + fit.gain(fractions)
        ends = np.array([forecast["interval"] for forecast in forecasts], float).T
        scores = [forecast["score"] for forecast in forecasts]
        parts += [
            (title, "trained", rows, curve["scores"], *np.array(curve["intervals"], float).T),
            (title, "fitted", fractions * rows[-1], fitted, nan, nan),
            (title, "expected", expected_rows, scores, *ends),
        ]
    return stack_rows("score kind rows value interval_low interval_high", parts)


def draw(columns: Columns) -> style.Figure:
    titles = list(dict.fromkeys(columns["score"].tolist()))
    figure = style.Figure(figsize=(style.WIDTH, 3.4))
    grid = figure.subplots(1, len(titles), squeeze=False)
    figure.subplots_adjust(0.07, 0.16, 0.985, 0.82, 0.2)
    marks = {"trained": (style.BLUE, "o"), "expected": (style.VERMILION, "s")}
    for axes, title in zip(grid[0], titles, strict=True):
        panel = select_rows(columns, columns["score"] == title)
        fitted = select_rows(panel, panel["kind"] == "fitted")
        axes.plot(fitted["rows"], fitted["value"], color=style.GRAY, label="fitted")
        for kind, (color, marker) in marks.items():
            points = select_rows(panel, panel["kind"] == kind)
            value = points["value"]
            ends = [value - points["interval_low"], points["interval_high"] - value]
            errors = np.maximum(ends, 0)
            axes.errorbar(
                points["rows"], value, errors, fmt=marker, color=color, capsize=4, label=kind
            )
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        ticks = panel["rows"][panel["kind"] != "fitted"]
        axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel("training rows")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=(0.06, 1), ncols=len(names))
    return figure
