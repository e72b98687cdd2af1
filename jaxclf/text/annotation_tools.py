"""Records of annotation tools as texts with the answers of their annotators."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxclf.errors import printable
from jaxclf.text.rows import RowError


class Chosen(list):
    """The names that one annotator chose under one question."""


class Answer(NamedTuple):
    """One annotator's answer to one text.

    labels: {question: Chosen}, or a string in place of Chosen where the record does not tell a
        choice from another string; or {name: 0 or 1}, other labels unknown; None where the text is
        not labeled, for the reason.
    """

    text: Any
    id: Any
    labels: dict[str, Any] | None
    reason: str = "not labeled"


class Tool(NamedTuple):
    """keys: sets of keys, all of one of which every record has. read: a record's answers, at least
    one; it gets the name of the text's key, "" for any."""

    keys: Sequence[set[str]]
    read: Callable[[dict[str, Any], str], list[Answer]]


def _label_studio(task: dict[str, Any], text_key: str) -> list[Answer]:
    text, answers, reason = _only_text(task["data"], text_key), [], "not labeled"
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            reason = "skipped"
            continue
        labels: dict[str, Any] = {}
        results = annotation["result"]
        for result in results:
            if "choices" in result["value"]:
                names = labels.setdefault(result.get("from_name", ""), Chosen())
                names += result["value"]["choices"]
        if results and not labels:
            raise RowError(
                f"no choices among its results of type {printable(results[0]['type'])!r}"
            )
        answers.append(Answer(text, task.get("id"), labels))
    return answers or [Answer(text, task.get("id"), None, reason)]


MIN_KEYS = set("id annotator annotation_id created_at updated_at lead_time agreement".split())


def _label_studio_min(task: dict[str, Any], text_key: str) -> list[Answer]:
    text_key = text_key or "text"
    labels: dict[str, Any] = {}
    for key in task.keys() - MIN_KEYS - {text_key}:
        value = task[key]
        if isinstance(value, str) and value.startswith('{"choices"'):  # in CSV
            value = json.loads(value)
        if isinstance(value, str):
            labels[key] = value
        elif isinstance(value, dict) and "choices" in value:
            labels[key] = Chosen(value["choices"])
    return [Answer(task.get(text_key), task.get("id"), labels)]


def _prodigy(task: dict[str, Any], text_key: str) -> list[Answer]:
    text, task_id = task.get(text_key or "text"), task.get("_input_hash")
    answer, labels = task.get("answer", "accept"), None
    if "spans" in task and not task.keys() & {"accept", "options", "label"}:
        raise RowError("its spans label parts of a text, not the text")
    if answer == "ignore":
        return [Answer(text, task_id, None, "ignored")]
    if "label" in task:  # one question: does this label apply?
        if not isinstance(task["label"], str):
            raise RowError("its label is not a name")
        return [Answer(text, task_id, {task["label"]: float(answer == "accept")})]
    if answer != "accept":
        return [Answer(text, task_id, None, "rejected")]
    if task.keys() & {"accept", "options"}:
        labels = {"": Chosen(task.get("accept", []))}
    return [Answer(text, task_id, labels)]


def _doccano(task: dict[str, Any], text_key: str) -> list[Answer]:
    names = Chosen(task["label"])
    if not all(isinstance(name, str) for name in names):
        raise RowError("its label marks parts of a text, not the text")
    return [Answer(task.get(text_key or "text"), task.get("id"), {"": names})]


def _argilla(record: dict[str, Any], text_key: str) -> list[Answer]:
    text, by_user, reason = _only_text(record["fields"], text_key), {}, "not labeled"
    for question, responses in (record["responses"] or {}).items():
        for response in responses:
            if response.get("status", "submitted") == "submitted":
                labels = by_user.setdefault(str(response.get("user_id")), {})
                if (value := _argilla_value(response["value"])) is not None:
                    labels[question] = value
            else:
                reason = "discarded or drafts"
    answers = [Answer(text, record.get("id"), labels) for labels in by_user.values()]
    return answers or [Answer(text, record.get("id"), None, reason)]


