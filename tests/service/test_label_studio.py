"""The service as a machine learning backend of Label Studio."""

import json

import numpy as np
import pytest
from clients import JSON, get, send
from tiny_models import LABELS

from jaxclf.decisions.label_next import confidence
from jaxclf.service.label_studio import parse_label_config
from jaxclf.service.requests import RefusedError

CONFIG = """<View>
  <Header value="Which?"/><Text name="review" value="$body"/>
  <Choices name="topic" toName="review"><Choice value="spam"/></Choices>
  <Choices name="mood" toName="review" choice="{choice}">
    <Choice value="joy"/><View><Choice value="fear" alias="f"/></View><Choice value="other"/>
  </Choices>
</View>"""


def post(port, path, content):
    status, _, body = send(port, "POST", f"/label-studio/{path}", json.dumps(content), JSON)
    return status, json.loads(body)


def test_a_task_is_predicted_by_the_labeling_config(served, demo_rows):
    service, port = served
    classifier = service.classifier
    texts = [row["text"] for row in demo_rows["val"]][:30]
    tasks = [{"id": index, "data": {"body": text, "x": 1}} for index, text in enumerate(texts)]
    tasks[3]["data"] = {"body": " "}
    tasks[4]["data"] = {"other": "a"}
    tasks[5]["data"] = None
    content = {"tasks": tasks, "label_config": CONFIG.format(choice="multiple"), "project": "1.2"}
    status, reply = post(port, "predict", content)
    assert status == 200
    assert len(reply["results"]) == len(tasks)
    probs = classifier.predict_proba(texts)
    scores = confidence(probs, classifier.thresholds)
    for index, (labels, answer) in enumerate(
        zip(classifier.predict(texts), reply["results"], strict=True)
    ):
        assert answer["model_version"] == classifier.identifier
        names = [{"joy": "joy", "fear": "f"}[label] for label in labels if label != "anger"]
        if index in (3, 4, 5):
            names = []
        else:
            np.testing.assert_allclose(answer["score"], scores[index], atol=1e-5)
        assert (answer["result"] == []) == (names == [])
        for result in answer["result"]:
            assert result["value"] == {"choices": names}
            assert (result["from_name"], result["to_name"]) == ("mood", "review")
            assert result["type"] == "choices"
    content["label_config"] = CONFIG.format(choice="single")
    chosen = [
        result["value"]["choices"]
        for answer in post(port, "predict", content)[1]["results"]
        for result in answer["result"]
    ]
    assert {len(names) for names in chosen} == {1}


def test_health_setup_and_webhook_are_answered(served):
    service, port = served
    assert json.loads(get(port, "/label-studio/health")[1])["status"] == "UP"
    status, reply = post(port, "setup", {"project": "1.2", "schema": "<View/>", "hostname": "h"})
    assert (status, reply) == (200, {"model_version": service.classifier.identifier})
    assert post(port, "webhook", {"action": "ANNOTATION_CREATED", "task": {}}) == (200, {})


@pytest.mark.parametrize(
    "config",
    [
        "<View>",
        "",
        '<!DOCTYPE v [<!ENTITY a "b">]><View/>',
        "<View/>",
        CONFIG.format(choice="single").replace("joy", "x").replace("fear", "y"),
        CONFIG.format(choice="single").replace("$body", "body"),
    ],
)
def test_a_config_without_the_labels_is_refused(served, config):
    with pytest.raises(RefusedError, match="label_config"):
        parse_label_config(config, LABELS)
    content = {"tasks": [{"data": {"body": "a"}}], "label_config": config}
    status, reply = post(served[1], "predict", content)
    assert (status, "label_config" in reply["error"]) == (422, True)


def test_a_body_of_another_form_is_refused(served):
    for content in ({}, {"tasks": 1, "label_config": ""}, {"text": "a"}, []):
        status, reply = post(served[1], "predict", content)
        assert status == 422
        assert "tasks" in reply["error"]
    assert post(served[1], "predict", {"tasks": [], "label_config": CONFIG})[1]["results"] == []
