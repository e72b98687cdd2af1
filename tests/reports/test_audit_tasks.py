"""Texts with annotations in doubt become tasks; the least probable annotation comes first."""

import json

import numpy as np

from jaxclf.reports.audit_tasks import make_audit_tasks, write_audit_tasks
from jaxclf.types import Predictions

NAMES = ("x", "y")
# Of x rows 2 and 5 are in doubt, of y none.
X = [(1, 0.9), (1, 0.8), (1, 0.1), (0, 0.2), (0, 0.1), (0, 0.75)]
LABELS = np.array([[label, index % 2] for index, (label, _) in enumerate(X)], np.float32)
PROBS = np.array([[p, 0.5] for _, p in X], np.float32)
PREDICTIONS = Predictions(np.array([f"r{row}" for row in range(6)]), PROBS, LABELS, "test")
TEXTS = {f"r{row}": f"text {row}" for row in range(6)}


def test_doubtful_annotations_are_turned_in_the_suggestion(tmp_path):
    first, second = make_audit_tasks(PREDICTIONS, NAMES, TEXTS)
    assert (first.text, first.labels, first.details["annotated"]) == ("text 2", [], ["x"])
    assert (second.text, second.labels, second.details["annotated"]) == (
        "text 5",
        ["x", "y"],
        ["y"],
    )
    assert first.details["in_doubt"] == second.details["in_doubt"] == ["x"]
    np.testing.assert_allclose([first.score, second.score], [0.1, 0.25], atol=1e-6)
    write_audit_tasks(tmp_path / "audit.csv", PREDICTIONS, NAMES, TEXTS, "label-studio")
    tasks = json.loads((tmp_path / "audit.tasks.json").read_text(encoding="utf-8"))
    assert [task["data"]["id"] for task in tasks] == ["r2", "r5"]
