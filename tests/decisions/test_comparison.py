"""Differences are of the figures themselves, p-values of every swap tried, and two systems of equal
skill are seldom told apart.

As a script, false positives in full:
PYTHONPATH=. python tests/decisions/test_comparison.py [simulations] [runs]
"""

import itertools
import math
import sys
import time

import numpy as np
import pytest
from counting import f1_per_label
from goemotions_like import DISTANCE, ROWS, SHARE, draw
from scipy.special import expit, logit

from jaxclf.decisions.comparison import Compared, Difference, holm, paired, verdict
from jaxclf.decisions.intervals import bootstrap
from jaxclf.decisions.metrics import METRICS, compute_metrics

NAN = float("nan")


def random_pair(seed: int, rows: int, missing: float = 0.0):
    """(labels, one, other): four labels from frequent to rare, one better than the other."""
    rng = np.random.default_rng([seed, rows])
    labels = (rng.random((rows, 4)) < [0.6, 0.3, 0.2, 0.1]).astype(np.float32)
    systems = []
    for skill in (0.3, 0.1):
        probs = np.clip(0.4 + skill * (2 * labels - 1) + rng.normal(0, 0.2, labels.shape), 0, 1)
        systems.append((probs.round(1).astype(np.float32), probs >= 0.4))
    labels[rng.random(labels.shape) < missing] = np.nan
    return labels, *systems


def every(found: Compared) -> list[Difference]:
    return [*found.metrics.values(), *found.f1]


def all_figures(labels, probs, decided) -> np.ndarray:
    return np.array(
        [*compute_metrics(labels, probs, decided).values(), *f1_per_label(labels, decided)],
        np.float64,
    )


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_a_difference_is_that_of_the_figures(missing):
    labels, one, other = random_pair(0, 40, missing)
    found = every(paired(labels, one, other, 10, 10))
    ours, theirs = all_figures(labels, *one), all_figures(labels, *other)
    for name, figures in (("first", ours), ("second", theirs), ("value", ours - theirs)):
        np.testing.assert_allclose([getattr(each, name) for each in found], figures, 0, 1e-12)


def test_both_systems_are_scored_on_the_same_resamples():
    labels, one, other = random_pair(0, 40, 0.1)
    found = paired(labels, one, other, 200, 10, 3)
    ours, theirs = bootstrap(labels, *one, 200, 3), bootstrap(labels, *other, 200, 3)
    for name in METRICS:
        difference = ours.metrics[name].replicates - theirs.metrics[name].replicates
        np.testing.assert_allclose(found.metrics[name].replicates, difference, rtol=0, atol=1e-12)
    for each, a, b in zip(found.f1, ours.f1, theirs.f1, strict=True):
        np.testing.assert_allclose(each.replicates, a.replicates - b.replicates, rtol=0, atol=1e-12)


def test_a_pair_is_surer_than_its_parts():
    # Systems that err together differ by less than either varies.
    labels, one, _ = random_pair(0, 300)
    other = one[0], one[1] ^ (np.random.default_rng(0).random(labels.shape) < 0.005)
    apart = bootstrap(labels, *one, 500).metrics["micro_f1"].replicates
    together = paired(labels, one, other, 500, 10).metrics["micro_f1"].replicates
    assert np.std(together) < np.std(apart) / 3


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_p_is_the_share_of_all_swaps_that_differ_as_much(missing):
    labels, one, other = random_pair(4, 7, missing)
    observed = np.abs(all_figures(labels, *one) - all_figures(labels, *other))
    as_large = np.zeros(len(observed))
    for swapped in itertools.product([False, True], repeat=7):
        rows = np.array(swapped)[:, None]
        first = [np.where(rows, b, a) for a, b in zip(one, other, strict=True)]
        second = [np.where(rows, a, b) for a, b in zip(one, other, strict=True)]
        difference = all_figures(labels, *first) - all_figures(labels, *second)
        as_large += np.abs(difference) >= observed - 1e-12
    found = [each.p for each in every(paired(labels, one, other, 10, 20_000))]
    wanted = np.where(np.isnan(observed), np.nan, as_large / 2**7)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.02)


def test_a_system_does_not_differ_from_itself():
    labels, one, _ = random_pair(1, 30)
    for each in every(paired(labels, one, one, 100, 100)):
        assert (each.value, each.percentile, each.bca, each.p) == (0, (0, 0), (0, 0), 1)


def test_the_order_of_systems_is_a_matter_of_sign():
    labels, one, other = random_pair(2, 40, 0.1)
    there, back = paired(labels, one, other, 200, 200), paired(labels, other, one, 200, 200)
    for a, b in zip(every(there), every(back), strict=True):
        assert (a.value, a.first, a.p) == (-b.value, b.second, b.p)
        np.testing.assert_allclose(a.percentile, (-b.percentile[1], -b.percentile[0]), atol=1e-12)
        np.testing.assert_allclose(a.bca, (-b.bca[1], -b.bca[0]), rtol=0, atol=1e-9)


