"""Texts with suggested labels, as files that annotation tools import."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

# Names in Label Studio's labeling config.
FROM_NAME, TO_NAME = "labels", "text"


class Task(NamedTuple):
    """A text with the labels that are suggested.

    score: the confidence in the least certain label, 0 to 1; tools sort by it. model: its
        identifier. details: further values to show, none of them named `text`.
    """

    text: str
    labels: Sequence[str]
    score: float
    model: str
    details: Mapping[str, Any]


def choices(labels: Sequence[str], from_name: str, to_name: str) -> list[dict[str, Any]]:
    """The `result` of a prediction in Label Studio; empty without a label."""
    value = {"choices": list(labels)}
    result = {"from_name": from_name, "to_name": to_name, "type": "choices", "value": value}
    return [result] if labels else []


def label_config(labels: Sequence[str]) -> str:
    """The labeling config of a Label Studio project for which tasks are written."""
    offered = "".join(f"\n    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        f'<View>\n  <Text name="{TO_NAME}" value="$text"/>\n'
        f'  <Choices name="{FROM_NAME}" toName="{TO_NAME}" choice="multiple">{offered}\n'
        "  </Choices>\n</View>\n"
    )


def label_studio_json(tasks: Sequence[Task]) -> str:
    """A JSON list to import into a project with `label_config`."""
    records = [
        {
            "data": {**task.details, "text": task.text},
            "predictions": [
                {
                    "model_version": task.model,
                    "score": round(task.score, 6),
                    "result": choices(task.labels, FROM_NAME, TO_NAME),
                }
            ],
        }
        for task in tasks
    ]
    return json.dumps(records, ensure_ascii=False, indent=1, default=str) + "\n"


def doccano_jsonl(tasks: Sequence[Task]) -> str:
    """JSON lines to import into a project of text classification, as "JSONL"."""
    lines = (
        {
            **task.details,
            "text": task.text,
            "label": list(task.labels),
            "score": round(task.score, 6),
            "model": task.model,
        }
        for task in tasks
    )
    return "".join(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)


class Tool(NamedTuple):
    """ending: of its files. format: tasks -> the content of a file."""

    ending: str
    format: Callable[[Sequence[Task]], str]


TOOLS = {
    "label-studio": Tool(".json", label_studio_json),
    "doccano": Tool(".jsonl", doccano_jsonl),
}
