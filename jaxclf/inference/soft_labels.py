"""Soft labels: a teacher's probabilities for training rows, which a student learns from."""

from pathlib import Path

import numpy as np

from jaxclf.decisions.predictions import load_predictions, save_predictions, with_unknown
from jaxclf.files.json_file import read_json, write_json
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.score_file import CHUNK_ROWS, fingerprint
from jaxclf.terminal import show_progress
from jaxclf.text import splits
from jaxclf.types import Examples, Predictions


def write_soft_labels(classifier: Classifier, examples: Examples, path: Path) -> None:
    """Write the classifier's probabilities to `path`, and fingerprints of model and data beside it.

    A file of the same model and data is kept.
    """
    record = path.with_suffix(".json")
    work = {"model": fingerprint(classifier), "data": splits.fingerprint(examples)}
    if path.is_file() and record.is_file():
        has_ids = load_predictions(path).ids.tolist() == list(examples.ids)
        if has_ids and read_json(record) == work:
            return
    record.unlink(missing_ok=True)
    count = len(examples.texts)
    probs = np.empty((count, len(classifier.labels)), np.float32)
    with show_progress("teacher", count, "texts") as advance:
        for start in range(0, count, CHUNK_ROWS):
            texts = examples.texts[start : start + CHUNK_ROWS]
            probs[start : start + len(texts)] = classifier.predict_proba(texts)
            advance(len(texts), "")
    labels = with_unknown(examples.labels, examples.label_mask)
    save_predictions(path, Predictions(np.array(examples.ids), probs, labels, "train"))
    write_json(record, work)
