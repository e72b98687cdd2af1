"""The train step: accumulation is the big batch, empty slots count for nothing, one compilation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf.config import Optim, Spec
from jaxclf.model.classifier import build
from jaxclf.text import packing
from jaxclf.text.packing import plan, training_shape
from jaxclf.training.losses import LOSSES
from jaxclf.training.optimizer import make_optimizer
from jaxclf.training.step import dropout_key, make_train_step
from jaxclf.types import LabelStats, Shape, State, Tokens

LENGTH, CLASSES, COUNT = 16, 3, 32


def data(seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 12, COUNT)
    tokens = Tokens(
        rng.integers(1, 50, lengths.sum()).astype(np.int32),
        np.cumsum([0, *lengths]).astype(np.int32),
        np.arange(COUNT, dtype=np.int32),
    )
    labels = (rng.random((COUNT, CLASSES)) < 0.4).astype(np.float32)
    return tokens, labels, np.ones_like(labels)


def fill(*args):
    return jax.tree.map(jnp.asarray, packing.fill(*args))


def batch_of(examples, shape):
    tokens, labels, known = data()
    (placement,) = plan(tokens, examples, shape)
    return fill(tokens, labels, known, placement, shape)


def setup(tiny_experiment, tiny_config, optim, loss="bce", batch_size=COUNT):
    init, apply = build(tiny_experiment, tiny_config, CLASSES)
    tokens, labels, known = data()
    batch = fill(tokens, labels, known, None, Shape(1, LENGTH, 1))
    params = jax.jit(init)(jax.random.key(0), batch)
    tx = make_optimizer(optim, 100)
    stats = LabelStats(labels.sum(axis=0), known.sum(axis=0))
    step = make_train_step(apply, LOSSES[loss], tx, stats, batch_size)
    state = State(jnp.int32(0), params, tx.init(params), jnp.asarray(dropout_key(0)))
    return step, state


def assert_close(one, other, atol):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


OPTIM = Optim(lr=1e-2, warmup=0.0, schedule=Spec("constant"), clip=1e9)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_batches_of_16_equal_one_of_32(tiny_experiment, tiny_config, loss):
    """SGD-like comparison through the whole chain; dropout off, since the masks would differ."""
    sgd = optax.sgd(1.0)
    _, state = setup(tiny_experiment, tiny_config, OPTIM, loss, 32)
    init, apply = build(tiny_experiment, tiny_config, CLASSES)
    still = functools.partial(_without_dropout, apply)
    stats = LabelStats(jnp.ones(CLASSES), jnp.full(CLASSES, 32.0))
    one = make_train_step(still, LOSSES[loss], sgd, stats, 32)
    two = make_train_step(
        still, LOSSES[loss], optax.MultiSteps(sgd, 2).gradient_transformation(), stats, 16
    )
    shape = Shape(24, LENGTH, 32)
    copy = jax.tree.map(jnp.copy, state.params)
    key = state.key
    after_one, _ = one(
        State(jnp.int32(0), state.params, sgd.init(state.params), jnp.copy(key)),
        batch_of(range(32), shape),
    )
    multi = optax.MultiSteps(sgd, 2).gradient_transformation()
    after_two = State(jnp.int32(0), copy, multi.init(copy), jnp.copy(key))
    for examples in (range(16), range(16, 32)):
        after_two, _ = two(after_two, batch_of(examples, shape))
    assert_close(after_one.params, after_two.params, 1e-6)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after_one.params, init_of(init))
    assert max(jax.tree.leaves(moved)) > 1e-2


def init_of(init):
    tokens, labels, known = data()
    batch = fill(tokens, labels, known, None, Shape(1, LENGTH, 1))
    return jax.jit(init)(jax.random.key(0), batch)


def _without_dropout(apply, params, batch, key):
    return apply(params, batch)


def test_accumulation_updates_every_kth_batch_with_the_mean(tiny_experiment, tiny_config):
    step, state = setup(tiny_experiment, tiny_config, Optim(lr=1e-2, accumulate=2))
    shape = Shape(24, LENGTH, 32)
    before = jax.tree.map(np.asarray, state.params)
    state, _ = step(state, batch_of(range(16), shape))
    assert_close(before, state.params, 0)
    state, _ = step(state, batch_of(range(16, 32), shape))
    assert any(
        np.abs(a - b).max() > 1e-4
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.params), strict=True)
    )


def test_an_empty_batch_moves_nothing(tiny_experiment, tiny_config):
    step, state = setup(tiny_experiment, tiny_config, Optim(lr=1e-2, decay=0.0))
    tokens, labels, known = data()
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = step(state, fill(tokens, labels, known, None, Shape(24, LENGTH, 32)))
    assert float(metrics.loss) == 0
    assert float(metrics.grad_norm) == 0
    assert_close(before, state.params, 0)


def test_the_labels_of_empty_slots_do_not_matter(tiny_experiment, tiny_config):
    shape = Shape(24, LENGTH, 40)
    batch = batch_of(range(8), shape)
    other = batch._replace(labels=jnp.where(batch.weight[:, None] > 0, batch.labels, 1))
    results = []
    for one in (batch, other._replace(known=jnp.ones_like(batch.known))):
        step, state = setup(tiny_experiment, tiny_config, OPTIM)
        results.append(step(state, one)[0].params)
    assert_close(*results, 0)


def test_a_step_is_a_function_of_state_and_batch(tiny_experiment, tiny_config):
    """Same state and batch, same bits; another step number, another dropout mask."""
    losses = []
    for number in (0, 0, 1):
        step, state = setup(tiny_experiment, tiny_config, OPTIM)
        state = state._replace(step=jnp.int32(number))
        losses.append(float(step(state, batch_of(range(32), Shape(24, LENGTH, 32)))[1].loss))
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_one_compilation_for_all_batches(tiny_experiment, tiny_config):
    init, apply = build(tiny_experiment, tiny_config, CLASSES)
    tokens, labels, known = data()
    counted = chex.assert_max_traces(apply, n=1)
    tx = make_optimizer(OPTIM, 100)
    stats = LabelStats(labels.sum(axis=0), known.sum(axis=0))
    step = make_train_step(counted, LOSSES["bce"], tx, stats, 8)
    params = init_of(init)
    state = State(jnp.int32(0), params, tx.init(params), jnp.asarray(dropout_key(0)))
    shape = training_shape(tokens, 8, LENGTH)
    placements = list(plan(tokens, range(COUNT), shape))
    assert len(placements) > 2
    for placement in placements:
        state, _ = step(state, fill(tokens, labels, known, placement, shape))
    assert int(state.step) == len(placements)
    assert step._cache_size() == 1
