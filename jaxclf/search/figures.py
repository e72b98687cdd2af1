"""Optuna's matplotlib plots of a study, as PNG images."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optuna
from optuna.visualization import matplotlib as plots

DPI = 160


def draw_history(study: optuna.Study, metric: str) -> bytes:
    """The score of each finished trial, and the best so far."""
    return _draw(plots.plot_optimization_history, study, metric)


def draw_importances(study: optuna.Study, metric: str) -> bytes:
    """The importance of each parameter."""
    return _draw(plots.plot_param_importances, study, metric)


def draw_slices(study: optuna.Study, metric: str) -> bytes:
    """The score against each parameter."""
    return _draw(plots.plot_slice, study, metric)


def _draw(plot: Callable[..., Any], study: optuna.Study, metric: str) -> bytes:
    plt.switch_backend("agg")  # opens no window
    file = io.BytesIO()
    # Optuna changes matplotlib's style for the whole process. Where a dimension has one value, it
    # sets equal limits, of which matplotlib warns.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = np.ravel(plot(study, target_name=metric))[0].figure
        figure.savefig(
            file, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None}
        )
        plt.close(figure)
    return file.getvalue()
