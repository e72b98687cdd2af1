"""The README.md of a handed-over model: what it is, its figures, and what it must not decide
alone."""

from collections.abc import Mapping
from typing import Any

from jaxclf.reports.tables import score_tables, to_markdown

UNSAID = "not written down (`data.label_descriptions`): what the training examples mean by it"


def card(
    name: str,
    encoder: str,
    report: Mapping[str, Any],
    rule: str,
    calibration: str,
    sizes: Mapping[str, int],
    meanings: Mapping[str, str],
) -> str:
    """Markdown.

    rule, calibration: names of the threshold rule and the calibrator. sizes: examples of each
        split. meanings: label -> when a text has it; of those that are left out only the name is
        known.
    """
    counts = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
    origin = "set by hand" if rule == "fixed" else "fitted on the validation split"
    said = {label: meanings.get(label, UNSAID) for label in report["test"]["labels"]}
    labels = "\n".join(f"| `{label}` | {_cell(meaning)} |" for label, meaning in said.items())
    means = (
        "as the model gives them: they rank, and need not be frequencies"
        if calibration == "none"
        else f"calibrated (`{calibration}`) to be frequencies on texts like those of the "
        "validation split"
    )
    scores = "\n\n".join(map(to_markdown, score_tables(report["test"], "test")))
    return f"""# {name}

A multi-label text classifier: the encoder `{encoder}` fine-tuned with jaxclf. Examples: {counts}.

| label | a text has it where |
|---|---|
{labels}

## Figures on the test split, which fitted nothing

{scores}

Intervals are over test texts, thresholds held fixed; another seed may give other figures. A label
with few positives has a wide one, and "n/a" stands where nothing can be said.

## How it decides

Thresholds: rule `{rule}`, {origin}. A text that reaches none gets no label, which is an answer.
Probabilities are {means}.

    import jaxclf
    classifier = jaxclf.load("this/folder")
    classifier.predict(["a text"])
    classifier.predict_proba(["a text"])

## What it is for, and what it must not decide alone

It helps to find what should be read first, in texts like those it was trained on. A person decides:
a label is no diagnosis and no judgement of anybody, a missing label is no all-clear, and the
figures above hold for texts like those of the test split alone.
"""


def _cell(text: str) -> str:
    """As the cell of a table: one line, no bar."""
    return " ".join(text.split()).replace("|", "\\|")
