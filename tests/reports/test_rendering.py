"""Templates escape their values and refuse missing ones."""

import jinja2
import pytest

from jaxclf.decisions.score_tables import Table
from jaxclf.reports.figures.catalog import load_figures
from jaxclf.reports.rendering import ENVIRONMENT, render


def test_a_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render("base.html", sections={})


def test_a_lone_surrogate_becomes_a_question_mark():
    assert "<h1>a?b</h1>" in render("base.html", title="a\udc80b", statement="", sections={})


def test_cells_of_a_table_are_escaped():
    template = ENVIRONMENT.from_string(
        '{% import "macros.html" as macros %}{{ macros.table(table) }}'
    )
    html = template.render(table=Table("<t>", ("<a>", "b"), [("<c>", "1")], ("<note>",)))
    assert '<th scope="row">&lt;c&gt;</th><td>1</td>' in html
    for text in ("<t>", "<a>", "<c>", "<note>"):
        assert text not in html


def test_figures_have_their_own_names_and_places():
    figures = load_figures()
    assert len({figure.name for figure in figures}) == len(figures)
    assert sorted({figure.order for figure in figures}) == [figure.order for figure in figures]
    assert all(figure.alt.endswith(".") and figure.caption.endswith(".") for figure in figures)
