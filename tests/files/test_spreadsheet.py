"""A spreadsheet computes no cell, and a user's numbers stay numbers."""

import pytest

from jaxclf.files.spreadsheet import escape_cell, escape_name


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-a", "@x", "\t=1", "\r=1", "--5", "-1-1", "+1e"])
def test_a_formula_gets_an_apostrophe(cell):
    assert escape_name(cell) == escape_cell(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a=b", "3", " =1", "'=1"])
def test_other_cells_stay(cell):
    assert escape_name(cell) == escape_cell(cell) == cell


@pytest.mark.parametrize("cell", ["-5", "+1.5", "-.5", "-1e-7"])
def test_a_number_stays_and_a_name_that_looks_like_one_does_not_become_one(cell):
    assert escape_cell(cell) == cell
    assert escape_name(cell) == f"'{cell}"
