"""The report of a run: figures with their intervals, in Python and in a notebook."""

from html import escape
from pathlib import Path

from jaxclf.decisions.score_tables import Table, score_tables, to_markdown
from jaxclf.errors import DataError
from jaxclf.files.untrusted import read_json

REPORT = "report.json"


class Report(dict):
    """The content of report.json: `report["test"]["macro_f1"]`. It shows the tables of test."""

    def __repr__(self) -> str:
        return "\n\n".join(map(to_markdown, score_tables(self["test"], "test")))

    def _repr_html_(self) -> str:
        return "".join(map(_to_html, score_tables(self["test"], "test")))


def _to_html(table: Table) -> str:
    rows = [[f"<td>{escape(cell)}</td>" for cell in row] for row in table.rows]
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


def report_path(folder: Path) -> Path | None:
    """The report of a model: in its folder, or in that of its run."""
    paths = [folder / REPORT, *[folder.parent / REPORT] * (folder.name == "model")]
    return next((path for path in paths if path.is_file()), None)


def read_report(folder: Path) -> Report:
    """Raises DataError where a model has none."""
    if (path := report_path(folder)) is None:
        raise DataError(f"{folder / REPORT}: no such file; load the folder of the run")
    return Report(read_json(path.parent, REPORT))
