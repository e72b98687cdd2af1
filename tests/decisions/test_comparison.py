"""Differences are of the metrics themselves, p-values are of all swaps, and equal systems seldom
have a significant difference."""

import itertools
import math
import time

import numpy as np
import pytest
from counting import all_metrics
from goemotions_like import draw
from label_tables import NAN
from scipy.special import expit, logit

from jaxclf.decisions.comparison import Compared, Difference, holm, paired, verdict
from jaxclf.decisions.intervals import bootstrap
from jaxclf.decisions.metrics import METRICS

NO_EVIDENCE = "no evidence of a difference"


def random_pair(seed: int, rows: int, missing: float = 0.0):
    """(labels, good, poor): four labels from frequent to rare, two systems (probs, decided)."""
    rng = np.random.default_rng([seed, rows])
    labels = (rng.random((rows, 4)) < [0.6, 0.3, 0.2, 0.1]).astype(np.float32)
    systems = []
    for skill in (0.3, 0.1):
        probs = np.clip(0.4 + skill * (2 * labels - 1) + rng.normal(0, 0.2, labels.shape), 0, 1)
        systems.append((probs.round(1).astype(np.float32), probs >= 0.4))
    labels[rng.random(labels.shape) < missing] = np.nan
    return labels, *systems


def differences(comparison: Compared) -> list[Difference]:
    return [*comparison.metrics.values(), *comparison.f1]


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_a_difference_is_of_the_metrics(missing):
    labels, good, poor = random_pair(0, 40, missing)
    comparison = differences(paired(labels, good, poor, 10, 10))
    first, second = all_metrics(labels, *good), all_metrics(labels, *poor)
    for name, values in (("first", first), ("second", second), ("value", first - second)):
        np.testing.assert_allclose([getattr(row, name) for row in comparison], values, 0, 1e-12)


def test_both_systems_are_scored_on_the_same_resamples():
    labels, good, poor = random_pair(0, 40, 0.1)
    comparison = differences(paired(labels, good, poor, 200, 10, 3))
    first, second = (bootstrap(labels, *system, 200, 3) for system in (good, poor))
    estimates = [[*system.metrics.values(), *system.f1] for system in (first, second)]
    for row, a, b in zip(comparison, *estimates, strict=True):
        np.testing.assert_allclose(row.replicates, a.replicates - b.replicates, rtol=0, atol=1e-12)


