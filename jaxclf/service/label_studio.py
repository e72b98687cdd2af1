"""The calls that Label Studio makes to an ML backend, whose address is /label-studio.

Its labeling config says which key of a task has the text, and which choices are offered.
"""

import functools
import xml.etree.ElementTree
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from jaxclf.decisions.label_next import confidence
from jaxclf.service.requests import RefusedError
from jaxclf.service.schemas import MAX_CHARACTERS
from jaxclf.service.service import Service, check_ready, predict_texts
from jaxclf.text.annotation_tasks import choices

PREFIX = "/label-studio"
FORM = '{"tasks": [{"data": {…}}, …], "label_config": "<View>…</View>"}'


class PredictRequest(BaseModel):
    """Further keys, such as the project, are not read."""

    tasks: list[dict[str, Any]]
    label_config: str


class Control(NamedTuple):
    """A question of the labeling config: which labels does a text have?

    values: label -> the choice as results name it.
    """

    from_name: str
    to_name: str
    text_key: str
    values: dict[str, str]
    is_single: bool


def parse_label_config(config: str, labels: tuple[str, ...]) -> Control:
    """The first `<Choices>` that offers one of the labels. Raises RefusedError (422)."""
    if "<!" in config.replace("<!--", ""):  # a document type may define entities
        raise RefusedError(422, "label_config: a document type is not read")
    try:
        root = xml.etree.ElementTree.fromstring(config)
    except xml.etree.ElementTree.ParseError:
        raise RefusedError(422, "label_config: not XML") from None
    texts = {node.get("name"): node.get("value", "") for node in root.iter("Text")}
    for node in root.iter("Choices"):
        offered = {
            choice.get("value", ""): choice.get("alias") or choice.get("value", "")
            for choice in node.iter("Choice")
        }
        values = {label: offered[label] for label in labels if label in offered}
        from_name, to_name = node.get("name", ""), node.get("toName", "")
        if values and texts.get(to_name, "").startswith("$"):
            is_single = node.get("choice", "single").startswith("single")
            return Control(from_name, to_name, texts[to_name][1:], values, is_single)
    raise RefusedError(
        422, "label_config: no <Choices> for a <Text> offers a label of the model; see /ready"
    )


def make_router(
    service: Service,
    route_class: type[APIRoute],
    disconnected: Callable[[Request], Coroutine[Any, Any, None]],
) -> APIRouter:
    """The routes. disconnected: returns when the client of a request has disconnected."""
    router = APIRouter(prefix=PREFIX, route_class=route_class, include_in_schema=False)
    classifier = service.classifier
    model = {"model_version": classifier.identifier}

    async def health() -> Any:
        """Whether predictions are answered."""
        check_ready(service)
        return {"status": "UP", "model_class": "jaxclf"}

    router.add_api_route("/health", health, route_class_override=APIRoute)

    @router.post("/setup")
    async def setup() -> Any:
        """The model's version. The labeling config is read with every prediction."""
        return model

    @router.post("/predict")
    async def predict(request: Request, body: PredictRequest) -> Any:
        """A prediction for each task, with the confidence in the least certain label as its score.

        A task without a text has an empty result.
        """
        control = parse_label_config(body.label_config, classifier.labels)
        texts = [_text(task, control.text_key) for task in body.tasks]
        known = [text for text in texts if text]
        call = functools.partial(disconnected, request)
        predictions = iter(await predict_texts(service, known, call) if known else ())
        return {
            "results": [
                {**_prediction(next(predictions), control, service), **model}
                if text
                else {"result": [], "score": 0.0, **model}
                for text in texts
            ]
        }

    @router.post("/webhook")
    async def webhook() -> Any:
        """Acknowledge an event. The service learns nothing from it."""
        return {}

    return router


def _text(task: dict[str, Any], key: str) -> str:
    data = task.get("data")
    text = data.get(key) if isinstance(data, dict) else None
    text = text[:MAX_CHARACTERS] if isinstance(text, str) else ""
    return "" if text.isspace() else text.encode("utf-8", "replace").decode()


def _prediction(prediction: dict[str, Any], control: Control, service: Service) -> dict[str, Any]:
    classifier, by_label = service.classifier, prediction["probabilities"]
    labels = [label for label in prediction["labels"] if label in control.values]
    if control.is_single:
        labels = sorted(labels, key=lambda label: -by_label[label])[:1]
    values = [control.values[label] for label in labels]
    probs = np.array([[by_label[label] for label in classifier.labels]])
    score = float(confidence(probs, classifier.thresholds)[0])
    return {"result": choices(values, control.from_name, control.to_name), "score": score}
