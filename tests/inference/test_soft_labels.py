"""Soft labels are a classifier's own probabilities, computed once."""

import json

import jax
import numpy as np
import pytest
from tiny_models import LABELS

from jaxclf.decisions.predictions import load_predictions
from jaxclf.inference import soft_labels
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.soft_labels import write_soft_labels
from jaxclf.text.reader import read


@pytest.fixture
def examples(demo_rows, tmp_path):
    rows = demo_rows["val"][:50]
    lines = [
        {"id": f"r{index}", "text": row["text"], "labels": [LABELS[index % 3]]}
        for index, row in enumerate(rows)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return read(path, LABELS)


@pytest.fixture
def chunk_sizes(monkeypatch):
    """The number of texts in each call of the classifier."""
    sizes, real = [], Classifier.predict_proba

    def predict_proba(classifier, texts):
        sizes.append(len(texts))
        return real(classifier, texts)

    monkeypatch.setattr(Classifier, "predict_proba", predict_proba)
    monkeypatch.setattr(soft_labels, "CHUNK_ROWS", 20)
    return sizes


def test_the_file_holds_the_classifiers_probabilities(classifier, examples, chunk_sizes, tmp_path):
    write_soft_labels(classifier, examples, tmp_path / "teacher.npz")
    assert chunk_sizes == [20, 20, 10]
    predictions = load_predictions(tmp_path / "teacher.npz")
    assert predictions.ids.tolist() == list(examples.ids)
    assert predictions.split == "train"
    np.testing.assert_array_equal(predictions.labels, examples.labels)
    probs = classifier.predict_proba(examples.texts)  # in other batches
    np.testing.assert_allclose(predictions.probs, probs, rtol=0, atol=1e-6)


def test_the_file_is_kept_until_model_or_rows_change(
    classifier, examples, chunk_sizes, tmp_path, monkeypatch
):
    path = tmp_path / "teacher.npz"

    def scored_rows(examples):
        chunk_sizes.clear()
        write_soft_labels(classifier, examples, path)
        return sum(chunk_sizes)

    assert scored_rows(examples) == 50
    first = load_predictions(path).probs
    assert scored_rows(examples) == 0
    (group,) = classifier.groups
    halved = jax.tree.map(lambda leaf: leaf / 2, group.params)
    monkeypatch.setattr(classifier, "groups", [group._replace(params=halved)])
    assert scored_rows(examples) == 50
    assert not np.array_equal(load_predictions(path).probs, first)
    assert scored_rows(examples._replace(ids=examples.ids[::-1])) == 50
    path.with_suffix(".json").unlink()  # as if stopped before the record was written
    assert scored_rows(examples) == 50
