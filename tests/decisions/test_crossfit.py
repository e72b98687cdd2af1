"""Thresholds searched on the scored split flatter, and by how much is reported rightly."""

import numpy as np
import pytest
from counting import macro_f1
from goemotions_like import RARE, draw, true_f1

from jaxclf.decisions.crossfit import crossfit, decide_crossfit
from jaxclf.decisions.folds import assign_folds
from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.thresholds import decide, fixed, per_label, plug_in

NAN = float("nan")
WORLDS = 10


def macro(labels, decided):
    return macro_f1(labels, decided)


@pytest.fixture(scope="module")
def worlds():
    return [draw(seed) for seed in range(WORLDS)]


@pytest.mark.parametrize(("rule", "flatters"), [(per_label, True), (plug_in, False)])
@pytest.mark.slow
def test_the_cross_fitted_figure_is_the_truth(worlds, rule, flatters):
    naive, honest, truth = [], [], []
    for labels, probs in worlds:
        thresholds = rule(labels, probs)
        naive.append(macro(labels, decide(probs, thresholds)))
        honest.append(macro(labels, decide_crossfit(labels, probs, rule)))
        truth.append(true_f1(thresholds).mean())
    naive, honest, truth = map(np.array, (naive, honest, truth))
    error = honest.std(ddof=1)  # the standard error of one such figure
    assert abs(honest.mean() - truth.mean()) < error
    optimism = (naive - truth).mean()
    assert abs((naive - honest).mean() - optimism) < 0.005
    assert (optimism > 0.02) == flatters


@pytest.mark.slow
def test_plug_in_is_better_where_positives_are_few(worlds):
    """Also where probabilities are timid, as focal loss makes them."""
    for distortion in (1.0, 0.45):
        gains = []
        for seed in range(WORLDS):
            labels, probs = worlds[seed] if distortion == 1 else draw(seed, distortion)
            one, other = plug_in(labels, probs), per_label(labels, probs)
            gains.append((true_f1(one, distortion) - true_f1(other, distortion))[RARE].mean())
        gains = np.array(gains)
        assert gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(WORLDS)


def test_intervals_hold_the_thresholds():
    labels, probs = draw(0)
    found = crossfit(labels[:1500, :3], probs[:1500, :3], per_label)
    thresholds = per_label(labels[:1500, :3], probs[:1500, :3])
    low, high = found.intervals.T
    assert (low < high).all()
    assert ((low <= thresholds) & (thresholds <= high)).all()
    assert found.optimism("macro_f1") == found.naive["macro_f1"] - found.crossfit["macro_f1"]
    naive = decide(probs[:1500, :3], thresholds)
    assert found.naive == compute_metrics(labels[:1500, :3], probs[:1500, :3], naive)


def test_a_rule_that_fits_nothing_has_no_optimism():
    labels, probs = draw(1)
    found = crossfit(labels[:500], probs[:500], fixed)
    assert found.naive == pytest.approx(found.crossfit, nan_ok=True)
    assert (found.intervals == 0.5).all()


def test_no_example_is_decided_by_its_own_fold():
    """A rule that gives nothing to what it has seen, and all to the rest."""
    labels = np.zeros((40, 1), np.float32)
    probs = (np.arange(1, 41, dtype=np.float32) / 41)[:, None]
    seen = []

    def rule(labels, probs):
        seen.append(set(probs[:, 0].tolist()))
        return np.array([0.5])

    decide_crossfit(labels, probs, rule, folds=4)
    assert [len(one) for one in seen] == [30] * 4
    assert set.intersection(*seen) == set()


@pytest.mark.parametrize("count", [2, 5, 10])
def test_folds_share_out_every_label(count):
    labels, _ = draw(2)
    fold = assign_folds(labels, count)
    assert np.ptp(np.bincount(fold, minlength=count)) <= 1
    for column in labels.T:
        spread = np.bincount(fold[column == 1], minlength=count)
        expected = column.sum() / count
        assert np.abs(spread - expected).max() <= 4 * np.sqrt(expected) + 1
    rarest = np.argmin(labels.sum(axis=0))
    spread = np.bincount(fold[labels[:, rarest] == 1], minlength=count)
    assert np.ptp(spread) <= 1
    np.testing.assert_array_equal(fold, assign_folds(labels, count))
    assert (fold != assign_folds(labels, count, seed=1)).any()


@pytest.mark.parametrize(
    ("labels", "probs"),
    [
        (np.zeros((20, 2)), np.full((20, 2), 0.3)),
        (np.ones((20, 2)), np.full((20, 2), 0.3)),
        (np.full((20, 2), NAN), np.full((20, 2), 0.3)),
        (np.ones((1, 2)), np.full((1, 2), 1.0)),
        (np.eye(20)[:, :2], np.zeros((20, 2))),
    ],
    ids=["no positives", "only positives", "nothing known", "one row", "constant"],
)
@pytest.mark.parametrize("rule", [per_label, plug_in])
def test_odd_tables_have_figures_or_none(labels, probs, rule):
    found = crossfit(labels.astype(np.float32), probs.astype(np.float32), rule)
    assert np.isfinite(found.intervals).all()
