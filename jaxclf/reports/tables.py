"""Tables of results for the terminal, the report and the model card."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclf.terminal import print_table


class Table(NamedTuple):
    """Cells as text, and sentences that belong below the table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def print_tables(*tables: Table) -> None:
    """Print tables with their notes to stdout."""
    for table in tables:
        print_table(table.columns, table.rows, table.title)
        print("\n".join(["", *table.notes, ""]) if table.notes else "")


def to_markdown(table: Table) -> str:
    """A table without its title, notes below; the columns after the first are aligned right."""
    rows = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.rows]
    lines = ["| " + " | ".join(map(_escape_cell, row)) + " |" for row in rows]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)])


def _escape_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def members_table(ensemble: Mapping[str, Any]) -> Table:
    """The members of an ensemble: what members.json holds."""
    correlation = np.array(ensemble["correlation"], float)
    rows = []
    for index, (name, member) in enumerate(ensemble["members"].items()):
        neighbors = np.delete(correlation[index], index)
        similarity = f"{neighbors.min():.2f} to {neighbors.max():.2f}" if len(neighbors) else "n/a"
        gain = "n/a" if member["gain"] is None else f"{member['gain']:+.3f}"
        rows.append(
            (name, f"{member['weight']:.3f}", f"{member['macro_f1']:.3f}", gain, similarity)
        )
    columns = ("member", "weight", "macro F1", "gain", "error correlation")
    notes = [
        f"Scored on {ensemble['split']}. Gain: macro F1 of the ensemble minus that without the "
        "member. Error correlation: lowest and highest with another member."
    ]
    return Table("Members of the ensemble", columns, rows, notes)
