"""A sealed value is recognized, and every change of it is noticed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.files.digest import DIGEST, is_sealed, seal
from jaxclf.files.json_file import read_json, write_json

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_infinity=False)
VALUES = st.dictionaries(st.text(), SCALARS | st.lists(SCALARS, max_size=3), max_size=4)


@settings(deadline=None)
@given(VALUES)
def test_a_sealed_value_stays_sealed_through_a_file(tmp_path_factory, values):
    path = write_json(tmp_path_factory.mktemp("sealed") / "values.json", seal(values))
    assert is_sealed(read_json(path))


@settings(deadline=None)
@given(VALUES, st.data())
def test_any_changed_field_breaks_the_seal(values, data):
    sealed = json.loads(json.dumps(seal({**values, "count": 3}), allow_nan=True))
    name = data.draw(st.sampled_from(sorted(sealed)))
    sealed[name] = [sealed[name]]
    assert not is_sealed(sealed)


@pytest.mark.parametrize("values", [{"count": 3}, [], None, {DIGEST: None}])
def test_a_missing_digest_is_no_seal(values):
    assert not is_sealed(values)