def _argilla_value(value: Any) -> Chosen | str | None:
    """A choice; None for a rating, a ranking or spans."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return Chosen(value)
    return value if isinstance(value, str) else None


def _argilla_flat(record: dict[str, Any], text_key: str) -> list[Answer]:
    """A record of `to_list(flatten=True)` or `to_datasets`."""
    ending = ".responses"
    questions = [key.removesuffix(ending) for key in record if key.endswith(ending)]
    responses = {
        question: [
            {"value": value, "user_id": user, "status": status}
            for value, user, status in zip(
                record[f"{question}{ending}"] or [],
                record.get(f"{question}{ending}.users") or [],
                record.get(f"{question}{ending}.status") or [],
                strict=True,
            )
        ]
        for question in questions
    }
    fields = {key: value for key, value in record.items() if "." not in key}
    nested = {"fields": fields, "responses": responses, "id": record.get("id")}
    return _argilla(nested, text_key or "text")


def _argilla_1(record: dict[str, Any], text_key: str) -> list[Answer]:
    """A record of TextClassification in Argilla 1."""
    labels = _argilla_value(record["annotation"])
    if isinstance(labels, str):
        labels = Chosen([labels])
    text = record.get(text_key or "text")
    return [Answer(text, record.get("id"), None if labels is None else {"": labels})]


def _only_text(fields: Mapping[str, Any], text_key: str) -> Any:
    """The text of a task: under its key or "text", else the only string."""
    if text_key or "text" in fields:
        return fields.get(text_key or "text")
    names = [name for name, value in fields.items() if isinstance(value, str)]
    if len(names) > 1:
        raise RowError(
            f"it has {len(names)} texts; data.text_column=NAME names one, of "
            + ", ".join(map(printable, names[:5]))
        )
    return fields[names[0]] if names else None


TOOLS = {
    "Label Studio JSON": Tool([{"annotations", "data"}], _label_studio),
    "Label Studio JSON-MIN": Tool([{"annotation_id", "lead_time"}], _label_studio_min),
    "Prodigy": Tool([{"_input_hash", "_task_hash"}, {"answer", "accept"}], _prodigy),
    "doccano": Tool([{"label", "Comments"}, {"label", "comments"}], _doccano),
    "Argilla": Tool([{"fields", "responses"}], _argilla),
    "Argilla 1": Tool([{"annotation", "annotation_agent"}], _argilla_1),
}


def recognize(records: Iterable[Any]) -> tuple[str, Tool] | None:
    """The annotation tool whose keys every record has, and its name."""
    fields = [record for record in records if isinstance(record, dict)]
    for name, tool in TOOLS.items():
        if fields and all(any(keys <= row.keys() for keys in tool.keys) for row in fields):
            return name, tool
    if fields and all(any(key.endswith(".responses") for key in row) for row in fields):
        return "Argilla", Tool([], _argilla_flat)
    return None


def read_answers(name: str, tool: Tool, record: Any, text_key: str) -> list[Answer]:
    """The answers of a record. Raises RowError."""
    try:
        answers = tool.read(record, text_key)
    except (TypeError, LookupError, AttributeError, ValueError):
        raise RowError(f"not a record of {name}") from None
    if not all(isinstance(key, str) for answer in answers for key in answer.labels or ()):
        raise RowError(f"not a record of {name}: a question or label is not a string")
    return answers


def join_questions(
    answers: Sequence[dict[str, Any] | None], ignored: Iterable[str]
) -> list[list[Any] | dict[str, float] | None]:
    """The labels of each answer: names, or {name: 0 or 1}.

    Names of several questions become "question: name". Where a record does not tell a choice from
    another string, the one question that has strings alone is meant. Raises RowError where there
    are more.
    """
    fields = [(key, value) for labels in answers for key, value in (labels or {}).items()]
    # A tool that writes one choice as a string writes several as a list.
    chosen = {key for key, value in fields if isinstance(value, Chosen)} - {*ignored}
    possible = {key for key, value in fields if isinstance(value, str)} - {*ignored}
    if not chosen and len(possible) > 1:
        listed = ", ".join(map(printable, sorted(possible)[:5]))
        raise RowError(
            f"any of {listed} may hold the labels; data.ignore_columns=NAME leaves one out"
        )
    chosen = chosen or possible
    prefix = len(chosen) > 1

    def join(labels: dict[str, Any]) -> list[Any] | dict[str, float]:
        if any(isinstance(value, float) for value in labels.values()):
            return labels
        names: list[Any] = []
        for question in sorted(chosen & labels.keys()):
            value = labels[question]
            values = value if isinstance(value, list) else [value] if value else []
            names += [f"{question}: {name}" if prefix else name for name in values]
        return names

    return [None if labels is None else join(labels) for labels in answers]