@pytest.mark.parametrize("missing", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_p_is_the_share_of_all_swaps_with_as_large_a_difference(missing):
    labels, good, poor = random_pair(4, 7, missing)
    observed = np.abs(all_metrics(labels, *good) - all_metrics(labels, *poor))
    count = np.zeros(len(observed))
    for swapped in itertools.product([False, True], repeat=7):
        rows = np.array(swapped)[:, None]
        first = [np.where(rows, b, a) for a, b in zip(good, poor, strict=True)]
        second = [np.where(rows, a, b) for a, b in zip(good, poor, strict=True)]
        difference = all_metrics(labels, *first) - all_metrics(labels, *second)
        count += np.abs(difference) >= observed - 1e-12
    p = [row.p for row in differences(paired(labels, good, poor, 10, 8_000))]
    expected = np.where(np.isnan(observed), np.nan, count / 2**7)
    np.testing.assert_allclose(p, expected, rtol=0, atol=0.02)


def test_a_system_does_not_differ_from_itself():
    labels, system, _ = random_pair(1, 30)
    for row in differences(paired(labels, system, system, 100, 100)):
        assert (row.value, row.percentile, row.bca, row.p) == (0, (0, 0), (0, 0), 1)


def test_the_order_of_systems_changes_only_the_sign():
    labels, good, poor = random_pair(2, 40, 0.1)
    forward, backward = paired(labels, good, poor, 200, 200), paired(labels, poor, good, 200, 200)
    for a, b in zip(differences(forward), differences(backward), strict=True):
        assert (a.value, a.first, a.p) == (-b.value, b.second, b.p)
        np.testing.assert_allclose(a.percentile, (-b.percentile[1], -b.percentile[0]), atol=1e-12)
        np.testing.assert_allclose(a.bca, (-b.bca[1], -b.bca[0]), rtol=0, atol=1e-9)


def test_a_much_better_system_has_the_smallest_p_and_the_verdict():
    metrics = paired(*random_pair(3, 300), 300, 300).metrics
    for name in ("macro_f1", "micro_f1", "macro_auc", "map", "hamming_loss", "log_loss"):
        row = metrics[name]
        assert row.p == 1 / 301
        higher = METRICS[name].higher_is_better
        assert verdict(row.value, *row.percentile, row.p, higher) == "A is better", name


def test_the_same_seed_gives_the_same_comparison():
    pair = random_pair(0, 20)
    np.testing.assert_equal(paired(*pair, 100, 100, 5), paired(*pair, 100, 100, 5))


def test_two_equal_runs_equal_a_single_run():
    labels, good, poor = random_pair(0, 40)
    single = paired(labels, good, poor, 200, 200)
    double = paired(labels, [good, good], [poor, poor], 200, 200)
    lists = paired(labels, [good], [poor], 200, 200)
    np.testing.assert_equal(differences(single), differences(lists))
    for a, b in zip(differences(single), differences(double), strict=True):
        assert a.p == b.p
        for name in ("first", "second", "value", "replicates", "percentile", "bca"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-9)


def test_the_metric_of_several_runs_is_their_mean():
    labels, good, poor = random_pair(0, 40)
    third = random_pair(1, 40)[1]
    comparison = differences(paired(labels, [good, third, third], [poor, good], 50, 50))
    a, b, c = (all_metrics(labels, *run) for run in (good, poor, third))
    np.testing.assert_allclose([row.first for row in comparison], (a + 2 * c) / 3, 0, 1e-12)
    np.testing.assert_allclose([row.second for row in comparison], (a + b) / 2, 0, 1e-12)
    with pytest.raises(ValueError, match="without runs"):
        paired(labels, [good], [], 50, 50)


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_resampled_runs_have_the_standard_error_of_their_mean(runs):
    # All examples are equal, so that only the probability of a run varies.
    labels = np.ones((20, 1), np.float32)
    probs = np.random.default_rng(runs).uniform(0.5, 0.9, (2, runs)).astype(np.float32)
    systems = [
        [(np.full((20, 1), p, np.float32), np.ones((20, 1), bool)) for p in row] for row in probs
    ]
    difference = paired(labels, *systems, 4000, 10).metrics["log_loss"]
    error = math.sqrt(np.sum(np.var(-np.log(probs), axis=1, ddof=1)) / runs)
    np.testing.assert_allclose(np.std(difference.replicates), error, rtol=0.05)
    assert difference.percentile[0] < difference.value < difference.percentile[1]


def test_matched_runs_are_resampled_together():
    """The variance between seeds cancels: metrics of the same probabilities do not differ."""
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 3)) < 0.4).astype(np.float32)
    probs = [
        np.clip(share * labels + rng.random(labels.shape), 0, 1).astype(np.float32) / 2
        for share in (0.1, 0.5, 0.9)
    ]
    low, high = ([(p, p > threshold) for p in probs] for threshold in (0.3, 0.4))
    separate = paired(labels, low, high, 300, 50).metrics
    matched = paired(labels, low, high, 300, 50, matched=True).metrics
    assert np.ptp(separate["map"].replicates) > 0.1
    assert not matched["map"].replicates.any()
    assert matched["macro_f1"].value == separate["macro_f1"].value
    errors = [np.std(metrics["macro_f1"].replicates) for metrics in (matched, separate)]
    assert 0 < errors[0] < errors[1]
    with pytest.raises(ValueError, match="number of runs"):
        paired(labels, low, high[:2], 10, 10, matched=True)


