"""What a student learns from: a classifier's own probabilities, computed once."""

import json

import numpy as np
import pytest
from tiny_models import LABELS, make_model

import jaxclf
from jaxclf.decisions.predictions import load_predictions
from jaxclf.experiment.config import Spec
from jaxclf.inference import soft_labels
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.soft_labels import write_soft_labels
from jaxclf.text.reader import read


@pytest.fixture(scope="module")
def classifiers(tiny_encoder, tiny_config, tmp_path_factory):
    """Two whose weights alone differ."""
    folder = tmp_path_factory.mktemp("models")
    return [
        jaxclf.load(make_model(folder / str(seed), tiny_encoder, tiny_config, Spec("mean"), seed))
        for seed in range(2)
    ]


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
def scored(monkeypatch):
    """How many texts the classifier was asked for, call by call."""
    counts, ask = [], Classifier.predict_proba

    def counting(classifier, texts):
        counts.append(len(texts))
        return ask(classifier, texts)

    monkeypatch.setattr(Classifier, "predict_proba", counting)
    monkeypatch.setattr(soft_labels, "WINDOW_ROWS", 20)
    return counts


def test_the_file_holds_the_classifiers_own_answers(
    classifiers, examples, scored, tmp_path, capsys
):
    write_soft_labels(classifiers[0], examples, tmp_path / "teacher.npz")
    assert scored == [20, 20, 10]
    assert "50/50 texts" in capsys.readouterr().err
    found = load_predictions(tmp_path / "teacher.npz")
    assert found.ids.tolist() == list(examples.ids)
    assert found.split == "train"
    np.testing.assert_array_equal(found.labels, examples.labels)
    alone = classifiers[0].predict_proba(examples.texts)
    np.testing.assert_allclose(found.probs, alone, rtol=0, atol=1e-6)  # as in any company


def test_what_is_there_is_kept_until_model_or_rows_change(classifiers, examples, scored, tmp_path):
    path = tmp_path / "teacher.npz"
    write_soft_labels(classifiers[0], examples, path)
    first = load_predictions(path).probs
    scored.clear()
    write_soft_labels(classifiers[0], examples, path)
    assert not scored
    write_soft_labels(classifiers[1], examples, path)
    assert sum(scored) == 50
    assert not np.array_equal(load_predictions(path).probs, first)
    scored.clear()
    write_soft_labels(classifiers[1], examples._replace(ids=examples.ids[::-1]), path)
    assert sum(scored) == 50
    scored.clear()
    path.with_suffix(".json").unlink()  # stopped before the record was written
    write_soft_labels(classifiers[1], examples, path)
    assert sum(scored) == 50
