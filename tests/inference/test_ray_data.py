"""A Ray worker scores a chunk as the classifier does; a missing Ray is reported."""

import sys
import types

import numpy as np
import pyarrow
import pytest
from tiny_models import LABELS

from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.ray_data import Worker, score_parquet, score_table


@pytest.fixture(scope="module")
def worker(run_folder):
    return Worker(str(run_folder))


@pytest.fixture(scope="module")
def table(demo_rows):
    rows = demo_rows["val"][:40]
    return pyarrow.table({key: [row[key] for row in rows] for key in ("text", "id")})


def test_a_worker_returns_the_classifiers_predictions(worker, table):
    classifier, scored = worker.classifier, worker(table)
    assert scored.column_names == ["id", "labels", *[f"probability_{name}" for name in LABELS]]
    assert scored.column("id").equals(table.column("id"))
    texts = table.column("text").to_pylist()
    probs = np.stack([scored.column(f"probability_{name}").to_numpy() for name in LABELS], axis=1)
    assert probs.dtype == np.float32
    np.testing.assert_array_equal(probs, classifier.predict_proba(texts))
    labels = scored.column("labels").to_pylist()
    assert labels == classifier.predict(texts)
    assert len(set(map(len, labels))) > 1


def test_every_chunk_has_the_same_schema(worker, table):
    """Also with numbers as ids, and if no label is predicted."""
    numbers = pyarrow.table({"id": [7, 8], "text": ["one", "two"]})
    assert score_table(worker.classifier, numbers).column("id").to_pylist() == [7, 8]
    scored = worker(table)
    unlabeled = scored.column("labels").to_pylist().index([])
    assert worker(table.slice(unlabeled, 1)).schema == scored.schema


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_row_without_a_text_is_named_by_its_id(worker, text):
    rows = pyarrow.table({"id": ["a", "b"], "text": ["one", text]})
    with pytest.raises(DataError, match="id 'b'"):
        worker(rows)


@pytest.mark.parametrize("name", ["id", "text"])
def test_a_missing_column_is_named(worker, table, name):
    with pytest.raises(DataError, match=f"'{name}'"):
        worker(table.drop_columns([name]))


def test_a_missing_ray_is_reported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxclf\[ray\]'"):
        score_parquet(tmp_path, "in", "out", workers=2)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_an_existing_target_is_refused(monkeypatch, tmp_path, form):
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    with pytest.raises(ConfigError, match="exists"):
        score_parquet(tmp_path, "in", form.format(tmp_path), workers=2)
    with pytest.raises(AttributeError):  # a new target is handed to Ray, here an empty module
        score_parquet(tmp_path, "in", form.format(tmp_path / "new"), workers=2)
