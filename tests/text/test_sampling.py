"""What an epoch visits: everyone once, or the rare more often by exactly the stated counts, and
weights that take it back where that is asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from jaxclf.experiment.overrides import options_of
from jaxclf.text.sampling import (
    SAMPLERS,
    balanced,
    example_weights,
    shuffle,
)

MATRICES = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1])
)
SEEDS = st.integers(0, 2**32)
# Kinds of examples to draw from by the thousand: common, rare, both, none.
KINDS = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32)


def matrix(*rows):
    return np.array(rows, np.float32)


# Matrices on which a count may be 0 or everyone.
UNUSUAL = {
    "no_labels_at_all": np.zeros((40, 3), np.float32),
    "no_columns": np.zeros((40, 0), np.float32),
    "one_example": matrix([1, 0, 1]),
    "one_bare_example": matrix([0, 0]),
    "a_label_nobody_has": np.tile(matrix([1, 0, 0], [1, 0, 1], [0, 0, 0]), (20, 1)),
    "a_label_all_have": np.tile(matrix([1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0]), (20, 1)),
}


def draw(sampler, labels, *seed, **options):
    return sampler(labels, np.random.default_rng(seed), **options)


def counts_of(row, labels):
    """Positives of each label the row has."""
    counts = [sum(example[label] for example in labels) for label in range(len(row))]
    return [count for count, has in zip(counts, row, strict=True) if has]


def brute_weight(row, labels, power):
    """(examples / positives) ** power of the row's rarest label."""
    return max([len(labels) / count for count in counts_of(row, labels)], default=1.0) ** power


def shares_of(masses):
    return np.array(masses, np.float64) / sum(masses)


def balanced_visits(labels, power=0.5):
    rows = labels.tolist()
    return len(rows) * shares_of([brute_weight(row, rows, power) for row in rows])


