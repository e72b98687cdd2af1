"""The pictures of a run on its page: what each shows, how it is read, and its files in plots/."""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxclf.decisions.thresholds import decide
from jaxclf.reports.figures import curves
from jaxclf.reports.figures.captions import FINDINGS
from jaxclf.reports.figures.curves import Columns, save_columns
from jaxclf.reports.sections import box, escape
from jaxclf.types import Predictions

MOST_LABELS = 40  # in pictures with a panel or a row per label: those with most positives
SCALE = 1.6  # pixels of a picture's file for each on the page


class Picture(NamedTuple):
    title: str
    content: str  # what one would see: the alternative text begins with it
    reading: str  # how to read it


PICTURES = {
    "precision_recall": Picture(
        "Precision and recall",
        "A panel per label with the curve of precision against recall on test.",
        "The further a curve keeps to the upper right, the better; a threshold chooses one point "
        "on it, and a label that hardly leaves its dashed line is hardly told from guessing.",
    ),
    "roc": Picture(
        "ROC",
        "A panel per label with the curve of true against false positive rate on test.",
        "The further a curve bends to the upper left, the better positives are ranked above "
        "negatives; of a rare label it looks kinder than precision and recall do.",
    ),
    "reliability": Picture(
        "Reliability",
        "Frequency of the labels against their probability on test, and below it how many "
        "probabilities lie in each bin.",
        "On the diagonal a probability of 0.7 comes true seven times in ten; above it the model "
        "is too timid, below it too sure. A label's bin with fewer than ten texts is not drawn.",
    ),
    "threshold_curves": Picture(
        "Thresholds",
        "A panel per label with F1, precision and recall on val against the threshold.",
        "A broad hill of F1 around the chosen point means that the threshold hardly matters, a "
        "narrow peak that it may be chance; each panel has its own horizontal scale.",
    ),
    "score_histograms": Picture(
        "Probabilities of positives and negatives",
        "A panel per label with histograms of the probabilities on test, counts on a logarithmic "
        "scale.",
        "Blue right of the dashed line is found, grey right of it is given wrongly, blue left of "
        "it is missed; each panel has its own horizontal scale.",
    ),
    "error_pairs": Picture(
        "Errors that come together",
        "A table of labels given wrongly in rows and labels missed in columns, on test.",
        "A cell counts the texts in which the row's label was given wrongly while the column's was "
        "missed, as where one is taken for the other; in brackets, how often a label was given "
        "wrongly at all.",
    ),
    "training": Picture(
        "Training",
        "Four lines over batches: training loss, learning rate, and after each epoch, on val, the "
        "score that chooses the epoch and the log loss.",
        "A log loss on val that rises while the training loss falls is overfitting; a score that "
        "still rises at the end wants more epochs.",
    ),
    "length_errors": Picture(
        "Length",
        "The share of test texts with a wrong label, by their length in tokens, with 95 % "
        "intervals.",
        "Where the vertical lines of two lengths do not overlap, the difference is hardly chance.",
    ),
}


def pictures(
    out: Path,
    found: dict[str, Predictions],
    cuts: np.ndarray,
    names: tuple[str, ...],
    lengths: np.ndarray | None,
) -> str:
    """All pictures as HTML; their files go to plots/ in the folder `out`, whose metrics.jsonl tells
    of the training.

    cuts: the thresholds. lengths: tokens of each test text, None where not known.
    """
    order = np.argsort(-np.nansum(found["test"].labels, axis=0), kind="stable")
    shown = np.sort(order[:MOST_LABELS])
    columns = _columns(out, found, cuts, names, shown, lengths)
    parts = [_picture(out / "plots", name, columns[name]) for name in PICTURES]
    if len(shown) < len(names):
        parts.insert(
            0,
            f"<p>Where each of the {len(names)} labels would have a panel or a row, the "
            f"{MOST_LABELS} with most positives on test are shown.</p>",
        )
    if strange := _in_other_letters(names[index] for index in shown):
        parts.insert(0, f"<p>The pictures' font lacks letters of some labels: {strange}.</p>")
    return "\n".join(parts)


def _columns(
    out: Path,
    found: dict[str, Predictions],
    cuts: np.ndarray,
    names: tuple[str, ...],
    shown: np.ndarray,
    lengths: np.ndarray | None,
) -> dict[str, Columns | str]:
    """What each picture shows, or why there is none."""
    test, decided = found["test"], decide(found["test"].probs, cuts)
    some = cuts[shown], tuple(names[index] for index in shown)
    on_test, on_val = (
        (part.labels[:, shown], part.probs[:, shown]) for part in (test, found["val"])
    )
    log = out / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    drawn = curves.reliability(test.labels, test.probs, names)
    kept = (drawn["all"] == 1) | np.isin(drawn["label"], some[1])
    training = curves.training([json.loads(line) for line in lines])
    return {
        "precision_recall": curves.precision_recall(*on_test, *some),
        "roc": curves.roc(*on_test, *some),
        "reliability": {name: values[kept] for name, values in drawn.items()},
        "threshold_curves": curves.threshold_curves(*on_val, *some),
        "score_histograms": curves.score_histograms(*on_test, *some),
        "error_pairs": curves.error_pairs(test.labels[:, shown], decided[:, shown], some[1]),
        "training": training if len(training["batch"]) else "the folder has no metrics.jsonl",
        "length_errors": "the lengths of the texts were not given"
        if lengths is None
        else curves.length_errors(lengths, test.labels, decided),
    }


def _in_other_letters(names: Iterable[str]) -> str:
    """What pictures call labels that their font cannot write."""
    from jaxclf.reports.figures.style import fit_labels, writable

    listed = list(names)
    places = zip(fit_labels(listed), listed, strict=True)
    return ", ".join(f"{place} is {escape(name)}" for place, name in places if not writable(name))


def _picture(folder: Path, name: str, columns: Columns | str) -> str:
    """Draw one picture into the folder, and give it as part of the page."""
    from jaxclf.reports.figures import plots, style  # here alone, for matplotlib takes a second

    picture, files = PICTURES[name], [folder / f"{name}.{ending}" for ending in ("csv", "png")]
    if isinstance(columns, str):
        for file in files:
            file.unlink(missing_ok=True)
        return f"<figure><h3>{picture.title}</h3><p>Left out: {columns}.</p></figure>"
    folder.mkdir(exist_ok=True)
    save_columns(files[0], columns)
    image = style.png(plots.PICTURES[name], columns)
    write_whole(files[1], image)
    wide, high = (int.from_bytes(image[at : at + 4]) / SCALE for at in (16, 20))
    finding = escape(FINDINGS[name](columns))
    data = base64.b64encode(image).decode()
    shown = (
        f'<img src="data:image/png;base64,{data}" width="{wide:.0f}" height="{high:.0f}" '
        f'alt="{picture.content} {finding}">'
    )
    return (
        f"<figure><h3>{picture.title}</h3>{box(picture.title, shown)}<figcaption>"
        f"<strong>{finding}</strong> {picture.reading} Data: <code>plots/{name}.csv</code>"
        "</figcaption></figure>"
    )


def write_whole(path: Path, content: bytes) -> Path:
    """Write whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    return part.replace(path)