@pytest.mark.parametrize(("rows", "value"), [(0, 0.0), (3, NAN)])
def test_without_known_labels_differences_are_nan(rows, value):
    labels = np.full((rows, 2), value, np.float32)
    outputs = np.full((rows, 2), 0.5, np.float32), np.ones((rows, 2), bool)
    for row in differences(paired(labels, outputs, outputs, 20, 20)):
        assert np.isnan([row.value, *row.percentile, *row.bca, row.p]).all()
        assert verdict(row.value, *row.percentile, row.p) == NO_EVIDENCE


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_labels_and_probabilities_have_intervals_of_width_0(rows, value):
    shape = (rows, 2)
    first, second = ((np.full(shape, p, np.float32), np.full(shape, p > 0.5)) for p in (0.3, 0.8))
    for row in differences(paired(np.full(shape, value, np.float32), first, second, 20, 20)):
        for ends in (row.percentile, row.bca):
            np.testing.assert_allclose(ends, (row.value, row.value), rtol=0, atol=1e-12)
        assert np.isnan(row.p) if np.isnan(row.value) else 0 < row.p <= 1


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9, 0.001]), [1, 1, 0.003])
    # A label without a p-value does not count as a test.
    np.testing.assert_allclose(holm([0.02, NAN, 0.03]), [0.04, NAN, 0.04])
    assert holm([]).shape == (0,)
    assert np.isnan(holm(np.array([NAN, NAN]))).all()


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_as_the_step_down_procedure(seed):
    p = np.random.default_rng(seed).random(28) ** 6
    left, rejected = sorted(p.tolist()), []
    while left and left[0] <= 0.05 / len(left):
        rejected.append(left.pop(0))
    assert sorted(p[holm(p) <= 0.05].tolist()) == rejected


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "expected"),
    [
        (0.02, 0.01, 0.03, 0.01, "A is better"),
        (-0.02, -0.03, -0.01, 0.01, "B is better"),
        (0.02, 0.01, 0.03, 0.06, NO_EVIDENCE),
        (0.02, -0.01, 0.03, 0.01, NO_EVIDENCE),
        (0.02, 0.0, 0.03, 0.01, NO_EVIDENCE),
        (-0.02, 0.01, 0.03, 0.01, NO_EVIDENCE),
        (0.0, 0.0, 0.0, 1.0, NO_EVIDENCE),
        (NAN, NAN, NAN, NAN, NO_EVIDENCE),
        (0.02, 0.01, 0.03, NAN, NO_EVIDENCE),
        (0.02, 0.01, 0.03, 0.05, "A is better"),
    ],
)
def test_a_verdict_needs_both_the_interval_and_the_p_value(difference, low, high, p, expected):
    assert verdict(difference, low, high, p) == expected
    opposite = {"A is better": "B is better", "B is better": "A is better"}.get(expected, expected)
    assert verdict(difference, low, high, p, higher_is_better=False) == opposite


@pytest.mark.slow
def test_ten_thousand_paired_resamples_take_20_seconds_of_processor_time():
    labels, probs = draw(0)
    start = time.process_time()
    paired(labels, (probs, probs >= 0.3), (probs**2, probs >= 0.4), 640, 0)
    assert (time.process_time() - start) * 10_000 / 640 < 20


def equal_systems(rng):
    """(labels, first, second): systems of equal skill that share two thirds of their errors."""
    share, distance = np.array([0.5, 0.2, 0.05]), np.array([1.5, 2.0, 2.5])
    labels = rng.random((150, 3)) < share
    common, systems = rng.normal(size=labels.shape), []
    for _ in range(2):
        noise = math.sqrt(2 / 3) * common + math.sqrt(1 / 3) * rng.normal(size=labels.shape)
        score = noise + distance * labels
        probs = expit(logit(share) + distance * score - distance**2 / 2).astype(np.float32)
        systems.append((probs, probs >= 0.3))
    return labels.astype(np.float32), *systems


@pytest.mark.slow
def test_equal_systems_seldom_differ_significantly():
    is_significant, has_verdict = [], []
    for seed in range(300):
        case = equal_systems(np.random.default_rng([0, seed]))
        rows = differences(paired(*case, 99, 99, seed))
        is_significant.append([row.p <= 0.05 for row in rows])
        has_verdict.append(
            [verdict(row.value, *row.percentile, row.p) != NO_EVIDENCE for row in rows]
        )
    rates, verdict_rates = np.mean(is_significant, axis=0), np.mean(has_verdict, axis=0)
    assert rates.mean() <= 0.06
    # At a rate of 5 %, more than 25 of 300 have a probability of 1 %.
    assert rates[list(METRICS).index("macro_f1")] <= 25 / 300
    assert (verdict_rates <= rates).all()
