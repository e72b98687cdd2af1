"""Intervals equal a brute-force bootstrap and cover a known truth as often as they promise.

All coverage rates: PYTHONPATH=. python tests/decisions/test_intervals.py [simulations]
"""

import math
import sys
import time
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from counting import all_metrics, count, macro_f1
from goemotions_like import POSITIVES, SHARE, draw, true_f1
from label_tables import NAN

from jaxclf.decisions.intervals import (
    Estimate,
    Resampled,
    acceleration,
    bca,
    bootstrap,
    influence,
    leave_out_weights,
)
from jaxclf.decisions.metrics import compute_metrics


def random_table(seed: int, rows: int, missing: float = 0.0):
    """(labels, decided): four labels from frequent to rare, 80 % of the decisions are correct."""
    rng = np.random.default_rng([seed, rows])
    labels = (rng.random((rows, 4)) < [0.6, 0.3, 0.2, 0.1]).astype(np.float32)
    decided = (labels == 1) ^ (rng.random(labels.shape) < 0.2)
    labels[rng.random(labels.shape) < missing] = np.nan
    return labels, decided


def scored(labels, decided, seed: int = 0):
    """(labels, probs, decided) with tied probabilities that agree with the decisions at 1/2."""
    rng = np.random.default_rng(seed)
    probs = np.where(decided, 0.5, 0) + rng.integers(0, 5, decided.shape) / 10
    return labels, probs.astype(np.float32), decided


def bootstrap_f1(labels, decided) -> dict[str, Estimate]:
    metrics = bootstrap(labels, decided.astype(np.float32), decided).metrics
    return {name: metrics[name] for name in ("macro_f1", "micro_f1")}


def estimates(resampled: Resampled) -> list[Estimate]:
    return [*resampled.metrics.values(), *resampled.f1]


def brute_force(labels, decided) -> dict[str, list[float]]:
    """Draw the examples 2000 times, and score every draw by counting."""
    rng, macros, micros = np.random.default_rng(0), [], []
    for _ in range(2000):
        rows = rng.integers(0, len(labels), len(labels))
        tp, fp, fn, _ = count(labels[rows], decided[rows]).sum(axis=1)
        macros.append(macro_f1(labels[rows], decided[rows]))
        micros.append(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else NAN)
    scores = {"macro_f1": macros, "micro_f1": micros}
    return {name: [f1 for f1 in values if not np.isnan(f1)] for name, values in scores.items()}


def quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else NAN


def brute_force_bca(value: float, values: list[float], without: list[float]):
    """Efron 1987, equations 2.3 and 6.6; replicates equal to the value count half."""
    normal = NormalDist()
    same = sum(abs(x - value) < 1e-12 for x in values)
    below = sum(x < value - 1e-12 for x in values) + same / 2
    share = min(max(below / len(values), 0.5 / len(values)), 1 - 0.5 / len(values))
    z0 = normal.inv_cdf(share)
    pulls = (np.mean(without) - np.array(without)) * (len(without) - 1) / len(without)
    squares = np.sum(pulls**2)
    a = np.sum(pulls**3) / (6 * squares**1.5) if squares > 0 else 0
    ends = []
    for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975)):
        ends.append(quantile(values, normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))))
    return ends


def empty_labels():
    labels, decided = random_table(1, 8)
    labels[:, 1], labels[:, 2] = 0, np.nan
    return labels, decided


SMALL = [(1, 0.0), (2, 0.0), (7, 0.0), (9, 0.3), (15, 0.2)]


