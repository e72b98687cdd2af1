"""The texts to label next, as tasks whose answers are read back."""

import json

import numpy as np
import pytest
from tiny_models import LABELS

from jaxclf import next as command
from jaxclf.decisions.label_next import confidence, informativeness
from jaxclf.decisions.predictions import save_predictions
from jaxclf.errors import ConfigError, DataError
from jaxclf.inference import score_file
from jaxclf.inference.label_next import choose_next, read_labeled
from jaxclf.text.annotation_tasks import label_config
from jaxclf.text.reader import read
from jaxclf.types import Predictions

POSITIVES = np.array([20.0, 5, 1])


@pytest.fixture(scope="module")
def texts(demo_rows):
    return [row["text"] for row in demo_rows["train"]][:80]


@pytest.fixture
def pool(texts, tmp_path):
    """Rows with a further column; one without a text, and two texts twice."""
    path = tmp_path / "pool.jsonl"
    rows = [{"text": text, "n": index} for index, text in enumerate([*texts, "", *texts[:2]])]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path, texts):
    """A folder with the predictions of a validation split."""
    labels = np.array([[1, 0, 0], [1, 1, 0], [np.nan, 0, 1]], np.float32)
    predictions = Predictions(
        np.array(["a", "b", "c"]), np.full((3, 3), 0.5, np.float32), labels, "val"
    )
    save_predictions(tmp_path / "run" / "predictions" / "val.npz", predictions)
    return tmp_path / "run"


@pytest.fixture
def labeled(texts, tmp_path):
    path = tmp_path / "labeled.jsonl"
    rows = [{"text": text, "labels": dict.fromkeys(LABELS, 1)} for text in texts[:10]]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_chosen_texts_are_new_and_distinct(classifier, run, pool, labeled, texts):
    known = read_labeled(classifier, run, labeled)
    assert known.positives.tolist() == [10, 10, 10]
    chosen = choose_next(classifier, pool, 12, known)
    new = {candidate.row.text for candidate in chosen}
    assert len(new) == len(chosen) == 12
    assert new <= set(texts[10:])
    probs = classifier.predict_proba(texts[10:])
    scores = informativeness(probs, classifier.thresholds, known.positives)
    best = np.argsort(-scores)[:36]
    assert new <= {texts[10 + index] for index in best}
    assert chosen[0].row.text == texts[10 + best[0]]
    assert len(choose_next(classifier, pool, 99, known)) == 70


def test_a_pool_is_read_in_chunks(classifier, run, pool, monkeypatch):
    known = read_labeled(classifier, run, None)
    assert known.positives.tolist() == [2, 1, 1]
    expected = choose_next(classifier, pool, 10, known)
    monkeypatch.setattr(score_file, "CHUNK_ROWS", 7)
    chosen = choose_next(classifier, pool, 10, known)
    assert [each.row.line for each in chosen] == [each.row.line for each in expected]


def answer(texts):
    return {
        text: [LABELS[index % 3], *[LABELS[2]] * (index % 3 == 0)]
        for index, text in enumerate(texts)
    }


def export_label_studio(content, answers):
    records = json.loads(content)
    for number, record in enumerate(records):
        value = {"choices": answers[record["data"]["text"]]}
        result = {"from_name": "labels", "to_name": "text", "type": "choices", "value": value}
        record["id"] = number
        record["annotations"] = [{"id": number, "result": [result], "was_cancelled": False}]
    return json.dumps(records)


def export_doccano(content, answers):
    records = [json.loads(line) for line in content.splitlines()]
    return "\n".join(
        json.dumps({**record, "id": number, "label": answers[record["text"]], "Comments": []})
        for number, record in enumerate(records)
    )


EXPORTS = {"label-studio": export_label_studio, "doccano": export_doccano}


@pytest.mark.parametrize("tool", EXPORTS)
def test_answers_come_back(classifier, run, pool, tmp_path, monkeypatch, capsys, tool):
    monkeypatch.setattr("jaxclf.inference.load.load", lambda _: classifier)
    out = tmp_path / "tasks.json"
    words = ["--run", str(run), "--pool", str(pool), "-n", "9", "--to", tool, "--out", str(out)]
    assert command.main(words) == 0
    printed = capsys.readouterr()
    assert "9 texts to label" in printed.err
    assert (label_config(LABELS) in printed.out) == (tool == "label-studio")
    content = out.read_text(encoding="utf-8")
    if tool == "label-studio":
        tasks = json.loads(content)
        texts = [task["data"]["text"] for task in tasks]
        predictions = [task["predictions"][0] for task in tasks]
        labels = [
            [name for result in prediction["result"] for name in result["value"]["choices"]]
            for prediction in predictions
        ]
        scores = [prediction["score"] for prediction in predictions]
        assert all(isinstance(task["data"]["n"], int) for task in tasks)
    else:
        tasks = [json.loads(line) for line in content.splitlines()]
        texts, labels, scores = (
            [task[key] for task in tasks] for key in ("text", "label", "score")
        )
    assert labels == classifier.predict(texts)
    expected = confidence(classifier.predict_proba(texts), classifier.thresholds)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    answers = answer(texts)
    export = tmp_path / "export.json"
    export.write_text(EXPORTS[tool](content, answers), encoding="utf-8")
    examples = read(export, LABELS)
    read_back = {
        text: [name for name, value in zip(LABELS, row, strict=True) if value]
        for text, row in zip(examples.texts, examples.labels, strict=True)
    }
    assert {text: sorted(names) for text, names in read_back.items()} == {
        text: sorted(names) for text, names in answers.items()
    }


def test_what_cannot_be_chosen_is_refused(classifier, run, pool, tmp_path, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="--labeled"):
        read_labeled(classifier, tmp_path, None)
    everything = tmp_path / "all.jsonl"
    lines = [json.loads(line) for line in pool.read_text(encoding="utf-8").splitlines()]
    rows = [{"text": line["text"], "labels": ["joy"]} for line in lines[:80]]
    everything.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match="labeled already"):
        choose_next(classifier, pool, 3, read_labeled(classifier, run, everything))
    monkeypatch.setattr("jaxclf.inference.load.load", lambda _: classifier)
    for words in (["-n", "0", "--out", "a"], ["--out", str(pool)]):
        assert command.main(["--run", str(run), "--pool", str(pool), *words]) == 2
    assert "is the pool" in capsys.readouterr().err
