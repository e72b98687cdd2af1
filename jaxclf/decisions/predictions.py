"""Predictions as files: npz with ids, probs, labels and split."""

import io
import zipfile
from pathlib import Path

import numpy as np

from jaxclf.errors import DataError
from jaxclf.files.atomic import write_bytes
from jaxclf.types import Predictions

FIELDS = ("ids", "probs", "labels", "split")
HELD_OUT = "held_out"  # the split of the training rows that a run with folds did not train on


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write an npz file, whole or not at all."""
    file = io.BytesIO()
    np.savez(
        file,
        ids=np.asarray(predictions.ids, np.str_),
        probs=predictions.probs,
        labels=predictions.labels,
        split=np.str_(predictions.split),
    )
    write_bytes(path, file.getvalue())


def load_predictions(path: Path) -> Predictions:
    """Read an npz file. Raises DataError if it is missing or not a file of predictions."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; is this the folder of a finished run?")
    error = DataError(f"{path}: not a file of predictions (npz with {', '.join(FIELDS)})")
    try:
        with path.open("rb") as raw, np.lib.npyio.NpzFile(raw, allow_pickle=False) as file:
            ids, probs, labels, split = (file[name] for name in FIELDS)
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile):
        raise error from None
    if probs.ndim != 2 or labels.shape != probs.shape or ids.shape != probs.shape[:1]:
        raise error
    return Predictions(ids, probs, labels, str(split))


def with_unknown(labels: np.ndarray, label_mask: np.ndarray) -> np.ndarray:
    """The labels of Predictions: 1 from 0.5 on, else 0; NaN where `label_mask` is 0."""
    return np.where(label_mask > 0, labels >= 0.5, np.nan).astype(np.float32)


def merge_predictions(parts: list[Predictions]) -> Predictions:
    """Concatenate the parts of one split."""
    ids, probs, labels, (split, *_) = zip(*parts, strict=True)
    return Predictions(np.concatenate(ids), np.concatenate(probs), np.concatenate(labels), split)
