"""The order of an epoch: everyone once, or the rare more often by exactly the stated weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from jaxclf.text.sampling import SAMPLERS, balanced, example_weights, shuffle

MATRICES = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1])
)


def brute_weight(row, labels, power):
    """(examples / positives) ** power of the row's rarest label."""
    counts = [sum(other[label] for other in labels) for label in range(len(row))]
    rarities = [len(labels) / count for count, has in zip(counts, row, strict=True) if has]
    return max(rarities, default=1.0) ** power


@settings(deadline=None)
@given(labels=MATRICES, power=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]))
def test_an_example_weighs_as_its_rarest_label(labels, power):
    weights = example_weights(labels, power)
    expected = [brute_weight(row, labels.tolist(), power) for row in labels.tolist()]
    # Both are one float32 division and power away from the truth.
    np.testing.assert_allclose(weights, np.array(expected), rtol=1e-6, atol=0)


def test_weights_one_can_check_by_eye():
    labels = np.array([[1, 0], [1, 0], [1, 1], [1, 0], [0, 0]], np.float32)
    common, rare, none = 5 / 4, 5 / 1, 1
    expected = np.array([common, common, rare, common, none], np.float32)
    assert np.array_equal(example_weights(labels, 1.0), expected)
    assert np.array_equal(example_weights(labels, 0.0), np.ones(5, np.float32))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_draws_fall_out_as_the_weights_say(power):
    # A common label, a rare one, none; a share of so many draws lies within 5 sd of its mean.
    kinds, counts = np.array([[1, 0], [0, 1], [0, 0]], np.float32), [60_000, 3_000, 37_000]
    labels = np.repeat(kinds, counts, axis=0)
    total = sum(counts)
    weights = [count * (total / count) ** power for count in counts[:2]] + [counts[2]]
    order = balanced(labels, np.random.default_rng(0), power=power)
    assert len(order) == total
    drawn = np.searchsorted(np.cumsum(counts), order, side="right")
    for kind, weight in enumerate(weights):
        share = weight / sum(weights)
        deviation = (share * (1 - share) * total) ** 0.5
        assert abs((drawn == kind).sum() - share * total) < 5 * deviation
    within = order[drawn == 0] >= counts[0] // 2  # alike examples are drawn alike
    assert abs(within.mean() - 0.5) < 5 * 0.5 / len(within) ** 0.5


@settings(deadline=None)
@given(labels=MATRICES, seed=st.integers(0, 2**32))
def test_every_draw_follows_the_inverse_of_the_cumulated_weights(labels, seed):
    order = balanced(labels, np.random.default_rng(seed), power=1.0)
    weights = example_weights(labels, 1.0).astype(np.float64)
    shares = np.cumsum(weights / weights.sum())
    points = np.random.default_rng(seed).random(len(labels))
    # A point within float32 rounding of a boundary may fall to either side.
    low = np.searchsorted(shares, points - 1e-6, side="right")
    high = np.minimum(np.searchsorted(shares, points + 1e-6, side="right"), len(labels) - 1)
    assert ((low <= order) & (order <= high)).all()


@settings(deadline=None)
@given(labels=MATRICES, seed=st.integers(0, 2**32))
def test_shuffle_visits_everyone_once(labels, seed):
    order = shuffle(labels, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_order_is_a_pure_function_of_the_generator(name):
    labels = (np.random.default_rng(7).random((200, 3)) < 0.1).astype(np.float32)
    before = labels.copy()
    state = np.random.get_state()[1].copy()
    orders = [SAMPLERS[name](labels, np.random.default_rng([3, epoch])) for epoch in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert np.array_equal(labels, before)
    assert np.array_equal(state, np.random.get_state()[1])
    assert ((orders[0] >= 0) & (orders[0] < 200)).all()
    assert len(orders[0]) == 200
