"""Labels worth a second look: a model that did not learn them is confident of the other value.

Confident learning (Northcutt et al. 2021, arXiv 1911.00068), each label on its own. A model is
confident of a value where its probability is above the mean that examples given that value have.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxclf.decisions.arrays import Labels, Probs
from jaxclf.types import Predictions

CLEARLY = 1e-6  # above a mean: float32 probabilities that are all alike are above none


class Suspects(NamedTuple):
    """Given values to look at again, the least believed first."""

    rows: Int[np.ndarray, " suspects"]
    columns: Int[np.ndarray, " suspects"]


class LabelNoise(NamedTuple):
    """One label: how many given values are in doubt, and what share of all is estimated wrong (NaN
    where the model is confident of none)."""

    positives: int
    negatives: int
    suspect_positives: int
    suspect_negatives: int
    share_of_positives: float
    share_of_negatives: float


def confident(labels: Labels, probs: Probs) -> Float[np.ndarray, "examples classes"]:
    """The value, 0 or 1, that each probability is confident of; NaN where of none, and for labels
    without a known positive or a known negative."""
    p = probs.astype(np.float64)
    sure_of = []
    for value, q in ((0, 1 - p), (1, p)):
        given = labels == value
        total, count = np.where(given, q, 0).sum(axis=0), given.sum(axis=0)
        mean = np.divide(total, count, out=np.full(len(count), np.inf), where=count > 0)
        sure_of.append(q > mean + CLEARLY)
    no, yes = sure_of
    found = np.where(yes & (~no | (p > 0.5)), 1.0, np.where(no, 0.0, np.nan))
    nothing = ~((labels == 0).any(axis=0) & (labels == 1).any(axis=0))
    found[:, nothing] = np.nan
    return found


def label_issues(labels: Labels, probs: Probs) -> Suspects:
    """Where a known label is not the value that the model is confident of.

    probs: of examples that the model did not learn from.
    """
    sure = confident(labels, probs)
    rows, columns = np.nonzero(~np.isnan(labels) & ~np.isnan(sure) & (sure != labels))
    p = probs[rows, columns].astype(np.float64)
    belief = np.where(labels[rows, columns] == 1, p, 1 - p)
    order = np.argsort(belief, kind="stable")
    return Suspects(rows[order], columns[order])


def label_noise(labels: Labels, probs: Probs) -> list[LabelNoise]:
    """Counts of suspects for each label, and the shares of wrong values that they imply."""
    sure, found = confident(labels, probs), []
    for given, believed in zip(labels.T, sure.T, strict=True):
        share, wrong, count = {}, {}, {}
        for value in (0, 1):
            here = (given == value) & ~np.isnan(believed)
            count[value] = int((given == value).sum())
            wrong[value] = int((here & (believed != value)).sum())
            share[value] = wrong[value] / here.sum() if here.any() else float("nan")
        found.append(LabelNoise(count[1], count[0], wrong[1], wrong[0], share[1], share[0]))
    return found


def write_suspects(
    path: Path,
    predictions: Predictions,
    names: tuple[str, ...],
    texts: Mapping[str, str] | None = None,
) -> int:
    """A CSV for review: id, label, given, suggested, probability, and the text where texts (id ->
    text) are given. Returns how many rows it has."""
    found = label_issues(predictions.labels, predictions.probs)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        last = () if texts is None else ("text",)
        writer.writerow(("id", "label", "given", "suggested", "probability", *last))
        for row, column in zip(*found, strict=True):
            name, given = str(predictions.ids[row]), int(predictions.labels[row, column])
            last = () if texts is None else (texts[name],)
            probability = f"{predictions.probs[row, column]:.4f}"
            writer.writerow((name, names[column], given, 1 - given, probability, *last))
    part.replace(path)
    return len(found.rows)
