"""What requests and responses hold. FastAPI checks requests against these models and writes the
OpenAPI document from them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

MAX_TEXTS = 256  # in one request
MAX_CHARACTERS = 20_000  # of one text; networks mostly read less

# A character that neither Python nor ECMAScript counts as white space.
NON_BLANK = r"[^\s\u001c-\u001f\u0085]"
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CHARACTERS, pattern=NON_BLANK)]
Labels = list[str]
ByLabel = dict[str, float]
Offset = Annotated[int, Field(ge=0)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TextRequest(Model):
    text: Text


class TextsRequest(Model):
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]


def _kind(content: Any) -> str | None:
    keys = set(content) if isinstance(content, dict) else set()
    return next((key for key in ("text", "texts") if keys == {key}), None)


PredictRequest = Annotated[
    Annotated[TextRequest, Tag("text")] | Annotated[TextsRequest, Tag("texts")],
    Discriminator(_kind),
]


class Prediction(Model):
    """The labels whose probability reaches its threshold, and all probabilities."""

    labels: Labels
    probabilities: ByLabel
    stage: Annotated[str | None, Field(description="the deciding stage of a cascade, or null")]
    cut: Annotated[bool, Field(description="the text is longer than what the model reads of it")]


class PredictResponse(Model):
    labels: Labels
    thresholds: ByLabel
    results: Annotated[list[Prediction], Field(description="one for each text, in order")]


class Word(Model):
    """A word by its character offsets, and its part in the log odds of each label."""

    start: Offset
    end: Offset
    attributions: ByLabel
    attention: float | None


class ExplainResponse(Model):
    labels: Labels
    words: list[Word]
    convergence_delta: Annotated[
        ByLabel, Field(description="log odds that the attributions leave unexplained")
    ]


class HealthResponse(Model):
    status: Literal["alive"]


class ReadyResponse(Model):
    status: Literal["ready"]
    labels: Labels
    model: str


class ErrorResponse(Model):
    error: Annotated[str, Field(description="what is wrong, where, and what to do")]


_REASONS = {  # by pydantic's type of an error
    "string_type": "must be a string",
    "string_too_short": "is empty; leave it out",
    "string_pattern_mismatch": "is empty; leave it out",
    "string_too_long": f"is longer than {MAX_CHARACTERS:,} characters; send less of it",
    "string_unicode": "holds half of a surrogate pair; write the character itself",
    "list_type": "must be a list",
    "too_short": "must hold a text or more",
    "too_long": f"holds more than {MAX_TEXTS} texts; send fewer at a time",
}


def error_message(error: Mapping[str, Any], form: str) -> str:
    """One of pydantic's errors in a line that repeats nothing of the request.

    form: an example of a body that is accepted.
    """
    field, reason = error["loc"][-1], _REASONS.get(error["type"])
    if reason is None or field == "body":
        return f"the body must hold {form} and nothing else"
    return f"texts[{field}] {reason}" if isinstance(field, int) else f"{field!r} {reason}"