@pytest.mark.parametrize(
    ("labels", "decided"),
    [*(random_table(5, rows, missing) for rows, missing in SMALL), empty_labels()],
    ids=[*map(str, SMALL), "empty labels"],
)
def test_intervals_are_the_brute_force_bootstrap(labels, decided):
    rows = np.arange(len(labels))
    probs = decided.astype(np.float32)
    left_out = [
        compute_metrics(labels[rest], probs[rest], decided[rest])
        for rest in (rows != row for row in rows)
    ]
    replicates = brute_force(labels, decided)
    for name, estimate in bootstrap_f1(labels, decided).items():
        values = replicates[name]
        defined = estimate.replicates[~np.isnan(estimate.replicates)]
        np.testing.assert_allclose(defined, values, rtol=0, atol=1e-12)
        ends = [quantile(values, 0.025), quantile(values, 0.975)]
        np.testing.assert_allclose(estimate.percentile, ends, rtol=0, atol=1e-12)
        without = [metrics[name] for metrics in left_out if not np.isnan(metrics[name])]
        if without:
            ends = brute_force_bca(estimate.value, values, without)
            np.testing.assert_allclose(estimate.bca, ends, rtol=0, atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_every_replicate_is_the_metric_of_the_drawn_examples(missing):
    table = scored(*random_table(3, 25, missing))
    results = estimates(bootstrap(*table, 100, 7))
    np.testing.assert_allclose([row.value for row in results], all_metrics(*table), 0, 1e-12)
    rng = np.random.default_rng(7)
    for resample in range(100):
        rows = rng.integers(0, 25, 25)
        expected = all_metrics(*(array[rows] for array in table))
        replicate = [row.replicates[resample] for row in results]
        np.testing.assert_allclose(replicate, expected, rtol=0, atol=1e-9)


def test_bca_without_bias_and_skew_is_the_percentile_interval():
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(bca(0.5, values, 0.0), (0.025, 0.975), rtol=0, atol=1e-9)
    # Replicates below the value move the interval up, and so does a positive acceleration.
    np.testing.assert_allclose(bca(0.6, values, 0.0), (0.073, 0.993), rtol=0, atol=1e-3)
    assert bca(0.5, values, 0.1)[0] > 0.04


def test_the_grouped_jackknife_estimates_the_acceleration():
    rare = np.zeros(3000)
    rare[np.random.default_rng(0).integers(0, 3000, 8)] = 1
    weights = leave_out_weights(3000)
    assert weights.shape == (3000, 200)
    assert (weights == 0).sum(axis=1).tolist() == [1] * 3000
    grouped = acceleration(influence((rare @ weights / weights.sum(axis=0))[None]))[0]
    np.testing.assert_allclose(grouped, 1 / (6 * np.sqrt(8)), rtol=0.1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [5, 30, 300])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_intervals_contain_the_value(seed, rows, missing):
    table = scored(*random_table(seed, rows, missing))
    metrics, resampled = compute_metrics(*table), bootstrap(*table, 300).metrics
    for name, estimate in resampled.items():
        if np.isnan(metrics[name]):
            assert np.isnan([estimate.value, *estimate.interval]).all()
        else:
            assert estimate.interval[0] <= metrics[name] <= estimate.interval[1], name
    for name in ("macro_f1", "micro_f1", "hamming_loss"):
        low, high = resampled[name].percentile
        assert 0 <= low <= metrics[name] <= high <= 1, name


@pytest.mark.parametrize("seed", range(5))
def test_no_interval_is_printed_with_the_metric_at_its_end(seed):
    """Calibrated probabilities, whose ECE is higher in every resample, and few positives."""
    rng = np.random.default_rng(seed)
    probs = rng.beta(0.3, [0.3, 1, 3, 10, 30], (200, 5)).astype(np.float32)
    labels = (rng.random(probs.shape) < probs).astype(np.float32)
    resampled = bootstrap(labels, probs, probs >= 0.4, 300)
    for row in estimates(resampled):
        low, value, high = (round(x, 3) for x in (row.interval[0], row.value, row.interval[1]))
        assert np.isnan(value) or low < value or value == 0
        assert np.isnan(value) or value < high or value == 1
    ece = resampled.metrics["ece"]
    assert np.mean(ece.replicates > ece.value) > 0.9  # so the percentile interval is above it


def test_the_width_of_intervals_falls_with_the_root_of_the_size():
    few, many = (bootstrap_f1(*random_table(0, rows)) for rows in (200, 12_800))
    for name in many:
        for kind in ("percentile", "bca", "interval"):
            narrow, wide = (np.ptp(getattr(sample[name], kind)) for sample in (many, few))
            assert narrow < 0.04
            assert 6 < wide / narrow < 10.7  # the root of 64 is 8


def test_without_errors_or_hits_only_the_smoothed_interval_has_a_width():
    labels, _ = random_table(0, 20)
    for decided, value in ((labels == 1, 1), (labels == 0, 0)):
        f1 = bootstrap_f1(labels, decided)
        for estimate in f1.values():
            assert estimate.percentile == estimate.bca == (value, value)
        low, high = f1["macro_f1"].interval
        assert max(low, 1 - high) > 0.6
        assert value in (low, high)
        assert f1["micro_f1"].interval == (value, value)


def test_resamples_depend_only_on_the_seed():
    table = scored(*random_table(0, 20))
    first, same, reseeded, few = (
        bootstrap(*table, *options) for options in ((300, 0), (300, 0), (300, 1), (70, 0))
    )
    np.testing.assert_equal(first, same)
    assert first.metrics["micro_f1"].interval != reseeded.metrics["micro_f1"].interval
    maps = first.metrics["map"].replicates, few.metrics["map"].replicates
    np.testing.assert_array_equal(maps[0][:70], maps[1])


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_the_macro_interval_leaves_out_a_label_without_known_positives(value):
    labels, decided = random_table(2, 40)
    empty = np.full((40, 1), value, np.float32), np.ones((40, 1), bool)
    more = bootstrap_f1(*(np.concatenate(pair, 1) for pair in zip(empty, (labels, decided))))  # noqa: B905
    without = bootstrap_f1(labels, decided)
    # The smoothed interval has different random draws.
    for kind, atol in (("percentile", 1e-12), ("bca", 1e-12), ("interval", 0.02)):
        pair = [getattr(f1["macro_f1"], kind) for f1 in (more, without)]
        np.testing.assert_allclose(*pair, rtol=0, atol=atol)
    # In the micro interval known false alarms count, unknown labels do not.
    micro = [f1["micro_f1"].percentile for f1 in (more, without)]
    if np.isnan(value):
        np.testing.assert_allclose(*micro, rtol=0, atol=1e-12)
    else:
        assert micro[0][1] < micro[1][1]


@pytest.mark.parametrize(("rows", "value"), [(0, 0.0), (4, np.nan)])
def test_without_known_labels_intervals_are_nan(rows, value):
    labels = np.full((rows, 2), value, np.float32)
    for row in estimates(bootstrap(*scored(labels, np.ones((rows, 2), bool)), 100)):
        assert np.isnan([row.value, *row.percentile, *row.bca, *row.interval]).all()


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("decision", [False, True])
def test_constant_labels_and_probabilities_have_intervals_of_width_0(rows, value, decision):
    shape = (rows, 2)
    table = (
        np.full(shape, value, np.float32),
        np.full(shape, 0.3, np.float32),
        np.full(shape, decision),
    )
    for row, metric in zip(estimates(bootstrap(*table, 100)), all_metrics(*table), strict=True):
        ends = np.array([*row.percentile, *row.bca])
        np.testing.assert_allclose(ends, np.full(4, metric), rtol=0, atol=1e-12)
        assert np.isnan(row.interval).all() == np.isnan(metric)


@pytest.mark.slow
def test_ten_thousand_resamples_take_10_seconds_of_processor_time_and_200_mb():
    labels, probs = draw(0)
    start = time.process_time()
    bootstrap(labels, probs, probs >= 0.3, 640)
    assert (time.process_time() - start) * 10_000 / 640 < 10
    tracemalloc.start()
    try:
        bootstrap(labels, probs, probs >= 0.3, 128)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6


# The best threshold is half the best F1 (Lipton et al. 2014).
BEST_F1 = np.max([true_f1(np.full(len(SHARE), t)) for t in np.linspace(0.02, 0.7, 500)], axis=0)
RULES = {"best": BEST_F1 / 2, "half": np.full(len(SHARE), 0.5)}


def coverage(rule: str, simulations: int, resamples: int):
    """[macro F1 and the F1 of every label; percentile, BCa, reported interval]: the share of
    simulations whose interval contains the F1 of the population."""
    truth = true_f1(RULES[rule])
    truth = np.array([truth.mean(), *truth])[:, None]
    hits = np.zeros((len(truth), 3))
    for seed in range(simulations):
        labels, probs = draw([17, seed])
        decided = probs >= RULES[rule]
        resampled = bootstrap(labels, decided.astype(np.float32), decided, resamples, seed)
        f1 = [resampled.metrics["macro_f1"], *resampled.f1]
        ends = np.array([[row.percentile, row.bca, row.interval] for row in f1])
        hits += (ends[..., 0] <= truth) & (truth <= ends[..., 1])
    return hits / simulations


@pytest.mark.slow
def test_intervals_of_f1_have_their_coverage():
    # At a coverage of 95 %, fewer than 53 of 60 have a probability of 1 %.
    macro, *f1 = coverage("half", 60, 200)
    assert macro[2] >= 0.88
    # Without a hit among the six positives, every replicate is 0.
    rarest = f1[np.argmin(POSITIVES)]
    assert rarest[0] < 0.5 < 0.88 <= rarest[2]
    assert f1[np.argmax(POSITIVES)].min() >= 0.88


if __name__ == "__main__":
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for rule in RULES:
        rates = coverage(rule, simulations, 1000)
        error = math.sqrt(0.95 * 0.05 / simulations)
        print(f"thresholds {rule}, {simulations} simulations, standard error {error:.3f}")
        print(f"{'':>10}  percentile     BCa  interval")
        names = ["macro F1", *(f"{positives} pos." for positives in POSITIVES)]
        for index in [0, *(1 + np.argsort(POSITIVES))]:
            print(f"{names[index]:>10}" + "".join(f"{share:>10.3f}" for share in rates[index]))
