"""Texts in which one label is a false positive and another a false negative."""

import numpy as np
from matplotlib.colors import PowerNorm

from jaxclf.decisions.thresholds import decide
from jaxclf.reports.figures import style
from jaxclf.reports.figures.data import Columns, RunData, stack_rows

ORDER, TITLE = 60, "Pairs of errors"
ALT = "A table with false positives in rows and false negatives in columns, on test."
CAPTION = (
    "A cell counts the texts in which the label of the row was predicted wrongly and the "
    "label of the column was missed. In brackets: all false positives of a label."
)


def make_columns(run: RunData) -> Columns:
    """The number of texts in which `predicted` is a false positive while `missed` is a false
    negative, beside all false positives of `predicted`."""
    labels = run.test.labels[:, run.label_indices]
    decided = decide(run.test.probs, run.thresholds)[:, run.label_indices]
    names = [run.names[index] for index in run.label_indices]
    false_positive, false_negative = (labels == 0) & decided, (labels == 1) & ~decided
    texts = false_positive.T.astype(int) @ false_negative.astype(int)
    parts = [
        (name, np.array(names), row, total)
        for name, row, total in zip(names, texts, false_positive.sum(axis=0), strict=True)
    ]
    return stack_rows("predicted missed texts false_positives", parts)


def describe(columns: Columns) -> str:
    order = np.argsort(-columns["texts"], kind="stable")[:3]
    rows = zip(*(columns[key][order] for key in ("predicted", "missed", "texts")), strict=True)
    pairs = [f"{predicted} instead of {missed} ({n:,})" for predicted, missed, n in rows if n > 0]
    if not pairs:
        return "No text has both a false positive and a false negative."
    return f"Most frequent: {'; '.join(pairs)}."


def draw(columns: Columns) -> style.Figure:
    names = list(dict.fromkeys(columns["predicted"].tolist()))
    texts = columns["texts"].reshape(len(names), len(names))
    totals = columns["false_positives"].reshape(texts.shape)[:, 0]
    short_names = style.fit_labels(names)
    cell = float(np.clip(5.4 / len(names), 0.265, 0.8))
    side, largest = cell * len(names), max(int(texts.max()), 1)
    longest = max(map(style.text_width, short_names))
    left, bottom, top, right = longest + 0.85, longest + 0.4, 0.1, 0.1
    width, height = max(left + side + right, 5.0), bottom + side + top
    figure = style.Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    axes.imshow(texts, cmap="Blues", norm=PowerNorm(0.5, 0, largest))
    for predicted, missed in np.argwhere(texts > 0):
        count = texts[predicted, missed]
        ink, size = "white" if count > 0.4 * largest else style.INK, 9 if cell > 0.4 else 6.5
        axes.text(missed, predicted, f"{count}", ha="center", va="center", color=ink, fontsize=size)
    rows = [f"{name}  ({count:,})" for name, count in zip(short_names, totals, strict=True)]
    axes.set_xticks(range(len(names)), short_names, rotation=90)
    axes.set_yticks(range(len(names)), rows)
    figure.supxlabel("missed", fontsize=9, x=(left + side / 2) / width, y=0.08 / height)
    figure.supylabel(
        "predicted wrongly (texts)", fontsize=9, y=(bottom + side / 2) / height, x=0.01
    )
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
