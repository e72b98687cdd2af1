"""Data of a program is written so that the reader reads the same texts and labels."""

import datetime
import json

import numpy as np
import pytest
import scipy.sparse

from jaxclf.errors import ConfigError, DataError
from jaxclf.text.in_memory import write_data
from jaxclf.text.reader import read

TEXTS = ["first text", "second", "third"]
LABELS = [["joy"], [], ["fear", "joy"]]
MATRIX = np.array([[0, 1], [0, 0], [1, 1]])  # of fear, joy
NAMES = ("fear", "joy")
ROWS = [
    {"text": text, "fear": int(row[0]), "joy": int(row[1])}
    for text, row in zip(TEXTS, MATRIX, strict=True)
]


class PandasFrame:
    """A DataFrame of pandas as far as it is used: its rows hold numpy's numbers."""

    def __init__(self, **values):
        self.values, self.columns = values, list(values)

    def __getitem__(self, name):
        return self.values[name]

    def to_dict(self, orient):
        assert orient == "records"
        rows = zip(*self.values.values(), strict=True)
        return [dict(zip(self.columns, row, strict=True)) for row in rows]


class PolarsFrame(PandasFrame):
    def to_dicts(self):
        return self.to_dict("records")


class ClassLabel:
    names = list(NAMES)  # noqa: RUF012


class Features:
    feature = ClassLabel()


class Dataset(list):
    """A `datasets.Dataset` whose labels are lists of class ids."""

    features = {"text": object(), "labels": Features()}  # noqa: RUF012


def columns(form):
    return form(text=TEXTS, fear=MATRIX[:, 0], joy=MATRIX[:, 1])


FORMS = {
    "rows": ROWS,
    "rows with objects": [
        {"text": row["text"], "labels": {name: row[name] for name in NAMES}} for row in ROWS
    ],
    "pandas": columns(PandasFrame),
    "polars": columns(PolarsFrame),
    "dataset": Dataset(
        {"text": text, "labels": np.flatnonzero(row).tolist()}
        for text, row in zip(TEXTS, MATRIX, strict=True)
    ),
    "texts and names": (TEXTS, LABELS),
    "texts and a matrix": (np.array(TEXTS), MATRIX),
    "texts and a sparse matrix": (TEXTS, scipy.sparse.csr_array(MATRIX)),
    "texts and a frame": (
        PandasFrame(text=TEXTS),
        PandasFrame(fear=MATRIX[:, 0], joy=MATRIX[:, 1]),
    ),
    "generator": (row for row in ROWS),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_data_is_the_same_data(name, tmp_path):
    path = write_data(tmp_path / "data.jsonl", FORMS[name], NAMES)
    examples = read(path, NAMES)
    assert list(examples.texts) == TEXTS
    np.testing.assert_array_equal(examples.labels, MATRIX)


def test_one_label_of_each_text_is_a_name(tmp_path):
    examples = read(write_data(tmp_path / "data.jsonl", (TEXTS, ["joy", "fear", "joy"])))
    assert examples.names == NAMES
    np.testing.assert_array_equal(examples.labels, [[0, 1], [1, 0], [0, 1]])


def test_values_that_json_lacks(tmp_path):
    row = {
        "text": "a\ud83d",
        "joy": np.float32("nan"),
        "fear": float("nan"),
        "date": datetime.date(2026, 1, 2),
        "list": (np.int64(1), {"a": np.bool_(True)}),
        7: None,
    }
    (line,) = write_data(tmp_path / "data.jsonl", [row]).read_text().splitlines()
    assert json.loads(line) == {
        "text": "a\ud83d",
        "joy": None,
        "fear": None,
        "date": "2026-01-02",
        "list": [1, {"a": True}],
        "7": None,
    }


def test_parts_of_data_name_their_split(tmp_path):
    parts = {"train": ROWS, "validation": columns(PandasFrame), "test": (TEXTS, LABELS)}
    lines = write_data(tmp_path / "data.jsonl", parts).read_text().splitlines()
    assert [json.loads(line)["split"] for line in lines] == [
        name for name in parts for _ in range(3)
    ]


def test_other_data_do_not_replace_those_of_a_run(tmp_path):
    path = write_data(tmp_path / "data.jsonl", ROWS)
    before = path.read_bytes()
    assert write_data(path, ROWS) == path
    with pytest.raises(ConfigError, match="other data"):
        write_data(path, ROWS[:2])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (3, "int"),
        (["a", "b", "c"], "row 0 is a str"),
        ((TEXTS, LABELS[:2]), "3 texts, but labels of 2"),
        ((TEXTS, np.zeros((3, 3))), "3 columns without names"),
    ],
)
def test_what_is_not_data_is_refused_with_a_reason(data, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        write_data(tmp_path / "data.jsonl", data, NAMES)
    assert not (tmp_path / "data.jsonl").exists()
