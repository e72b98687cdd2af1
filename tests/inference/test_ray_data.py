"""What a Ray worker does with a window, and what is said where Ray is missing."""

import sys
import types

import numpy as np
import pyarrow
import pytest
from test_score_file import LABELS, run  # noqa: F401

from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.ray_data import Worker, score_parquet, score_table


@pytest.fixture(scope="module")
def worker(run):  # noqa: F811
    return Worker(str(run[0]))


@pytest.fixture(scope="module")
def table(demo_rows):
    rows = demo_rows["val"][:40]
    columns = {key: [row[key] for row in rows] for key in ("text", "id")}
    return pyarrow.table(columns)


def test_a_worker_says_what_the_classifier_says(worker, table):
    classifier, scored = worker.classifier, worker(table)
    assert scored.column_names == ["id", "labels", *[f"probability_{name}" for name in LABELS]]
    assert scored.column("id").equals(table.column("id"))
    texts = table.column("text").to_pylist()
    probs = np.stack([scored.column(f"probability_{name}").to_numpy() for name in LABELS], axis=1)
    assert probs.dtype == np.float32
    np.testing.assert_array_equal(probs, classifier.predict_proba(texts))
    given = scored.column("labels").to_pylist()
    assert given == classifier.predict(texts)
    assert len(set(map(len, given))) > 1


def test_every_window_has_the_same_columns(worker, table):
    """Of numbers for ids as of words, and where no text is given a label."""
    classifier = worker.classifier
    numbers = pyarrow.table({"id": [7, 8], "text": ["one", "two"]})
    assert score_table(classifier, numbers).column("id").to_pylist() == [7, 8]
    scored = worker(table)
    none = scored.column("labels").to_pylist().index([])
    assert worker(table.slice(none, 1)).schema == scored.schema


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_row_without_a_text_is_named_by_its_id(worker, text):
    rows = pyarrow.table({"id": ["a", "b"], "text": ["one", text]})
    with pytest.raises(DataError, match="id 'b': no text; remove the row"):
        worker(rows)


@pytest.mark.parametrize("name", ["id", "text"])
def test_a_column_that_is_missing_is_named(worker, table, name):
    with pytest.raises(DataError, match=f"no column '{name}'"):
        worker(table.drop_columns([name]))


def test_ray_is_asked_for_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxclf\[ray\]'"):
        score_parquet(tmp_path, "in", "out", workers=2)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_target_that_exists_is_not_added_to(monkeypatch, tmp_path, form):
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    with pytest.raises(ConfigError, match="exists; give another target"):
        score_parquet(tmp_path, "in", form.format(tmp_path), workers=2)
    with pytest.raises(AttributeError):  # goes on to Ray
        score_parquet(tmp_path, "in", form.format(tmp_path / "new"), workers=2)
