"""The metrics that choose the epoch: their direction, and log loss after calibration."""

import numpy as np
import pytest
from goemotions_like import draw
from scipy.special import expit, logit

from jaxclf.decisions.calibration import calibrate_out_of_fold, platt
from jaxclf.decisions.metrics import METRICS, compute_metrics, log_loss
from jaxclf.decisions.selection import (
    SELECTION_METRICS,
    as_score,
    calibrated_log_loss,
    describe_metric,
    format_metric,
    rank_epochs,
)


def test_calibrated_log_loss_does_not_see_over_and_underconfidence():
    labels, probs = (table[:2000, :8] for table in draw(0))
    sharper = expit(3 * logit(probs.astype(np.float64))).astype(np.float32)
    assert log_loss(labels, sharper) > 1.2 * log_loss(labels, probs)
    value = calibrated_log_loss(labels, probs)
    assert calibrated_log_loss(labels, sharper) == pytest.approx(value, rel=0.01)
    # It is a ranking's: random probabilities are worse, and a fit on other folds does not hide it.
    shuffled = np.random.default_rng(0).permutation(probs)
    assert calibrated_log_loss(labels, shuffled) > 1.2 * value
    assert value == log_loss(labels, calibrate_out_of_fold(labels, probs, platt))


def test_a_score_is_higher_for_the_better_value():
    labels, _ = (table[:500, :8] for table in draw(1))
    right, wrong = np.where(labels == 1, 0.9, 0.1), np.where(labels == 1, 0.1, 0.9)
    good, bad = (
        compute_metrics(labels, probs, probs >= 0.5)
        | {"calibrated_log_loss": calibrated_log_loss(labels, probs)}
        for probs in (right, wrong)
    )
    for name, metric in SELECTION_METRICS.items():
        assert as_score(name, good[name]) > as_score(name, bad[name]), name
        assert abs(as_score(name, good[name])) == abs(good[name])
        assert metric is METRICS.get(name, metric)
        assert metric.compute(labels, right, right >= 0.5) == good[name]


def test_a_loss_is_shown_as_it_is():
    assert format_metric("macro_f1", 0.51234) == "macro_f1 0.5123"
    assert format_metric("calibrated_log_loss", 0.1234) == (
        "calibrated_log_loss 0.1234 (lower is better)"
    )
    assert describe_metric("map") == "map"
    assert describe_metric("log_loss") == "log_loss, lower is better"


@pytest.mark.parametrize(
    ("scores", "ranks"),
    [
        ([0.5, 0.9, 0.9, 0.4], [1, 2, 0, 3]),  # a score: the highest, then the earliest
        ([-0.3, -0.2, -0.203, -0.205], [2, 1, 3, 0]),  # a loss: the last within 2 % of the lowest
        ([-0.2, -0.204, -0.21], [1, 0, 2]),
        ([-0.2, -0.203, -0.206], [1, 0, 2]),  # of the lowest, not of the one before
        ([0.0, -0.1], [0, 1]),
        ([], []),
    ],
)
def test_the_last_epoch_with_an_equal_loss_is_the_best(scores, ranks):
    assert rank_epochs(scores) == ranks
