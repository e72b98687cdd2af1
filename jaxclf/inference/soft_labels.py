"""A classifier's probabilities for training rows, in a file that a student learns from."""

import json
from pathlib import Path

import numpy as np

from jaxclf.decisions.predictions import load_predictions, save_predictions, with_unknown
from jaxclf.files.json_file import write_json
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.score_file import WINDOW_ROWS, fingerprint, progress
from jaxclf.text import splits
from jaxclf.types import Examples, Predictions


def write_soft_labels(classifier: Classifier, examples: Examples, path: Path) -> None:
    """Write the file, and beside it whose answers to what they are; where both are there already,
    nothing is done."""
    record = path.with_suffix(".json")
    work = {"model": fingerprint(classifier), "data": splits.fingerprint(examples)}
    if path.is_file() and record.is_file():
        done = json.loads(record.read_text(encoding="utf-8"))
        if done == work and load_predictions(path).ids.tolist() == list(examples.ids):
            return
    record.unlink(missing_ok=True)
    count = len(examples.texts)
    probs = np.empty((count, len(classifier.labels)), np.float32)
    with progress(count, 0) as bar:
        bar.set_description("teacher")
        for first in range(0, count, WINDOW_ROWS):
            texts = examples.texts[first : first + WINDOW_ROWS]
            probs[first : first + len(texts)] = classifier.predict_proba(texts)
            bar.update(len(texts))
    labels = with_unknown(examples.labels, examples.label_mask)
    save_predictions(path, Predictions(np.array(examples.ids), probs, labels, "train"))
    write_json(record, work)
