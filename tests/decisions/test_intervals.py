"""Intervals are a bootstrap over examples that a loop over dice rolls repeats exactly, and hold a
known truth as often as they say.

As a script, coverage in full: PYTHONPATH=. python tests/decisions/test_intervals.py [simulations]
"""

import math
import sys
import time
import tracemalloc
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from counting import f1_per_label
from goemotions_like import POSITIVES, SHARE, draw, true_f1

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

NAN = float("nan")


def random_table(seed: int, rows: int, missing: float = 0.0):
    """(labels, decided) of four labels from frequent to rare, four of five decisions right."""
    rng = np.random.default_rng([seed, rows])
    labels = (rng.random((rows, 4)) < [0.6, 0.3, 0.2, 0.1]).astype(np.float32)
    decided = (labels == 1) ^ (rng.random(labels.shape) < 0.2)
    labels[rng.random(labels.shape) < missing] = np.nan
    return labels, decided


def scored(labels, decided, seed: int = 0):
    """(labels, probs, decided) with tied probabilities on the decisions' sides of 1/2."""
    rng = np.random.default_rng(seed)
    probs = np.where(decided, 0.5, 0) + rng.integers(0, 5, decided.shape) / 10
    return labels, probs.astype(np.float32), decided


def bootstrap_f1(labels, decided) -> dict[str, Estimate]:
    found = bootstrap(labels, decided.astype(np.float32), decided).metrics
    return {name: found[name] for name in ("macro_f1", "micro_f1")}


def every(found: Resampled) -> list[Estimate]:
    return [*found.metrics.values(), *found.f1]


def all_figures(labels, probs, decided) -> list[float]:
    return [*compute_metrics(labels, probs, decided).values(), *f1_per_label(labels, decided)]


def brute_force(labels, decided) -> dict[str, list[float]]:
    """Draw the examples 2000 times and score every draw from scratch."""
    rng = np.random.default_rng(0)
    cells = list(zip(labels.tolist(), decided.tolist(), strict=True))
    macros, micros = [], []
    for _ in range(2000):
        drawn = [cells[row] for row in rng.integers(0, len(cells), len(cells))]
        scores, hits_all, size_all = [], 0, 0
        for label in range(labels.shape[1]):
            known = [(y[label], d[label]) for y, d in drawn if y[label] == y[label]]
            positives = sum(y == 1 for y, _ in known)
            hits = sum(y == 1 and d for y, d in known)
            size = positives + sum(d for _, d in known)
            hits_all, size_all = hits_all + hits, size_all + size
            if positives:
                scores.append(2 * hits / size)
        if scores:
            macros.append(sum(scores) / len(scores))
        if size_all:
            micros.append(2 * hits_all / size_all)
    return {"macro_f1": macros, "micro_f1": micros}


def quantile(values: list[float], share: float) -> float:
    """Linear between neighbours."""
    if not values:
        return NAN
    values = sorted(values)
    below, beyond = divmod(share * (len(values) - 1), 1)
    low, high = values[int(below)], values[min(int(below) + 1, len(values) - 1)]
    return low + beyond * (high - low)


def brute_force_bca(value: float, values: list[float], without: list[float]):
    """Efron 1987, equations 2.3 and 6.6, replicates as large as the value counted half."""
    normal = NormalDist()
    same = sum(abs(x - value) < 1e-12 for x in values)
    below = sum(x < value - 1e-12 for x in values) + same / 2
    share = min(max(below / len(values), 0.5 / len(values)), 1 - 0.5 / len(values))
    z0 = normal.inv_cdf(share)
    mean = sum(without) / len(without)
    pulls = [(mean - x) * (len(without) - 1) / len(without) for x in without]
    squares = sum(u**2 for u in pulls)
    a = sum(u**3 for u in pulls) / (6 * squares**1.5) if squares > 0 else 0
    ends = []
    for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975)):
        ends.append(quantile(values, normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))))
    return ends


@pytest.mark.parametrize(("rows", "missing"), [(1, 0.0), (2, 0.0), (7, 0.0), (9, 0.3), (15, 0.2)])
def test_intervals_are_the_brute_force_bootstrap(rows, missing):
    check_brute_force(*random_table(5, rows, missing))


def test_a_label_without_positives_or_known_rows_is_the_brute_force_bootstraps_too():
    labels, decided = random_table(1, 8)
    labels[:, 1], labels[:, 2] = 0, np.nan
    check_brute_force(labels, decided)


