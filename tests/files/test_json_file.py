"""JSON files are strict, readable and replaced whole."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.files.json_file import write_json


def read(path):
    """JSON as any other program reads it: no NaN, no Infinity."""

    def refuse(name: str):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def null(value):
    """The value with None for NaN."""
    if isinstance(value, dict):
        return {key: null(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [null(inner) for inner in value]
    return None if value != value else value


@settings(deadline=None, max_examples=60)
@given(values=VALUES)
def test_what_is_written_is_strict_json_of_the_same_value_with_null_for_nan(
    tmp_path_factory, values
):
    path = tmp_path_factory.mktemp("json") / "values.json"
    write_json(path, values)
    assert read(path) == null(values)


def test_a_report_is_a_plain_readable_file(tmp_path):
    write_json(tmp_path / "report.json", {"é": float("nan"), "pair": (0.5, np.float64("nan"))})
    text = (tmp_path / "report.json").read_bytes().decode("utf-8")
    assert text == '{\n  "é": null,\n  "pair": [\n    0.5,\n    null\n  ]\n}\n'


def test_a_reader_of_the_old_file_never_sees_half_of_the_new(tmp_path):
    path, seen = tmp_path / "report.json", tmp_path / "seen.json"
    write_json(path, {"old": 1})
    os.link(path, seen)
    write_json(path, {"new": 2})
    assert (read(seen), read(path)) == ({"old": 1}, {"new": 2})
    assert sorted(tmp_path.iterdir()) == [path, seen]


@pytest.mark.parametrize("value", [float("inf"), object()])
def test_what_json_cannot_say_leaves_the_old_file_alone(tmp_path, value):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"new": 2, "then": value})
    assert read(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]
