"""What the service takes and gives, as OpenAPI has it, and as a page that needs no network."""

import html
import json
from collections.abc import Mapping
from typing import Any

from jaxclf.service.requests import BODY, CHARACTERS, TEXTS

Schema = dict[str, Any]

# Not of white space alone, what Python holds for that and ECMAScript does not included.
INK = r"[^\s\u001c-\u001f\u0085]"
TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": CHARACTERS, "pattern": INK}
NAMES: Schema = {"type": "array", "items": {"type": "string"}}
SHARES: Schema = {
    "type": "object",
    "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
}
NUMBERS: Schema = {"type": "object", "additionalProperties": {"type": "number"}}


def of(properties: Mapping[str, Schema]) -> Schema:
    """An object with these properties, all of them required, and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


ONE = of({"text": TEXT})
MANY = of({"texts": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": TEXTS}})
STAGE: Schema = {
    "type": ["string", "null"],
    "description": "which stage of a cascade decided; null for other models",
}
RESULT = of({"labels": NAMES, "probabilities": SHARES, "stage": STAGE})
PREDICTION = of(
    {"labels": NAMES, "thresholds": NUMBERS, "results": {"type": "array", "items": RESULT}}
)
AT: Schema = {"type": "integer", "minimum": 0}
WORD = of(
    {"start": AT, "end": AT, "attributions": NUMBERS, "attention": {"type": ["number", "null"]}}
)
EXPLANATION = of({"labels": NAMES, "words": {"type": "array", "items": WORD}, "gap": NUMBERS})
ALIVE = of({"status": {"const": "alive"}})
READY = of({"status": {"const": "ready"}, "labels": NAMES, "model": {"type": "string"}})
ERROR = of({"error": {"type": "string", "description": "what, where, what to do"}})

RETRY = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
REASONS = {
    400: "not JSON",
    408: "the body did not arrive in time",
    413: f"longer than {BODY:,} bytes, or more tokens than the queue ever holds",
    415: "not application/json in UTF-8, or compressed",
    422: "JSON of another form, or a text that cannot be read",
    429: "the queue is full",
    500: "the service failed",
    503: "the service is warming up or draining",
    504: "the deadline passed",
}


def takes(*bodies: Schema) -> dict[str, Any]:
    """The part of an operation that says what its body is."""
    schema = bodies[0] if len(bodies) == 1 else {"oneOf": list(bodies)}
    return {"requestBody": {"required": True, "content": _json(schema)}}


def gives(good: Schema, what: str, *codes: int) -> dict[int | str, Any]:
    """The part of an operation that says what it answers."""
    answers: dict[int | str, Any] = {200: {"description": what, "content": _json(good)}}
    for code in codes:
        headers = RETRY if code in (429, 503) else {}
        answers[code] = {
            "description": REASONS[code],
            "content": _json(ERROR),
            "headers": headers,
        }
    return answers


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
pre { background: #8882; padding: 0.7rem; overflow-x: auto; font-size: 0.85rem; }
h2 { margin-top: 2.5rem; } :root { color-scheme: light dark; }
"""


def docs(document: Mapping[str, Any]) -> str:
    """The document for a reader."""
    parts = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(operation['description'])}</p>")
            if body := operation.get("requestBody"):
                parts.append(f"<h3>Body</h3>{_shown(body)}")
            for code, answer in operation["responses"].items():
                about = html.escape(answer["description"])
                parts.append(f"<h3>{code}: {about}</h3>{_shown(answer)}")
    title = html.escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style><h1>{title}</h1>"
        '<p>The same for programs: <a href="openapi.json">openapi.json</a></p>' + "".join(parts)
    )


def _shown(part: Mapping[str, Any]) -> str:
    return "".join(
        f"<pre>{html.escape(json.dumps(content['schema'], indent=1))}</pre>"
        for content in part.get("content", {}).values()
        if content.get("schema") not in ({}, None, ERROR)
    )