def test_p_is_never_nought_and_a_better_system_is_found_better():
    labels, one, other = random_pair(3, 300)
    found = paired(labels, one, other, 300, 300).metrics
    for name in ("macro_f1", "micro_f1", "macro_auc", "map", "hamming_loss", "log_loss"):
        each = found[name]
        assert each.p == 1 / 301
        said = verdict(each.value, *each.percentile, each.p, METRICS[name].higher_is_better)
        assert said == "A is better", name


def test_the_same_seed_gives_the_same_comparison():
    pair = random_pair(0, 20)
    np.testing.assert_equal(paired(*pair, 100, 100, 5), paired(*pair, 100, 100, 5))


def test_a_run_twice_is_that_run():
    labels, one, other = random_pair(0, 40)
    single = paired(labels, one, other, 200, 200)
    double = paired(labels, [one, one], [other, other], 200, 200)
    lists = paired(labels, [one], [other], 200, 200)
    for a, b, c in zip(every(single), every(double), every(lists), strict=True):
        np.testing.assert_equal(a, c)
        assert a.p == b.p
        for name in ("first", "second", "value", "replicates", "percentile", "bca"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-9)


def test_the_figure_of_several_runs_is_their_mean_also_where_numbers_differ():
    labels, one, other = random_pair(0, 40)
    third = random_pair(1, 40)[1]
    found = every(paired(labels, [one, third, third], [other, one], 50, 50))
    ours, theirs, thirds = (all_figures(labels, *run) for run in (one, other, third))
    np.testing.assert_allclose([each.first for each in found], (ours + 2 * thirds) / 3, 0, 1e-12)
    np.testing.assert_allclose([each.second for each in found], (theirs + ours) / 2, 0, 1e-12)
    with pytest.raises(ValueError, match="without runs"):
        paired(labels, [one], [], 50, 50)


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_resampled_runs_spread_as_the_mean_of_runs_does(runs):
    # Every example is the same, so that only runs differ, in the probability they give.
    labels = np.ones((20, 1), np.float32)
    said = np.random.default_rng(runs).uniform(0.5, 0.9, (2, runs)).astype(np.float32)
    one, other = (
        [(np.full((20, 1), p, np.float32), np.ones((20, 1), bool)) for p in side] for side in said
    )
    found = paired(labels, one, other, 4000, 10).metrics["log_loss"]
    error = math.sqrt(np.sum(np.var(-np.log(said), axis=1, ddof=1)) / runs)
    np.testing.assert_allclose(np.std(found.replicates), error, rtol=0.05)
    assert found.percentile[0] < found.value < found.percentile[1]


@pytest.mark.parametrize(("rows", "value"), [(0, 0.0), (3, NAN)])
def test_nothing_known_gives_no_difference(rows, value):
    labels = np.full((rows, 2), value, np.float32)
    outputs = np.full((rows, 2), 0.5, np.float32), np.ones((rows, 2), bool)
    for each in every(paired(labels, outputs, outputs, 20, 20)):
        assert np.isnan([each.value, *each.percentile, *each.bca, each.p]).all()
        assert verdict(each.value, *each.percentile, each.p) == "no evidence of a difference"


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_labels_of_one_kind_and_constant_probabilities(rows, value):
    labels = np.full((rows, 2), value, np.float32)
    one, other = (
        (np.full((rows, 2), at, np.float32), np.full((rows, 2), at > 0.5)) for at in (0.3, 0.8)
    )
    for each in every(paired(labels, one, other, 20, 20)):
        unknown = np.isnan(each.value)
        for ends in (each.percentile, each.bca):
            np.testing.assert_allclose(ends, (each.value, each.value), rtol=0, atol=1e-12)
        assert np.isnan(each.p) if unknown else 0 < each.p <= 1


def test_holm_on_p_values_one_can_adjust_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.9, 0.001]), [1, 1, 0.003])
    # A label without a test counts for nothing.
    np.testing.assert_allclose(holm([0.02, NAN, 0.03]), [0.04, NAN, 0.04])
    assert holm([]).shape == (0,)
    assert np.isnan(holm(np.array([NAN, NAN]))).all()


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_stepping_down_rejects(seed):
    p = np.random.default_rng(seed).random(28) ** 6
    left, rejected = sorted(p.tolist()), []
    while left and left[0] <= 0.05 / len(left):
        rejected.append(left.pop(0))
    assert sorted(p[holm(p) <= 0.05].tolist()) == rejected


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "said"),
    [
        (0.02, 0.01, 0.03, 0.01, "A is better"),
        (-0.02, -0.03, -0.01, 0.01, "B is better"),
        (0.02, 0.01, 0.03, 0.06, "no evidence of a difference"),
        (0.02, -0.01, 0.03, 0.01, "no evidence of a difference"),
        (0.02, 0.0, 0.03, 0.01, "no evidence of a difference"),
        (-0.02, 0.01, 0.03, 0.01, "no evidence of a difference"),
        (0.0, 0.0, 0.0, 1.0, "no evidence of a difference"),
        (NAN, NAN, NAN, NAN, "no evidence of a difference"),
        (0.02, 0.01, 0.03, NAN, "no evidence of a difference"),
        (0.02, 0.01, 0.03, 0.05, "A is better"),
    ],
)
def test_a_verdict_needs_both_the_interval_and_the_test(difference, low, high, p, said):
    assert verdict(difference, low, high, p) == said
    opposite = {"A is better": "B is better", "B is better": "A is better"}
    assert verdict(difference, low, high, p, higher_is_better=False) == opposite.get(said, said)


