"""Label issues: annotations that an out-of-sample model confidently disagrees with.

Confident learning (Northcutt et al. 2021, arXiv 1911.00068), for each label on its own. The model
is confident of a value if its probability exceeds the mean over the examples annotated with it.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxclf.decisions.arrays import Labels, Probs
from jaxclf.files.atomic import write_text
from jaxclf.files.spreadsheet import escape_name
from jaxclf.types import Predictions

MARGIN = 1e-6  # above the mean: equal float32 probabilities may exceed their own mean by rounding


Indices = Int[np.ndarray, " issues"]


class LabelNoise(NamedTuple):
    """Of one label: annotations, those in doubt, and the share estimated wrong (NaN where the model
    is confident of none)."""

    positives: int
    negatives: int
    suspect_positives: int
    suspect_negatives: int
    share_of_positives: float
    share_of_negatives: float


def confident_labels(labels: Labels, probs: Probs) -> Float[np.ndarray, "examples classes"]:
    """The value, 0 or 1, that the model is confident of; NaN if of none, and for a label without
    known positives or known negatives."""
    p = probs.astype(np.float64)
    is_confident = []
    for value, q in ((0, 1 - p), (1, p)):
        annotated = labels == value
        total, count = np.where(annotated, q, 0).sum(axis=0), annotated.sum(axis=0)
        mean = np.divide(total, count, out=np.full(len(count), np.inf), where=count > 0)
        is_confident.append(q > mean + MARGIN)
    no, yes = is_confident
    values = np.where(yes & (~no | (p > 0.5)), 1.0, np.where(no, 0.0, np.nan))
    values[:, ~((labels == 0).any(axis=0) & (labels == 1).any(axis=0))] = np.nan
    return values


def label_issues(labels: Labels, probs: Probs) -> tuple[Indices, Indices]:
    """(rows, columns) of known labels that differ from the value the model is confident of, the
    least probable first.

    probs: of examples that the model was not trained on.
    """
    confident = confident_labels(labels, probs)
    is_issue = ~np.isnan(labels) & ~np.isnan(confident) & (confident != labels)
    rows, columns = np.nonzero(is_issue)
    p = probs[rows, columns].astype(np.float64)
    likelihood = np.where(labels[rows, columns] == 1, p, 1 - p)
    order = np.argsort(likelihood, kind="stable")
    return rows[order], columns[order]


def label_noise(labels: Labels, probs: Probs) -> list[LabelNoise]:
    """The number of label issues of every label, and the share of wrong annotations they imply."""
    noise = []
    for y, confident in zip(labels.T, confident_labels(labels, probs).T, strict=True):
        share, wrong, count = {}, {}, {}
        for value in (0, 1):
            compared = (y == value) & ~np.isnan(confident)
            count[value] = int((y == value).sum())
            wrong[value] = int((compared & (confident != value)).sum())
            share[value] = wrong[value] / compared.sum() if compared.any() else float("nan")
        noise.append(LabelNoise(count[1], count[0], wrong[1], wrong[0], share[1], share[0]))
    return noise


def write_label_issues(
    path: Path,
    predictions: Predictions,
    names: tuple[str, ...],
    texts: Mapping[str, str] | None = None,
) -> int:
    """Write a CSV for review: id, label, given_label, suggested_label, probability.

    texts: id -> text, for one more column. Returns the number of rows.
    """
    rows, columns = label_issues(predictions.labels, predictions.probs)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ("id", "label", "given_label", "suggested_label", "probability")
    writer.writerow((*header, *(() if texts is None else ("text",))))
    for row, column in zip(rows, columns, strict=True):
        example_id, annotated = str(predictions.ids[row]), int(predictions.labels[row, column])
        probability = f"{predictions.probs[row, column]:.4f}"
        text = () if texts is None else (texts[example_id],)
        name = escape_name(names[column])
        writer.writerow((example_id, name, annotated, 1 - annotated, probability, *text))
    write_text(path, file.getvalue())
    return len(rows)
