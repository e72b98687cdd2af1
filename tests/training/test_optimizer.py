"""Schedules at the points one can name, clipping and decay as stated, accumulation in optax's own
words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf.experiment.config import Optim, Spec
from jaxclf.training.optimizer import clip_by_global_norm, decay_mask, learning_rate, make_optimizer
from jaxclf.training.schedules import SCHEDULES, constant, cosine, cosine_restarts, linear

PEAK, WARMUP, STEPS = 1.0, 10, 110


def rates(schedule, steps=STEPS):
    return np.array([float(schedule(step)) for step in range(steps + 1)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_a_straight_line_to_the_peak(name):
    found = rates(SCHEDULES[name](PEAK, WARMUP, STEPS))
    np.testing.assert_allclose(found[: WARMUP + 1], np.linspace(1 / 11, 1, 11), rtol=1e-5)
    assert found.max() == pytest.approx(PEAK)
    assert found[0] > 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_warm_up_starts_at_the_peak(name):
    assert float(SCHEDULES[name](PEAK, 0, STEPS)(0)) == pytest.approx(PEAK)


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_step_is_enough(name):
    assert np.isfinite(rates(SCHEDULES[name](PEAK, 0, 1), 1)).all()


def test_linear_and_cosine_pass_the_half_and_end_at_zero():
    for schedule in (linear, cosine):
        found = rates(schedule(PEAK, WARMUP, STEPS))
        assert found[60] == pytest.approx(0.5, abs=1e-6)
        assert found[110] == pytest.approx(0, abs=1e-6)
        assert (np.diff(found[WARMUP:]) <= 1e-7).all()
    assert rates(constant(PEAK, WARMUP, STEPS))[WARMUP:].tolist() == [1.0] * 101


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_end_is_a_share_of_the_peak(schedule):
    assert float(schedule(2.0, 0, 100, end_factor=0.1)(100)) == pytest.approx(0.2)


def test_restarts_fall_in_equal_cycles_from_shrinking_peaks():
    found = rates(cosine_restarts(PEAK, WARMUP, STEPS, cycles=4, decay=0.5))
    for cycle in range(4):
        start = WARMUP + 25 * cycle
        assert found[start] == pytest.approx(0.5**cycle, rel=1e-5)
        expected = 0.5**cycle * (1 + np.cos(np.pi * np.arange(25) / 25)) / 2
        np.testing.assert_allclose(found[start : start + 25], expected, atol=1e-6)


def test_the_experiment_warms_up_for_a_share_of_its_updates():
    schedule = learning_rate(Optim(lr=0.5, warmup_ratio=0.1, schedule=Spec("constant")), 100)
    found = rates(schedule, 20)
    assert found[9] < 0.5
    assert found[10] == pytest.approx(0.5)


def test_clipping_is_optax():
    tree = {"a": jnp.asarray([3.0, 4.0]), "b": jnp.asarray([[12.0]])}
    for largest in (0.5, 13.0, 100.0):
        ours, _ = clip_by_global_norm(largest).update(tree, optax.EmptyState())
        theirs, _ = optax.clip_by_global_norm(largest).update(tree, optax.EmptyState())
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    zero = jax.tree.map(jnp.zeros_like, tree)
    still, _ = clip_by_global_norm(1.0).update(zero, optax.EmptyState())
    assert not any(leaf.any() for leaf in jax.tree.leaves(still))


def test_biases_and_norms_are_not_decayed():
    params = {
        "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "word": {"embedding": jnp.ones((3, 2))},
    }
    assert decay_mask(params) == {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "word": {"embedding": True},
    }
    tx = make_optimizer(
        Optim(lr=0.1, weight_decay=0.5, warmup_ratio=0.0, schedule=Spec("constant")), 10
    )
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["dense"]["kernel"], 0.95)
    np.testing.assert_allclose(after["word"]["embedding"], 0.95)
    np.testing.assert_array_equal(after["norm"]["scale"], 1)
    np.testing.assert_array_equal(after["dense"]["bias"], 1)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.01},
        {"weight_decay": 0.3},
        {"schedule": Spec("constant")},
        {"warmup_ratio": 0.5},
        {"max_grad_norm": 0.01},
        {"gradient_accumulation_steps": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_changes_the_parameters(change):
    def end(optim):
        tx = make_optimizer(optim, 4)
        params = {"kernel": jnp.ones((2, 3))}
        state = tx.init(params)
        for step in range(4):
            gradient = {"kernel": jnp.full((2, 3), step + 1.0)}
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return np.asarray(params["kernel"])

    base = Optim(lr=0.1, weight_decay=0.1, warmup_ratio=0.0, max_grad_norm=1.0)
    if (
        "max_grad_norm" in change
    ):  # Adam is blind to the scale of a constant clip: look at epsilon's side
        change = {"max_grad_norm": 1e-9}
    assert not np.allclose(end(base), end(Optim(**{**vars(base), **change})), rtol=1e-5)
