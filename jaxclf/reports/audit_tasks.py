"""Annotations in doubt as tasks of an annotation tool."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from jaxclf.decisions.label_issues import label_issues
from jaxclf.files.atomic import write_text
from jaxclf.text.annotation_tasks import TOOLS, Task
from jaxclf.types import Predictions


def make_audit_tasks(
    predictions: Predictions, names: tuple[str, ...], texts: Mapping[str, str]
) -> list[Task]:
    """A task for each text with annotations in doubt, the least probable annotation first.

    texts: id -> text. The suggested labels are the annotated ones but for those in doubt, which
    `details` names. The score is the probability of the least probable annotation.
    """
    doubts: dict[int, list[int]] = {}
    for row, column in zip(*label_issues(predictions.labels, predictions.probs), strict=True):
        doubts.setdefault(int(row), []).append(int(column))
    tasks = []
    for row, columns in doubts.items():
        annotated = {column for column in range(len(names)) if predictions.labels[row, column] == 1}
        p = float(predictions.probs[row, columns[0]])
        example_id = str(predictions.ids[row])
        tasks.append(
            Task(
                texts[example_id],
                [names[column] for column in sorted(annotated ^ {*columns})],
                p if columns[0] in annotated else 1 - p,
                f"jaxclf {importlib.metadata.version('jaxclf')}",
                {
                    "id": example_id,
                    "annotated": [names[column] for column in sorted(annotated)],
                    "in_doubt": [names[column] for column in columns],
                },
            )
        )
    return tasks


def write_audit_tasks(
    path: Path, predictions: Predictions, names: tuple[str, ...], texts: Mapping[str, str], to: str
) -> None:
    """Write the tasks beside the CSV `path`. to: a tool of TOOLS."""
    tool = TOOLS[to]
    tasks = make_audit_tasks(predictions, names, texts)
    write_text(path.with_suffix(f".tasks{tool.ending}"), tool.format(tasks))
