"""Schedules at known points; clipping and weight decay as defined; every option has an effect."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf.experiment.config import Optim, Spec
from jaxclf.training.optimizer import (
    SCHEDULES,
    clip_by_global_norm,
    decay_mask,
    learning_rate,
    make_optimizer,
)

PEAK, WARMUP, STEPS = 1.0, 10, 110


def make_schedule(name, peak=PEAK, warmup=WARMUP, steps=STEPS, **options):
    optim = Optim(lr=peak, schedule=Spec(name, **options), warmup_ratio=warmup / steps)
    return learning_rate(optim, steps)


def compute_rates(schedule, steps=STEPS):
    return np.array([float(schedule(step)) for step in range(steps + 1)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_warmup_is_linear(name):
    rates = compute_rates(make_schedule(name))
    np.testing.assert_allclose(rates[: WARMUP + 1], np.linspace(1 / 11, 1, 11), rtol=1e-5)
    assert rates.max() == pytest.approx(PEAK)
    assert rates[0] > 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warmup_the_first_rate_is_the_peak(name):
    assert float(make_schedule(name, warmup=0)(0)) == pytest.approx(PEAK)
    assert np.isfinite(compute_rates(make_schedule(name, warmup=0, steps=1), 1)).all()


def test_linear_and_cosine_decay_to_zero():
    for name in ("linear", "cosine"):
        rates = compute_rates(make_schedule(name))
        np.testing.assert_allclose(rates[[60, 110]], [0.5, 0], atol=1e-6)
        assert (np.diff(rates[WARMUP:]) <= 1e-7).all()
        schedule = make_schedule(name, 2.0, 0, 100, end_factor=0.1)
        assert float(schedule(100)) == pytest.approx(0.2)
    assert (compute_rates(make_schedule("constant"))[WARMUP:] == PEAK).all()


def test_restarts_have_equal_cycles_and_decaying_peaks():
    rates = compute_rates(make_schedule("cosine_restarts", cycles=4, decay=0.5))
    for cycle in range(4):
        start = WARMUP + 25 * cycle
        assert rates[start] == pytest.approx(0.5**cycle, rel=1e-5)
        expected = 0.5**cycle * (1 + np.cos(np.pi * np.arange(25) / 25)) / 2
        np.testing.assert_allclose(rates[start : start + 25], expected, atol=1e-6)


def test_the_warmup_ratio_is_a_fraction_of_the_updates():
    schedule = learning_rate(Optim(lr=0.5, warmup_ratio=0.1, schedule=Spec("constant")), 100)
    rates = compute_rates(schedule, 20)
    assert rates[9] < 0.5
    assert rates[10] == pytest.approx(0.5)


def test_clipping_is_that_of_optax():
    tree = {"a": jnp.asarray([3.0, 4.0]), "b": jnp.asarray([[12.0]])}
    for max_norm in (0.5, 13.0, 100.0):
        clipped, expected = (
            transform(max_norm).update(tree, optax.EmptyState())[0]
            for transform in (clip_by_global_norm, optax.clip_by_global_norm)
        )
        chex.assert_trees_all_close(clipped, expected, rtol=1e-6)
    zeros = jax.tree.map(jnp.zeros_like, tree)
    clipped, _ = clip_by_global_norm(1.0).update(zeros, optax.EmptyState())
    chex.assert_trees_all_equal(clipped, zeros)


def test_biases_and_norms_are_not_decayed():
    params = {
        "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "word": {"embedding": jnp.ones((3, 2))},
    }
    is_decayed = {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "word": {"embedding": True},
    }
    assert decay_mask(params) == is_decayed
    optim = Optim(lr=0.1, weight_decay=0.5, warmup_ratio=0.0, schedule=Spec("constant"))
    tx = make_optimizer(optim, 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    expected = jax.tree.map(lambda leaf, decay: leaf * (0.95 if decay else 1), params, is_decayed)
    chex.assert_trees_all_close(optax.apply_updates(params, updates), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.01},
        {"weight_decay": 0.3},
        {"schedule": Spec("constant")},
        {"warmup_ratio": 0.5},
        # Adam does not depend on the scale of a constant gradient, except near its epsilon.
        {"max_grad_norm": 1e-9},
        {"gradient_accumulation_steps": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_changes_the_parameters(change):
    def train(optim):
        tx, params = make_optimizer(optim, 4), {"kernel": jnp.ones((2, 3))}
        state = tx.init(params)
        for step in range(4):
            gradient = {"kernel": jnp.full((2, 3), step + 1.0)}
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return np.asarray(params["kernel"])

    optim = Optim(lr=0.1, weight_decay=0.1, warmup_ratio=0.0, max_grad_norm=1.0)
    assert not np.allclose(train(optim), train(Optim(**{**vars(optim), **change})), rtol=1e-5)
