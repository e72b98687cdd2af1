"""`jaxclf.fit` and the estimator of scikit-learn, with a tiny encoder."""

import gc
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import jaxclf
from jaxclf.errors import ConfigError, DataError
from jaxclf.sklearn import TextClassifier

EXPERIMENT = "baseline"
NAMES = ("neutral", "stress")


@pytest.fixture(scope="module")
def rows(demo_rows):
    return demo_rows["train"][:120]


@pytest.fixture(scope="module")
def changes(tiny_encoder):
    return {
        "encoder.name": str(tiny_encoder),
        "data.max_length": 32,
        "train.epochs": 1,
        "data.label_descriptions": {},
    }


@pytest.fixture(scope="module")
def fitted(rows, changes):
    return jaxclf.fit(rows, EXPERIMENT, verbose=False, **changes)


def test_a_fitted_classifier_answers_reports_and_outlives_its_folder(fitted, rows, tmp_path):
    assert set(fitted.labels) == set(rows[0]["labels"])
    assert {"macro_f1", "intervals"} <= fitted.report["test"].keys()
    fitted.save(tmp_path / "model")
    texts = [row["text"] for row in rows[:5]]
    copy = jaxclf.load(tmp_path / "model")
    np.testing.assert_array_equal(copy.predict_proba(texts), fitted.predict_proba(texts))


def test_the_temporary_folder_lives_as_long_as_its_classifier(rows, changes, monkeypatch):
    monkeypatch.setattr("jaxclf.fitting.train", lambda experiment, run: None)

    class Model(jaxclf.Classifier):
        def __init__(self):
            pass

    folders = []
    monkeypatch.setattr("jaxclf.fitting.load", lambda run: folders.append(run) or Model())
    model = jaxclf.fit(rows, EXPERIMENT, verbose=False, **changes)
    (run,) = folders
    assert (run / "data.jsonl").is_file()
    del model
    gc.collect()
    assert not run.parent.exists()


def test_a_refused_fit_leaves_no_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match="did you mean"):
        jaxclf.fit([{"text": "a", "x": 1}], **{"train.epoch": 1})
    with pytest.raises(DataError, match="no such file"):
        jaxclf.fit("missing.csv", verbose=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_fit_resumes_in_its_folder_and_refuses_other_data(rows, changes, tmp_path):
    out = tmp_path / "run"
    digest = jaxclf.fit(rows, EXPERIMENT, out, verbose=False, **changes).digest
    config = json.loads((out / "config.json").read_text())
    assert Path(config["data"]["train"]) == out / "data.jsonl"
    assert jaxclf.fit(rows, EXPERIMENT, out, verbose=False, **changes).digest == digest
    with pytest.raises(ConfigError, match="other data"):
        jaxclf.fit(rows[:60], EXPERIMENT, out, verbose=False, **changes)
    assert jaxclf.load(out).digest == digest


@pytest.mark.slow
def test_fit_works_in_a_thread_and_from_a_file(rows, changes, tmp_path):
    file, models = tmp_path / "mine.json", []
    file.write_text(json.dumps(rows))
    call = threading.Thread(
        target=lambda: models.append(jaxclf.fit(str(file), EXPERIMENT, verbose=False, **changes))
    )
    call.start()
    call.join()
    assert models[0].predict("a text") is not None


def test_the_parameters_of_the_estimator_are_those_of_the_experiment():
    estimator = TextClassifier("fast", **{"train.epochs": 2, "data.labels": NAMES})
    assert estimator.get_params() == {
        "experiment": "fast",
        "train.epochs": 2,
        "data.labels": NAMES,
    }
    copy = clone(estimator).set_params(**{"optim.lr": 1e-4, "experiment": "baseline"})
    assert copy.get_params()["optim.lr"] == 1e-4
    assert copy.experiment == "baseline"
    assert "optim.lr" not in estimator.get_params()
    assert "train.epochs=2" in repr(estimator)
    with pytest.raises(NotFittedError):
        estimator.predict(["a text"])
    for y in (["joy", "fear"], [["joy"], []], np.array([0, 1])):
        with pytest.raises(DataError, match="MultiLabelBinarizer"):
            estimator.fit(["a", "b"], y)


@pytest.mark.slow
def test_the_estimator_works_with_the_tools_of_scikit_learn(rows, changes):
    texts = np.array([row["text"] for row in rows])
    y = np.array([[row["labels"][name] for name in NAMES] for row in rows])
    estimator = TextClassifier(EXPERIMENT, **changes)
    probs = cross_val_predict(estimator, texts, y, cv=2, method="predict_proba")
    assert probs.shape == y.shape
    assert ((probs > 0) & (probs < 1)).all()
    pipeline = make_pipeline(FunctionTransformer(np.char.lower), estimator)
    grid = {"textclassifier__optim.lr": [1e-6, 1e-3]}
    search = GridSearchCV(pipeline, grid, scoring="f1_macro", cv=2).fit(texts, y)
    assert search.best_params_["textclassifier__optim.lr"] in grid["textclassifier__optim.lr"]
    best = search.best_estimator_[-1]
    assert best.classifier_.labels == ("0", "1")
    np.testing.assert_array_equal(search.predict(texts[:4]), best.predict(np.char.lower(texts[:4])))
