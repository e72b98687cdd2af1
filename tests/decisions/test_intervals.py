"""Intervals are a bootstrap over examples that a loop over dice rolls repeats exactly."""

import numpy as np
import pytest

from jaxclf.decisions.intervals import f1_intervals
from jaxclf.decisions.metrics import aggregate


def random_table(seed: int, rows: int, missing: float = 0.0):
    """(labels, decided) of four labels from frequent to rare, four of five decisions right."""
    rng = np.random.default_rng([seed, rows])
    labels = (rng.random((rows, 4)) < [0.6, 0.3, 0.2, 0.1]).astype(np.float32)
    decided = (labels == 1) ^ (rng.random(labels.shape) < 0.2)
    labels[rng.random(labels.shape) < missing] = np.nan
    return labels, decided


def brute_force(labels, decided) -> dict[str, tuple[float, float]]:
    """Draw the examples 2000 times, score every draw from scratch, cut off 2.5 % at each end."""
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
    return {"macro_f1": ends(macros), "micro_f1": ends(micros)}


def ends(values: list[float]) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles, linear between neighbours."""
    if not values:
        return float("nan"), float("nan")
    values = sorted(values)

    def quantile(share: float) -> float:
        below, beyond = divmod(share * (len(values) - 1), 1)
        low, high = values[int(below)], values[min(int(below) + 1, len(values) - 1)]
        return low + beyond * (high - low)

    return quantile(0.025), quantile(0.975)


def agree(ours, theirs) -> None:
    assert set(ours) == {"macro_f1", "micro_f1"}
    for name, pair in theirs.items():
        np.testing.assert_allclose(ours[name], pair, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rows", "missing"), [(1, 0.0), (2, 0.0), (7, 0.0), (9, 0.3), (15, 0.2)])
def test_intervals_are_the_brute_force_bootstrap(rows, missing):
    table = random_table(5, rows, missing)
    agree(f1_intervals(*table), brute_force(*table))


def test_a_label_without_positives_or_known_rows_is_the_brute_force_bootstraps_too():
    labels, decided = random_table(1, 8)
    labels[:, 1], labels[:, 2] = 0, np.nan
    agree(f1_intervals(labels, decided), brute_force(labels, decided))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [5, 30, 300])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_intervals_hold_the_figure_they_are_of(seed, rows, missing):
    labels, decided = random_table(seed, rows, missing)
    figures = aggregate(labels, decided.astype(np.float32), decided)
    for name, (low, high) in f1_intervals(labels, decided).items():
        assert 0 <= low <= figures[name] <= high <= 1, name


def test_intervals_narrow_with_the_root_of_the_size():
    few, many = (f1_intervals(*random_table(0, rows)) for rows in (200, 12_800))
    for name, (low, high) in many.items():
        assert high - low < 0.04
        narrowing = (few[name][1] - few[name][0]) / (high - low)
        assert 6 < narrowing < 10.7, narrowing  # the root of 64 is 8


def test_no_error_and_no_hit_leave_no_doubt():
    labels, _ = random_table(0, 20)
    assert f1_intervals(labels, labels == 1) == {"macro_f1": (1, 1), "micro_f1": (1, 1)}
    assert f1_intervals(labels, labels == 0) == {"macro_f1": (0, 0), "micro_f1": (0, 0)}


def test_of_one_example_the_interval_is_the_figure():
    labels, decided = np.array([[1.0, 1.0, 0.0]]), np.array([[True, False, True]])
    assert f1_intervals(labels, decided) == {"macro_f1": (0.5, 0.5), "micro_f1": (0.5, 0.5)}


def test_the_same_data_give_the_same_interval():
    table = random_table(0, 20)
    assert f1_intervals(*table) == f1_intervals(*table)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_label_without_known_positives_has_no_part_in_the_macro_interval(value):
    labels, decided = random_table(2, 40)
    empty = np.full((40, 1), value, np.float32)
    with_empty = np.concatenate([empty, labels], axis=1)
    more = f1_intervals(with_empty, np.concatenate([np.ones((40, 1), bool), decided], axis=1))
    without = f1_intervals(labels, decided)
    np.testing.assert_allclose(more["macro_f1"], without["macro_f1"], rtol=0, atol=1e-12)
    # In the micro interval known false alarms count, unknown ones do not.
    if np.isnan(value):
        np.testing.assert_allclose(more["micro_f1"], without["micro_f1"], rtol=0, atol=1e-12)
    else:
        assert more["micro_f1"][1] < without["micro_f1"][1]


def test_a_positive_that_few_resamples_draw_is_left_out_where_it_is_missing():
    # The second label has one positive; the third of the resamples that lacks it is not 1/2.
    labels = np.zeros((30, 2), np.float32)
    labels[:15, 0], labels[0, 1] = 1, 1
    decided = labels == 1
    assert f1_intervals(labels, decided)["macro_f1"] == (1, 1)


@pytest.mark.parametrize(("rows", "value"), [(0, 0.0), (4, np.nan)])
def test_nothing_known_gives_no_interval(rows, value):
    labels = np.full((rows, 2), value, np.float32)
    for pair in f1_intervals(labels, np.ones((rows, 2), bool)).values():
        assert np.isnan(pair).all()
