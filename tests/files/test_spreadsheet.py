"""A spreadsheet computes no cell, and numbers stay numbers."""

import pytest

from jaxclf.files.spreadsheet import escape_formula


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-a", "@x", "\t=1", "\r=1", "--5", "-1-1", "+1e"])
def test_a_formula_gets_an_apostrophe(cell):
    assert escape_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a=b", "-5", "+1.5", "-.5", "-1e-7", "3", " =1", "'=1"])
def test_other_cells_stay(cell):
    assert escape_formula(cell) == cell