def test_ten_thousand_paired_resamples_take_seconds():
    labels, probs = draw(0)
    one, other = (probs, probs >= 0.3), (probs**2, probs >= 0.4)
    start = time.process_time()
    paired(labels, one, other, 640, 0)
    # Ten seconds of two cores are twenty of processor time, whatever else the machine does.
    assert (time.process_time() - start) * 10_000 / 640 < 20


def alike(rng, rows, share, distance, runs: int, unrest: float = 0.0):
    """(labels, one, other): systems of equal skill, two thirds of their errors in common; the skill
    of a run differs by `unrest` from that of another."""
    labels = rng.random((rows, len(share))) < share
    common = rng.normal(size=labels.shape)
    sides = []
    for _ in range(2):
        sides.append([])
        for _ in range(runs):
            reached = distance + unrest * rng.normal(size=len(share))
            noise = math.sqrt(2 / 3) * common + math.sqrt(1 / 3) * rng.normal(size=labels.shape)
            score = noise + reached * labels
            probs = expit(logit(share) + distance * score - distance**2 / 2).astype(np.float32)
            sides[-1].append((probs, probs >= 0.3))
    return labels.astype(np.float32), *sides


def false_positives(simulations: int, resamples: int, swaps: int, *world, seed: int = 0):
    """[simulations, figures, 3]: whether the test, the interval and the verdict see a difference
    where there is none."""
    seen = []
    for simulation in range(simulations):
        case = alike(np.random.default_rng([seed, simulation]), *world)
        found = every(paired(*case, resamples, swaps, simulation))
        seen.append(
            [
                (
                    each.p <= 0.05,
                    not each.percentile[0] <= 0 <= each.percentile[1],
                    verdict(each.value, *each.percentile, each.p) != "no evidence of a difference",
                )
                for each in found
            ]
        )
    return np.array(seen)


@pytest.mark.slow
def test_equal_systems_are_seldom_told_apart():
    share = np.array([0.5, 0.2, 0.05])
    seen = false_positives(300, 99, 99, 150, share, np.array([1.5, 2.0, 2.5]), 1)
    told, _, said = seen.mean(axis=0).T
    assert told.mean() <= 0.06
    # Of 5 %, more than 25 of 300 are seen in 1 % of all cases.
    assert told[METRICS.index("macro_f1")] <= 25 / 300
    assert (said <= told).all()


if __name__ == "__main__":
    simulations, runs = (int(value) for value in (sys.argv[1:] + ["500", "1"][len(sys.argv) - 1 :]))
    unrest = 0.1 if runs > 1 else 0.0
    seen = false_positives(simulations, 1000, 1000, ROWS, SHARE, DISTANCE, runs, unrest)
    error = math.sqrt(0.05 * 0.95 / simulations)
    print(f"{simulations} simulations of {runs} runs, standard error {error:.3f}")
    print(f"{'':>16}    test  interval  verdict")
    for name, rates in zip(METRICS, seen.mean(axis=0), strict=False):
        print(f"{name:>16}" + "".join(f"{rate:>9.3f}" for rate in rates))
    rates = seen[:, len(METRICS) :].mean(axis=(0, 1))
    print(f"{'F1 of labels':>16}" + "".join(f"{rate:>9.3f}" for rate in rates))


def test_the_same_networks_decided_otherwise_are_resampled_together():
    """What a seed is worth cancels: figures of the probabilities differ by nothing at all."""
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 3)) < 0.4).astype(np.float32)
    probs = [
        np.clip(share * labels + rng.random(labels.shape), 0, 1).astype(np.float32) / 2
        for share in (0.1, 0.5, 0.9)
    ]
    one, other = ([(p, p > cut) for p in probs] for cut in (0.3, 0.4))
    apart = paired(labels, one, other, 300, 50)
    together = paired(labels, one, other, 300, 50, matched=True)
    assert np.ptp(apart.metrics["map"].replicates) > 0.1
    assert not together.metrics["map"].replicates.any()
    found, loose = together.metrics["macro_f1"], apart.metrics["macro_f1"]
    assert found.value == loose.value
    assert 0 < np.std(found.replicates) < np.std(loose.replicates)
    with pytest.raises(ValueError, match="number of runs"):
        paired(labels, one, other[:2], 10, 10, matched=True)
