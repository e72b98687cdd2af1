"""A target that no threshold reaches is named with what is reached, and no other is."""

import math

import numpy as np
import pytest

from jaxclf.decisions.evaluation import recorded_rule, score_run
from jaxclf.decisions.provenance import make_provenance
from jaxclf.decisions.score_tables import score_tables
from jaxclf.decisions.targets import describe_missed, find_missed, measure_targets
from jaxclf.decisions.thresholds import precision_at, recall_at
from jaxclf.experiment.config import Spec
from jaxclf.types import Predictions

NAMES = ("pure", "mixed", "none")
PROBS = np.tile(np.array([0.9, 0.8, 0.3, 0.2], np.float32)[:, None], 3)
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], np.float32)


def test_a_precision_that_no_threshold_has_is_missed():
    spec = Spec("precision_at", target=0.9)
    thresholds = precision_at(LABELS, PROBS, NAMES, target=0.9)
    reached = measure_targets(spec, LABELS, PROBS, thresholds, NAMES)
    # mixed: precision is 0, 1/2, 1/3, 1/2 from the highest threshold down.
    assert (reached["pure"], reached["mixed"]) == (1.0, 0.5)
    assert math.isnan(reached["none"])
    missed = find_missed(spec, reached)
    assert (missed["measure"], missed["target"]) == ("precision", 0.9)
    assert list(missed["labels"]) == ["mixed", "none"]
    sentence = describe_missed(missed)
    for part in ("precision 0.9", "mixed (at best 0.500)", "none (no positive)"):
        assert part in sentence
    assert "pure" not in sentence


def test_a_target_that_is_reached_or_not_set_is_not_missed():
    spec = Spec("recall_at", labels=("pure", "mixed"))
    thresholds = recall_at(LABELS, PROBS, NAMES, labels=("pure", "mixed"))
    reached = measure_targets(spec, LABELS, PROBS, thresholds, NAMES)
    assert reached == {"pure": 1.0, "mixed": 1.0}
    assert find_missed(spec, reached) == {}
    assert measure_targets(Spec("per_label"), LABELS, PROBS, thresholds, NAMES) == {}
    assert find_missed(Spec("per_label"), {}) == {}


@pytest.mark.parametrize("target", [0.5, 0.9])
def test_the_run_records_what_is_reached_and_the_tables_say_what_is_missed(target):
    labels, probs = np.tile(LABELS, (12, 1)), np.tile(PROBS, (12, 1))
    ids = np.array([str(index) for index in range(len(labels))])
    parts = {split: Predictions(ids, probs, labels, split) for split in ("val", "test")}
    rules = {"average": "best", "calibration": "none", "threshold": "precision_at"}
    spec = Spec("precision_at", target=target, labels=("pure", "mixed"))
    report, record = score_run(parts, spec, NAMES, make_provenance({}, rules))
    assert record["pure"]["reached"] == (1.0 if target > 0.5 else 0.5)
    assert record["mixed"]["reached"] == 0.5
    assert "reached" not in record["none"]
    assert recorded_rule(record) == spec
    notes = " ".join(score_tables(report["test"], "test")[1].notes)
    assert ("mixed (at best 0.500)" in notes) == (target > 0.5)
