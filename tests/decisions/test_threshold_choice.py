"""`auto` keeps the simpler rule unless the other is better, and lets no label flood the answers."""

import numpy as np
import pytest
from counting import macro_f1
from goemotions_like import draw
from label_tables import NAN
from long_tailed import draw_problem
from scipy.special import expit, logit

from jaxclf.decisions.calibration import apply_calibration, calibrate_out_of_fold, platt
from jaxclf.decisions.metrics import macro_f1 as reported_macro_f1
from jaxclf.decisions.threshold_choice import (
    RULES,
    best_expected_f1,
    choose_rule,
    fit_rule,
    fit_rules,
    lowest_thresholds,
    macro_f1_influence,
)
from jaxclf.decisions.thresholds import auto, decide, per_label, plug_in

PROBLEMS = 200


def floods(thresholds, sample):
    """Which labels are predicted for too many texts of a sample."""
    _, probs, truth = sample
    return decide(probs, thresholds).sum(axis=0) > np.maximum(10, 5 * truth.sum(axis=0))


def calibrated_samples(seed):
    """A problem whose probabilities are calibrated as those of a run."""
    (labels, probs, truth), (fresh_labels, fresh_probs, fresh_truth) = draw_problem(seed)
    out_of_fold = calibrate_out_of_fold(labels, probs, platt)
    fresh_probs = apply_calibration(platt(labels, probs), fresh_probs)
    return (labels, out_of_fold, truth), (fresh_labels, fresh_probs, fresh_truth)


@pytest.mark.slow
@pytest.mark.parametrize("make_samples", [draw_problem, calibrated_samples])
def test_no_label_floods_the_answers(make_samples):
    unbounded = 0
    for seed in range(PROBLEMS):
        fitted, fresh = make_samples(seed)
        for thresholds in fit_rules(*fitted[:2]).values():
            assert not floods(thresholds, fitted).any()
            assert not floods(thresholds, fresh).any()
        if seed < 10:
            unbounded += floods(per_label(*fitted[:2]), fresh).sum()
            unbounded += floods(plug_in(*fitted[:2]), fresh).sum()
    assert unbounded > 20  # the problems are such that it happens


@pytest.mark.parametrize("seed", range(5))
def test_no_label_floods_the_answers_of_a_few_problems(seed):
    fitted, fresh = draw_problem(seed)
    thresholds = auto(*fitted[:2])
    assert not floods(thresholds, fitted).any()
    assert not floods(thresholds, fresh).any()


def test_a_rare_positive_with_a_low_probability_floods_nothing():
    """`per_label` predicts the label for every text above its only positive."""
    rng = np.random.default_rng(0)
    probs = rng.random((200, 2)).astype(np.float32)
    labels = (probs > 0.7).astype(np.float32)
    labels[:, 1] = 0
    labels[np.argsort(probs[:, 1])[36], 1] = 1
    assert decide(probs, per_label(labels, probs))[:, 1].sum() == 164
    for name in RULES:
        assert decide(probs, fit_rule(labels, probs, name))[:, 1].sum() <= 3


def test_the_bound_is_four_times_the_lower_limit_of_the_positives():
    calibrated = np.linspace(0.01, 0.2, 1000)[:, None]
    for positives in (0, 1, 9, 64, 100):
        labels = np.zeros((1000, 1), np.float32)
        labels[:positives] = 1
        bound = max(3, 4 * (positives - 2 * np.sqrt(positives)))
        lowest = lowest_thresholds(labels, calibrated)
        assert (calibrated >= lowest).sum() <= bound
        # The first that must not be predicted is 0.2 logits below, or the normal quantile is higher
        beyond = np.sort(calibrated[:, 0])[::-1][int(bound)]
        assert logit(lowest[0]) >= logit(beyond) + 0.2 - 1e-9
    few = lowest_thresholds(np.ones((3, 1), np.float32), calibrated[:3])
    assert few.tolist() == [0]


