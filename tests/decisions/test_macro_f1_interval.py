"""The interval of macro F1 covers the truth on a long tail of rare labels.

All coverage rates: PYTHONPATH=. python tests/decisions/test_macro_f1_interval.py [simulations]
"""

import sys

import numpy as np
import pytest
from counting import macro_f1
from long_tail import draw_decisions, make_problem

from jaxclf.decisions.intervals import LEVEL, bootstrap
from jaxclf.decisions.macro_f1_interval import join_similar, macro_f1_interval
from jaxclf.decisions.weighted_counts import count_decisions

CLASSES = (7, 28, 90, 500)


def interval(labels, decided) -> tuple[float, float]:
    return macro_f1_interval(count_decisions(labels, decided), LEVEL)


def long_tail(seed: int, classes: int = 90, rows: int = 500):
    return draw_decisions(make_problem(classes, "good", "half"), rows, seed)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("scorer", ["good", "poor"])
@pytest.mark.parametrize("rule", ["half", "best"])
def test_macro_f1_is_inside(classes, scorer, rule):
    for seed in range(5):
        table = draw_decisions(make_problem(classes, scorer, rule), 300, seed)
        low, high = interval(*table)
        value = macro_f1(*table)
        quarter = (high - low) / 8
        assert 0 <= low < high <= 1
        assert low == 0 or low < value - quarter
        assert value + quarter < high


def test_the_order_of_examples_and_labels_makes_no_difference():
    labels, decided = long_tail(0)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(labels)), rng.permutation(labels.shape[1])
    mixed = interval(labels[rows][:, columns], decided[rows][:, columns])
    np.testing.assert_allclose(mixed, interval(labels, decided), rtol=0, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_label_without_known_positives_is_left_out(value):
    labels, decided = long_tail(1, 7)
    column = np.full((len(labels), 1), value, np.float32), np.ones((len(labels), 1), bool)
    pairs = zip(column, (labels, decided), strict=True)
    more = interval(*(np.concatenate(pair, axis=1) for pair in pairs))
    np.testing.assert_allclose(more, interval(labels, decided), rtol=0, atol=1e-7)


def test_unknown_labels_do_not_count():
    labels, decided = long_tail(2, 7)
    unknown = np.full_like(labels, np.nan)
    doubled = interval(np.concatenate([labels, unknown]), np.concatenate([decided, ~decided]))
    np.testing.assert_allclose(doubled, interval(labels, decided), rtol=0, atol=1e-7)


def test_without_positives_there_is_no_interval():
    for labels in (np.zeros((5, 3)), np.full((5, 3), np.nan), np.zeros((0, 3))):
        assert np.isnan(interval(labels.astype(np.float32), np.ones(labels.shape, bool))).all()


def test_without_errors_or_hits_it_has_a_width():
    labels, _ = long_tail(3)
    errors = 3 / labels.sum()  # more would show an error among the positives in 95 % of the splits
    low, high = interval(labels, labels == 1)
    assert 0.2 * errors < 1 - low < 2 * errors
    assert high == 1
    low, high = interval(labels, labels == -1)
    assert low == 0
    assert 0.2 * errors < high < 8 * errors  # few positives of rare labels carry it


def test_with_many_positives_it_is_the_bootstrap_interval():
    rng = np.random.default_rng(4)
    labels = (rng.random((20_000, 3)) < [0.5, 0.3, 0.2]).astype(np.float32)
    decided = (labels == 1) ^ (rng.random(labels.shape) < 0.1)
    macro = bootstrap(labels, labels, decided, 2000).metrics["macro_f1"]
    np.testing.assert_allclose(macro.interval, macro.percentile, rtol=0, atol=0.0005)


def test_errors_in_the_same_examples_count_together():
    labels, decided = long_tail(5, 7, 5000)
    labels, decided = labels[:, -1:], decided[:, -1:]
    shifted = np.roll(labels, 2500, axis=0), np.roll(decided, 2500, axis=0)
    width = np.ptp(interval(labels, decided))
    same = np.ptp(interval(np.repeat(labels, 2, axis=1), np.repeat(decided, 2, axis=1)))
    pairs = zip((labels, decided), shifted, strict=True)
    apart = np.ptp(interval(*(np.concatenate(pair, axis=1) for pair in pairs)))
    np.testing.assert_allclose([same, apart], [width, width / np.sqrt(2)], rtol=0.02)


def test_a_rare_label_is_judged_by_similar_labels_and_a_frequent_one_by_itself():
    rare = np.array([[0.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0], [3.0, 1.0, 1.0, 1.0]])
    counts = np.concatenate([rare, [[9000.0], [0.0], [1000.0]]], axis=1)
    shares = join_similar(counts)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=0, atol=1e-12)
    assert 0.2 < shares[0, 0] < shares[0, 1] < 0.6
    np.testing.assert_allclose(shares[:, 4], [0.9, 0, 0.1], rtol=0, atol=0.002)


def coverage(classes: int, scorer: str, rule: str, rows: int, simulations: int) -> float:
    """The share of simulations whose interval has the mean F1 in the population, over the labels
    with a positive in the split."""
    problem, hits = make_problem(classes, scorer, rule), 0
    for seed in range(simulations):
        labels, decided = draw_decisions(problem, rows, [19, seed])
        low, high = interval(labels, decided)
        hits += low <= problem.f1[labels.any(axis=0)].mean() <= high
    return hits / simulations


@pytest.mark.slow
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(("scorer", "rule"), [("good", "half"), ("good", "best"), ("poor", "best")])
def test_it_covers_the_truth(classes, scorer, rule):
    # At a coverage of 93 %, fewer than 85 of 100 have a probability of 0.2 %.
    assert coverage(classes, scorer, rule, 500, 100) >= 0.85


if __name__ == "__main__":
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("labels  rows  scorer  thresholds  coverage")
    for classes in CLASSES:
        rates = []
        for rows in (500, 2000, 5000):
            for scorer, rule in (("good", "half"), ("good", "best"), ("poor", "best")):
                rates.append(coverage(classes, scorer, rule, rows, simulations))
                print(f"{classes:6d} {rows:5d}  {scorer:6}  {rule:10}  {rates[-1]:.3f}", flush=True)
        print(f"{classes:6d}  mean {np.mean(rates):.3f}, lowest {min(rates):.3f}", flush=True)
