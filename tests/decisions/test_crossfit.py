"""Scores on the split that fitted the thresholds are too high; cross-fitting corrects them.

Coverage of the interval: PYTHONPATH=. python tests/decisions/test_crossfit.py [simulations]
"""

import sys

import numpy as np
import pytest
from counting import macro_f1
from goemotions_like import RARE, draw, draw_posterior, true_f1
from label_tables import DEGENERATE
from scipy.special import expit

from jaxclf.decisions.evaluation import crossfit, decide_crossfit, hold_choice, make_rule
from jaxclf.decisions.folds import assign_folds
from jaxclf.decisions.intervals import LEVEL
from jaxclf.decisions.macro_f1_interval import macro_f1_interval
from jaxclf.decisions.thresholds import decide, fixed, per_label, plug_in
from jaxclf.decisions.weighted_counts import count_decisions
from jaxclf.experiment.config import Spec

SIMULATIONS = 10


@pytest.fixture(scope="module")
def simulations():
    return [draw(seed) for seed in range(SIMULATIONS)]


@pytest.mark.parametrize(("rule", "is_biased"), [(per_label, True), (plug_in, False)])
@pytest.mark.slow
def test_the_cross_fitted_score_is_unbiased(simulations, rule, is_biased):
    naive, crossfitted, truth = [], [], []
    for labels, probs in simulations:
        thresholds = rule(labels, probs)
        naive.append(macro_f1(labels, decide(probs, thresholds)))
        crossfitted.append(macro_f1(labels, decide_crossfit(labels, probs, rule)))
        truth.append(true_f1(thresholds).mean())
    naive, crossfitted, truth = map(np.array, (naive, crossfitted, truth))
    error = crossfitted.std(ddof=1)  # of a single simulation
    assert abs(crossfitted.mean() - truth.mean()) < error
    optimism = (naive - truth).mean()
    assert abs((naive - crossfitted).mean() - optimism) < 0.005
    assert (optimism > 0.02) == is_biased


def coverage(rule, rows: int, simulations: int) -> float:
    """How often the interval of cross-fitted decisions has the macro F1 in the population of the
    thresholds that all rows fitted."""
    hits = 0
    for seed in range(simulations):
        labels, posterior = draw_posterior(np.random.default_rng([23, seed]), rows)
        probs = expit(posterior).astype(np.float32)
        decided = decide_crossfit(labels, probs, rule)
        low, high = macro_f1_interval(count_decisions(labels, decided), LEVEL)
        truth = true_f1(rule(labels, probs))[labels.any(axis=0)].mean()
        hits += low <= truth <= high
    return hits / simulations


@pytest.mark.parametrize("rows", [115, 400])
@pytest.mark.parametrize("rule", [per_label, plug_in])
@pytest.mark.slow
def test_the_interval_of_cross_fitted_decisions_covers_the_truth(rule, rows):
    # At a coverage of 90 %, fewer than 47 of 60 have a probability of 0.2 %.
    assert coverage(rule, rows, 60) >= 47 / 60


@pytest.mark.slow
def test_plug_in_is_better_for_rare_labels(simulations):
    """Also for underconfident probabilities, as after training with focal loss."""
    for distortion in (1.0, 0.45):
        gains = []
        for seed in range(SIMULATIONS):
            labels, probs = simulations[seed] if distortion == 1 else draw(seed, distortion)
            f1 = [true_f1(rule(labels, probs), distortion) for rule in (plug_in, per_label)]
            gains.append((f1[0] - f1[1])[RARE].mean())
        gains = np.array(gains)
        assert gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(SIMULATIONS)


def test_intervals_contain_the_thresholds():
    labels, probs = (table[:1500, :3] for table in draw(0))
    decided, intervals = crossfit(labels, probs, per_label, per_label)
    thresholds = per_label(labels, probs)
    low, high = intervals.T
    assert (low < high).all()
    assert ((low <= thresholds) & (thresholds <= high)).all()
    np.testing.assert_array_equal(decided, decide_crossfit(labels, probs, per_label))


def test_a_fixed_threshold_has_no_optimism():
    labels, probs = (table[:500] for table in draw(1))
    decided, intervals = crossfit(labels, probs, fixed, fixed)
    np.testing.assert_array_equal(decided, decide(probs, fixed(labels, probs)))
    assert (intervals == 0.5).all()


@pytest.mark.parametrize("count", [2, 5, 10])
def test_folds_spread_every_label(count):
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


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("rule", [Spec("auto"), Spec("per_label"), Spec("plug_in")])
def test_degenerate_tables_have_finite_intervals(kind, rule):
    labels, probs = DEGENERATE[kind]
    fitter = make_rule(rule, ())
    held, _ = hold_choice(fitter, rule, labels, probs)
    assert np.isfinite(crossfit(labels, probs, fitter, held)[1]).all()


if __name__ == "__main__":
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for rows in (115, 400):
        for rule in (per_label, plug_in):
            share = coverage(rule, rows, draws)
            print(f"{rows} rows, {rule.__name__}: {share:.3f}", flush=True)
