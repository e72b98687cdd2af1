"""The check of a data set: its tables and its page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxclf.errors import printable
from jaxclf.files.atomic import write_text
from jaxclf.reports.rendering import render
from jaxclf.reports.tables import Table, format_score
from jaxclf.text.check.findings import Finding, Rows

MAX_PLACES = 200  # of a finding on the page
MAX_PAIRS = 20  # of labels in the table of co-occurrence
SECTIONS = {
    "findings": "What to look at",
    "rows": "Rows",
    "labels": "Labels",
    "pairs": "Labels that occur together",
}


class Checked(NamedTuple):
    rows: Rows
    tokens: Int[np.ndarray, " rows"]  # that the encoder reads of each text
    is_cut: Bool[np.ndarray, " rows"]
    findings: Sequence[Finding]


def rows_table(checked: Checked) -> Table:
    """A row per split: sizes, labels, lengths of texts."""
    positive, cells = checked.rows.labels >= 0.5, []
    for split, chosen in _of_splits(checked.rows).items():
        per_row, tokens = positive[chosen].sum(axis=1), checked.tokens[chosen]
        cells.append(
            (
                split,
                f"{len(chosen):,}",
                f"{per_row.mean():.2f}",
                f"{(per_row == 0).mean():.1%}",
                *(f"{np.percentile(tokens, share):,.0f}" for share in (50, 95, 100)),
                f"{checked.is_cut[chosen].sum():,}",
            )
        )
    columns = ("split", "rows", "labels a row", "without a label")
    return Table("Rows", (*columns, "tokens: median", "95 %", "most", "cut"), cells)


def labels_table(rows: Rows) -> Table:
    """A row per label: its positives, and their share of the rows where it is known."""
    splits = _of_splits(rows)
    cells = []
    for column, name in enumerate(rows.names):
        row = [printable(name)]
        for chosen in splits.values():
            values = rows.labels[chosen, column]
            known = ~np.isnan(values)
            positives = int((values[known] >= 0.5).sum())
            row.append(f"{positives:,} ({positives / max(known.sum(), 1):.1%})")
        row += [format_score(alpha) for alpha in rows.agreement[column : column + 1]]
        cells.append(row)
    notes = ["agreement: Krippendorff's alpha of the annotators; 1 is perfect, 0 is chance."]
    if not rows.agreement:
        return Table("Positives of each label", ("label", *splits), cells)
    return Table("Positives of each label", ("label", *splits, "agreement"), cells, notes)


def pairs_table(rows: Rows) -> Table:
    """The pairs of labels that occur together most, with the number that chance would give."""
    positive = (rows.labels >= 0.5).astype(np.float64)
    together, totals = positive.T @ positive, positive.sum(axis=0)
    first, second = np.triu_indices(len(rows.names), 1)
    order = np.argsort(-together[first, second], kind="stable")[:MAX_PAIRS]
    cells = [
        (
            f"{printable(rows.names[left])}, {printable(rows.names[right])}",
            f"{together[left, right]:,.0f}",
            f"{totals[left] * totals[right] / max(len(positive), 1):,.1f}",
        )
        for left, right in zip(first[order], second[order], strict=True)
        if together[left, right]
    ]
    notes = ["by chance: the rows to expect if the labels did not depend on each other."]
    if (more := int(np.count_nonzero(together[first, second])) - len(cells)) > 0:
        notes.append(f"{more:,} rarer pairs are not shown.")
    return Table("Labels that occur together", ("labels", "rows", "by chance"), cells, notes)


def finding_table(checked: Checked, finding: Finding, include_texts: bool) -> Table:
    """The places of a finding, with the texts if they are asked for."""
    text_at = dict(zip(checked.rows.places, checked.rows.texts, strict=True))
    shown = finding.places[:MAX_PLACES]
    cells = [
        (" = ".join(places), *(text_at[location] for location in places if include_texts))
        for places in shown
    ]
    width = max(map(len, cells), default=1)
    more = len(finding.places) - len(shown)
    notes = [f"and {more:,} more"] if more else []
    return Table(finding.kind, ("where", *("text",) * (width - 1)), cells, notes)


def write_page(path: Path, checked: Checked, include_texts: bool) -> Path:
    """Write the check as a page. Returns its path."""
    files = dict.fromkeys(location.rpartition(":")[0] for location in checked.rows.places)
    page = render(
        "check.html",
        title="Check of the data",
        statement=f"{len(checked.rows.texts):,} rows of {', '.join(files)}.",
        sections=SECTIONS,
        findings=[
            (finding, finding_table(checked, finding, include_texts))
            for finding in checked.findings
        ],
        rows=rows_table(checked),
        labels=labels_table(checked.rows),
        pairs=pairs_table(checked.rows),
    )
    return write_text(path, page)


def _of_splits(rows: Rows) -> Mapping[str, Int[np.ndarray, " rows"]]:
    """The indices of the rows of each split."""
    splits = np.array(rows.splits)
    return {split: np.flatnonzero(splits == split) for split in dict.fromkeys(rows.splits)}
