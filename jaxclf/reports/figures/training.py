"""Training loss, learning rate and validation scores over batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator

from jaxclf.reports.figures import style
from jaxclf.reports.figures.data import Columns, RunData, stack_rows

ORDER, TITLE = 70, "Training"
ALT = (
    "Four lines over batches: training loss and learning rate; after each epoch, on val, macro F1 "
    "and the calibrated log loss."
)
CAPTION = (
    "A calibrated log loss on val that rises while the training loss falls is overfitting. One "
    "that still falls at the end suggests more epochs."
)
EPOCH_METRICS = ("macro_f1", "calibrated_log_loss")


def make_columns(run: RunData) -> Columns | str:
    """Loss, its running mean and learning rate of logged batches; macro F1 and calibrated log loss
    on val after each epoch."""
    batches = [line for line in run.log if "loss" in line]
    epochs = [line for line in run.log if "epoch/epoch" in line]
    if not batches and not epochs:
        return "the folder has no metrics.jsonl"
    loss, step = _column(batches, "loss"), _column(batches, "step")
    scores = (_column(epochs, f"epoch/{name}") for name in EPOCH_METRICS)
    nan, epoch = np.nan, _column(epochs, "epoch/epoch")
    parts = (
        (step, nan, loss, running_mean(loss), _column(batches, "learning_rate"), nan, nan),
        (_column(epochs, "step"), epoch, nan, nan, nan, *scores),
    )
    names = ("batch", "epoch", "loss", "running_mean", "learning_rate", *EPOCH_METRICS)
    return stack_rows(" ".join(names), parts)


def _column(lines: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([line.get(key, np.nan) for line in lines], np.float64)  # NaN is not logged


def running_mean(values: Float[np.ndarray, " lines"]) -> Float[np.ndarray, " lines"]:
    """The centered mean over about a twentieth of the values, shorter at both ends."""
    reach = len(values) // 40
    sums = np.append(0.0, np.cumsum(values))
    low = np.maximum(np.arange(len(values)) - reach, 0)
    high = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def describe(columns: Columns) -> str:
    is_epoch, mean = ~np.isnan(columns["epoch"]), columns["running_mean"]
    logged = mean[~np.isnan(mean)]
    sentences = []
    if len(logged) > 1:
        sentences.append(f"The training loss went from {logged[0]:.3f} to {logged[-1]:.3f}.")
    epoch = columns["epoch"][is_epoch]
    macro_f1, log_loss = (columns[name][is_epoch] for name in EPOCH_METRICS)
    for what, values, find in (
        ("lowest calibrated log loss", log_loss, np.nanargmin),
        ("highest macro F1", macro_f1, np.nanargmax),
    ):
        if not np.isnan(values).all():
            best = int(find(values))
            reached = f"after epoch {epoch[best]:.0f} of {len(epoch)}"
            sentences.append(f"The {what} on val, {values[best]:.3f}, was reached {reached}.")
    return " ".join(sentences)


def draw(columns: Columns) -> style.Figure:
    figure = style.Figure(figsize=(style.WIDTH, 5.2))
    grid = figure.subplots(2, 2, sharex=True)
    figure.subplots_adjust(0.07, 0.09, 0.985, 0.94, 0.16, 0.22)
    batch, is_epoch = columns["batch"], ~np.isnan(columns["epoch"])
    loss, macro_f1, learning_rate, log_loss = grid.ravel()
    loss.plot(batch, columns["loss"], ".", color=style.PALE, markersize=3)
    loss.plot(batch, columns["running_mean"], color=style.BLUE, linewidth=2)
    loss.set_title("training loss, with its running mean", loc="left")
    learning_rate.plot(batch[~is_epoch], columns["learning_rate"][~is_epoch], color=style.BLUE)
    learning_rate.set_title("learning rate", loc="left")
    learning_rate.yaxis.set_major_locator(MaxNLocator(4))
    learning_rate.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}" if value else "0")
    for axes, name in zip((macro_f1, log_loss), EPOCH_METRICS, strict=True):
        axes.plot(batch[is_epoch], columns[name][is_epoch], "o-", color=style.BLUE)
        axes.set_title(f"{name.replace('_', ' ')} on val, after each epoch", loc="left")
    for axes in (learning_rate, log_loss):
        axes.set_xlabel("batches")
    loss.set(xlim=(0, None), ylim=(0, None))
    learning_rate.set_ylim(0, None)
    return figure