def check_brute_force(labels, decided) -> None:
    rows = np.arange(len(labels))
    leaving_out = [
        compute_metrics(
            labels[rows != row], decided[rows != row].astype(np.float32), decided[rows != row]
        )
        for row in rows
    ]
    replicates = brute_force(labels, decided)
    for name, found in bootstrap_f1(labels, decided).items():
        values = replicates[name]
        same = found.replicates[~np.isnan(found.replicates)]
        np.testing.assert_allclose(same, values, rtol=0, atol=1e-12)
        ends = [quantile(values, 0.025), quantile(values, 0.975)]
        np.testing.assert_allclose(found.percentile, ends, rtol=0, atol=1e-12)
        without = [figures[name] for figures in leaving_out if figures[name] == figures[name]]
        if without:
            ends = brute_force_bca(found.value, values, without)
            np.testing.assert_allclose(found.bca, ends, rtol=0, atol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_every_figure_of_a_resample_is_that_of_the_rows_drawn(missing):
    table = scored(*random_table(3, 25, missing))
    found = bootstrap(*table, 100, 7)
    np.testing.assert_allclose([each.value for each in every(found)], all_figures(*table), 0, 1e-12)
    rng = np.random.default_rng(7)
    for resample in range(100):
        rows = rng.integers(0, 25, 25)
        wanted = all_figures(*(part[rows] for part in table))
        replicate = [each.replicates[resample] for each in every(found)]
        np.testing.assert_allclose(replicate, wanted, rtol=0, atol=1e-9)


def test_bca_is_scipys():
    # Of one label, log loss is a mean over examples, here a skew one.
    probs = np.random.default_rng(0).random((150, 1)).astype(np.float32) ** 3
    found = bootstrap(np.ones((150, 1), np.float32), probs, probs > 0.5, 3000).metrics["log_loss"]
    theirs = scipy.stats.bootstrap(
        (-np.log(np.clip(probs[:, 0].astype(np.float64), 1e-7, 1)),),
        np.mean,
        n_resamples=0,
        method="BCa",
        bootstrap_result=SimpleNamespace(bootstrap_distribution=found.replicates),
    ).confidence_interval
    np.testing.assert_allclose(found.bca, theirs, rtol=0, atol=1e-9)
    assert found.bca[0] > found.percentile[0] + 0.01


def test_bca_of_an_unbiased_symmetric_figure_is_the_percentile_interval():
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(bca(0.5, values, 0.0), (0.025, 0.975), rtol=0, atol=1e-9)
    # Replicates too low move the interval up, and so does a spread that grows with the figure.
    np.testing.assert_allclose(bca(0.6, values, 0.0), (0.073, 0.993), rtol=0, atol=1e-3)
    assert bca(0.5, values, 0.1)[0] > 0.04


def test_leaving_out_groups_tells_the_skew_that_leaving_out_single_examples_tells():
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
def test_intervals_hold_the_figure_they_are_of(seed, rows, missing):
    table = scored(*random_table(seed, rows, missing))
    figures = compute_metrics(*table)
    found = bootstrap(*table, 300)
    for name, each in found.metrics.items():
        if np.isnan(figures[name]):
            assert np.isnan([each.value, *each.interval]).all()
        else:
            assert each.interval[0] <= figures[name] <= each.interval[1], name
    for name in ("macro_f1", "micro_f1", "hamming_loss"):
        low, high = found.metrics[name].percentile
        assert 0 <= low <= figures[name] <= high <= 1, name


def test_intervals_narrow_with_the_root_of_the_size():
    few, many = (bootstrap_f1(*random_table(0, rows)) for rows in (200, 12_800))
    for name in many:
        for kind in ("percentile", "bca", "interval"):
            (low, high), wide = getattr(many[name], kind), getattr(few[name], kind)
            assert high - low < 0.04
            narrowing = (wide[1] - wide[0]) / (high - low)
            assert 6 < narrowing < 10.7, narrowing  # the root of 64 is 8


def test_no_error_and_no_hit_leave_doubt_to_the_smoothed_interval_only():
    labels, _ = random_table(0, 20)
    for decided, value in ((labels == 1, 1), (labels == 0, 0)):
        found = bootstrap_f1(labels, decided)
        for each in found.values():
            assert each.percentile == each.bca == (value, value)
        low, high = found["macro_f1"].interval
        assert max(low, 1 - high) > 0.6
        assert value in (low, high)
        assert found["micro_f1"].interval == (value, value)


def test_of_one_example_the_bootstrap_knows_one_figure():
    labels, decided = np.array([[1.0, 1.0, 0.0]]), np.array([[True, False, True]])
    for each in bootstrap_f1(labels, decided).values():
        assert each.percentile == each.bca == (0.5, 0.5)


def test_the_same_data_and_seed_give_the_same_interval_and_fewer_resamples_are_the_first():
    table = scored(*random_table(0, 20))
    one, same, other, few = (
        bootstrap(*table, *how) for how in ((300, 0), (300, 0), (300, 1), (70, 0))
    )
    np.testing.assert_equal(one, same)
    assert one.metrics["macro_f1"].interval != other.metrics["macro_f1"].interval
    np.testing.assert_array_equal(one.metrics["map"].replicates[:70], few.metrics["map"].replicates)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_label_without_known_positives_has_no_part_in_the_macro_interval(value):
    labels, decided = random_table(2, 40)
    empty = np.full((40, 1), value, np.float32)
    with_empty = np.concatenate([empty, labels], axis=1)
    more = bootstrap_f1(with_empty, np.concatenate([np.ones((40, 1), bool), decided], axis=1))
    without = bootstrap_f1(labels, decided)
    for kind in ("percentile", "bca"):
        pairs = [getattr(found["macro_f1"], kind) for found in (more, without)]
        np.testing.assert_allclose(*pairs, rtol=0, atol=1e-12)
    # The smoothed interval draws anew, of the same four labels.
    pairs = [found["macro_f1"].interval for found in (more, without)]
    np.testing.assert_allclose(*pairs, rtol=0, atol=0.02)
    # In the micro interval known false alarms count, unknown ones do not.
    if np.isnan(value):
        micro = [found["micro_f1"].percentile for found in (more, without)]
        np.testing.assert_allclose(*micro, rtol=0, atol=1e-12)
    else:
        assert more["micro_f1"].percentile[1] < without["micro_f1"].percentile[1]


def test_a_positive_that_few_resamples_draw_is_leave_out_weights_where_it_is_missing():
    # The second label has one positive; the third of the resamples that lacks it is not 1/2.
    labels = np.zeros((30, 2), np.float32)
    labels[:15, 0], labels[0, 1] = 1, 1
    assert bootstrap_f1(labels, labels == 1)["macro_f1"].percentile == (1, 1)


@pytest.mark.parametrize(("rows", "value"), [(0, 0.0), (4, np.nan)])
def test_nothing_known_gives_no_interval(rows, value):
    labels = np.full((rows, 2), value, np.float32)
    for each in every(bootstrap(*scored(labels, np.ones((rows, 2), bool)), 100)):
        assert np.isnan([each.value, *each.percentile, *each.bca, *each.interval]).all()


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("given", [False, True])
def test_labels_of_one_kind_and_constant_probabilities(rows, value, given):
    labels, decided = np.full((rows, 2), value, np.float32), np.full((rows, 2), given)
    table = labels, np.full((rows, 2), 0.3, np.float32), decided
    for each, figure in zip(every(bootstrap(*table, 100)), all_figures(*table), strict=True):
        ends = np.array([*each.percentile, *each.bca])
        np.testing.assert_allclose(ends, np.full(4, figure), rtol=0, atol=1e-12)
        assert np.isnan(each.interval).all() == np.isnan(figure)


@pytest.mark.slow
def test_ten_thousand_resamples_take_seconds_and_little_memory():
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


# The best thresholds in the population, half the F1 that they reach (Lipton et al. 2014).
GRID = np.linspace(0.02, 0.7, 500)
REACHED = np.stack([true_f1(np.full(len(SHARE), at)) for at in GRID]).max(axis=0)
RULES = {"best": REACHED / 2, "half": np.full(len(SHARE), 0.5)}


def coverage(rule: str, simulations: int, resamples: int, first: int = 0):
    """[macro F1 and each label's F1, percentile and BCa and interval]: how often they held the
    population's figure."""
    truth = true_f1(RULES[rule])
    truth = np.array([truth.mean(), *truth])[:, None]
    held = np.zeros((len(truth), 3))
    for seed in range(first, first + simulations):
        labels, probs = draw([17, seed])
        decided = probs >= RULES[rule]
        found = bootstrap(labels, decided.astype(np.float32), decided, resamples, seed)
        figures = [found.metrics["macro_f1"], *found.f1]
        ends = np.array([[each.percentile, each.bca, each.interval] for each in figures])
        held += (ends[..., 0] <= truth) & (truth <= ends[..., 1])
    return held / simulations


@pytest.mark.slow
def test_macro_f1s_interval_holds_the_truth_as_often_as_it_says():
    # Of 60 that hold with 95 %, fewer than 53 do in 1 % of all cases.
    held = coverage("half", 60, 200)
    assert held[0, 2] >= 0.88
    # The F1 of six positives: none is found, and the bootstrap is sure of 0.
    rarest = 1 + int(np.argmin(POSITIVES))
    assert held[rarest, 0] < 0.5 < 0.88 <= held[rarest, 2]
    # Of 300 positives all kinds hold.
    assert held[1 + int(np.argmax(POSITIVES))].min() >= 0.88


if __name__ == "__main__":
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for rule in RULES:
        held = coverage(rule, simulations, 1000)
        error = math.sqrt(0.95 * 0.05 / simulations)
        print(f"thresholds {rule}, {simulations} simulations, standard error {error:.3f}")
        print(f"{'':>10}  percentile     BCa  interval")
        names = ["macro F1", *(f"{positives} pos." for positives in POSITIVES)]
        for index in [0, *(1 + np.argsort(POSITIVES))]:
            print(f"{names[index]:>10}" + "".join(f"{share:>10.3f}" for share in held[index]))