def test_the_rules_are_plug_in_and_search_on_calibrated_probabilities():
    labels, probs = draw(3)
    calibrated = apply_calibration(platt(labels, probs), probs).astype(np.float64)
    fitted = fit_rules(labels, probs)
    assert fit_rule(labels, probs, "searched").tolist() == fitted["searched"].tolist()
    # Many positives and good separation: no bound applies, and both are near the plain rules.
    is_frequent = labels.sum(axis=0) > 200
    np.testing.assert_allclose(
        fitted["plug_in"][is_frequent], plug_in(labels, probs)[is_frequent], atol=0.01
    )
    curve = platt(labels, probs).curves
    slope, intercept = (np.array([c[key] for c in curve]) for key in ("slope", "intercept"))
    on_curve = expit(slope * logit(fitted["plug_in"]) + intercept)
    half = best_expected_f1(calibrated) / 2
    assert (on_curve >= half - 1e-9).all()
    np.testing.assert_allclose(on_curve[is_frequent], half[is_frequent])
    # Shrinkage: half of the way at 50 positives.
    searched = expit(slope * logit(fitted["searched"]) + intercept)
    best = per_label(labels, calibrated.astype(np.float32))
    weight = labels.sum(axis=0) / (labels.sum(axis=0) + 50)
    expected = weight * best + (1 - weight) * half
    np.testing.assert_allclose(searched[is_frequent], expected[is_frequent])


def test_the_influence_is_the_derivative_of_macro_f1():
    labels, probs = (table[:300, :6] for table in draw(1))
    labels[::7, 2] = NAN
    decided = probs >= 0.3
    value, influence = macro_f1_influence(labels, decided)
    assert value == pytest.approx(reported_macro_f1(labels, probs, decided))
    assert value == pytest.approx(macro_f1(labels, decided))
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    doubled = 200  # many copies make one example's weight a small change
    copies = np.repeat(np.arange(300), doubled)
    for row in (0, 7, 150):
        more = np.append(copies, row)
        gain = macro_f1_influence(labels[more], decided[more])[0] - value
        assert gain * doubled == pytest.approx(influence[row], rel=0.05, abs=1e-6)


def test_the_standard_error_is_that_of_a_bootstrap():
    labels, probs = (table[:2000, :8] for table in draw(2))
    first, second = probs >= 0.3, probs >= 0.5
    difference = macro_f1_influence(labels, first)[1] - macro_f1_influence(labels, second)[1]
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(200):
        rows = rng.integers(0, len(labels), len(labels))
        scores = [macro_f1_influence(labels[rows], table[rows])[0] for table in (first, second)]
        resampled.append(scores[0] - scores[1])
    # 200 resamples have a standard deviation of 5 % around theirs.
    assert np.sqrt((difference**2).sum()) == pytest.approx(np.std(resampled), rel=0.2)


def test_the_search_is_chosen_only_if_it_is_better_beyond_one_standard_error():
    # Calibrated probabilities: half the best expected F1 is the best threshold.
    labels, probs = (table[:2000] for table in draw(0))
    choice = choose_rule(labels, probs)
    assert choice.rule == "plug_in"
    assert choice.macro_f1["searched"] - choice.macro_f1["plug_in"] == choice.difference
    assert choice.difference <= choice.error
    # The frequency is a step, which no sigmoid fits: too many texts below it seem likely.
    rng = np.random.default_rng(0)
    logits = rng.uniform(-4, 4, (3000, 4))
    labels = (rng.random(logits.shape) < np.where(logits > 2.5, 0.85, 0.1)).astype(np.float32)
    probs = expit(logits).astype(np.float32)
    choice = choose_rule(labels, probs)
    assert choice.rule == "searched"
    assert choice.difference == choice.macro_f1["plug_in"] - choice.macro_f1["searched"]
    assert -choice.difference > choice.error > 0
    expected = fit_rule(labels, probs, "searched")
    np.testing.assert_array_equal(auto(labels, probs), expected)


def test_a_gain_within_one_standard_error_does_not_count():
    within = 0
    for seed in range(6):
        labels, probs = (table[:300, -6:] for table in draw(seed))
        choice = choose_rule(labels, probs)
        gain = choice.macro_f1["searched"] - choice.macro_f1["plug_in"]
        assert (choice.rule == "searched") == (gain > choice.error)
        within += -choice.error < gain < choice.error
    assert within > 0