@settings(deadline=None)
@given(labels=MATRICES, power=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]))
def test_an_example_weighs_as_its_rarest_label(labels, power):
    weights = example_weights(labels, power)
    expected = [brute_weight(row, labels.tolist(), power) for row in labels.tolist()]
    # Both are one float32 division and power away from the truth.
    np.testing.assert_allclose(weights, np.array(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@settings(deadline=None, max_examples=50)
@given(labels=MATRICES, seed=SEEDS)
def test_every_draw_inverts_the_cumulative_distribution(power, labels, seed):
    order = draw(balanced, labels, seed, power=power).order
    shares = np.cumsum(balanced_visits(labels, power)) / len(labels)
    points = np.random.default_rng(seed).random(len(labels))
    # A point within float32 rounding of a boundary may fall to either side.
    low = np.searchsorted(shares, points - 1e-6, side="right")
    high = np.minimum(np.searchsorted(shares, points + 1e-6, side="right"), len(labels) - 1)
    assert ((low <= order) & (order <= high)).all()


@settings(deadline=None)
@given(labels=MATRICES, seed=SEEDS)
def test_shuffle_draws_are_pinned(labels, seed):
    """To the bit; everyone once, and with the same weight."""
    order, weights = draw(shuffle, labels, seed)
    assert np.array_equal(order, np.random.default_rng(seed).permutation(len(labels)))
    assert weights.tolist() == [1] * len(labels)


@pytest.mark.parametrize(
    "options", [{}, {"power": 0.5}, {"power": 1.0}, {"importance_weighting": 1.0}]
)
def test_balanced_draws_are_pinned(options):
    """To the bit, since results were measured with it, and with any importance_weighting."""
    labels = np.repeat(KINDS, [30_000, 2_000, 500, 67_500], axis=0)
    count = len(labels)
    rarity = (count / labels.sum(axis=0)) ** options.get("power", 0.5)
    mass = np.max(labels * rarity, axis=1, initial=1.0)
    assert mass.dtype == np.float32

    def drawn(mass):
        return np.random.default_rng(11).choice(count, size=count, p=mass / mass.sum())

    order = draw(balanced, labels, 11, **options).order
    assert np.array_equal(order, drawn(mass))
    assert not np.array_equal(order, drawn(mass.astype(np.float64)))  # so many draws can tell


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@settings(deadline=None, max_examples=50)
@given(labels=MATRICES, seed=SEEDS)
def test_weights_are_inverse_powers_of_the_expected_draws(power, labels, seed):
    expected = balanced_visits(labels, power)
    for importance_weighting in (0.0, 0.3, 1.0):
        options = {"power": power, "importance_weighting": importance_weighting}
        weights = draw(balanced, labels, seed, **options).weights
        # The visits of `balanced` are some float32 operations away from the truth.
        np.testing.assert_allclose(
            weights, (1 / expected) ** importance_weighting, rtol=2e-6, atol=0
        )
    values = np.random.default_rng(seed).normal(size=len(labels))
    # As above, and each term may be wrong in the same direction.
    assert abs((expected * weights * values - values).sum()) <= 2e-6 * np.abs(values).sum()
    assert draw(balanced, labels, seed, power=power).weights.tolist() == [1] * len(labels)


CHANGES = [
    ("balanced", "power", 0.5, 1.0),
    ("balanced", "importance_weighting", 0.0, 0.5),
]


def test_every_option_of_every_sampler_is_tested():
    options = {(name, key) for name, function in SAMPLERS.items() for key in options_of(function)}
    assert {(name, key) for name, key, _, _ in CHANGES} == options


@pytest.mark.parametrize(("name", "option", "default", "value"), CHANGES)
def test_every_option_changes_the_draws_or_the_weights(name, option, default, value):
    labels = np.repeat(KINDS, [300, 8, 2, 90], axis=0)
    plain = draw(SAMPLERS[name], labels)
    explicit, changed = (draw(SAMPLERS[name], labels, **{option: v}) for v in (default, value))
    assert np.array_equal(plain.order, explicit.order)
    assert np.array_equal(plain.weights, explicit.weights)
    if option == "importance_weighting":
        assert np.array_equal(plain.order, changed.order)
        assert not np.array_equal(plain.weights, changed.weights)
    else:
        assert not np.array_equal(plain.order, changed.order)


@pytest.mark.parametrize("case", UNUSUAL)
@pytest.mark.parametrize("name", SAMPLERS)
def test_unusual_labels_are_drawn_too(name, case):
    labels, count = UNUSUAL[case], len(UNUSUAL[case])
    corrected = (
        {"importance_weighting": 1.0}
        if "importance_weighting" in options_of(SAMPLERS[name])
        else {}
    )
    for options in ({}, corrected):
        order, weights = draw(SAMPLERS[name], labels, **options)
        assert ((order >= 0) & (order < count)).all()
        assert len(order) == count
        assert weights.dtype == np.float32
        assert weights.shape == (count,)
        assert np.isfinite(weights).all()
        assert (weights > 0).all()  # 0 would mark an empty slot
    if not labels.any() or count == 1:  # all are alike
        np.testing.assert_allclose(weights, 1, rtol=1e-6)
        if name == "shuffle":
            assert sorted(order.tolist()) == list(range(count))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_order_is_a_pure_function_of_the_generator(name):
    labels = (np.random.default_rng(7).random((200, 3)) < 0.1).astype(np.float32)
    before = labels.copy()
    state = np.random.get_state()[1].copy()
    drawn = [draw(SAMPLERS[name], labels, 3, epoch) for epoch in (0, 0, 1)]
    orders = [epoch.order for epoch in drawn]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    # A weight says what an example is to the whole set, whatever an epoch happens to draw.
    assert all(np.array_equal(epoch.weights, drawn[0].weights) for epoch in drawn)
    assert np.array_equal(labels, before)
    assert np.array_equal(state, np.random.get_state()[1])
    assert ((orders[0] >= 0) & (orders[0] < 200)).all()
    assert len(orders[0]) == 200
