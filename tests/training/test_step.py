"""The train step: accumulation equals the big batch, empty slots have no effect, one trace."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf.experiment.config import Optim, Regularization, Spec
from jaxclf.model.classifier import build
from jaxclf.text import packing
from jaxclf.text.packing import plan, training_shape
from jaxclf.training.losses import LOSSES
from jaxclf.training.optimizer import make_optimizer
from jaxclf.training.step import dropout_key, make_train_step
from jaxclf.types import LabelStats, Shape, State, Tokens

LENGTH, CLASSES, COUNT = 16, 3, 32
SHAPE = Shape(24, LENGTH, COUNT)
OPTIM = Optim(lr=1e-2, warmup_ratio=0.0, schedule=Spec("constant"), max_grad_norm=1e9)


def make_data():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, COUNT)
    tokens = Tokens(
        rng.integers(1, 50, lengths.sum()).astype(np.int32),
        np.cumsum([0, *lengths]).astype(np.int32),
        np.arange(COUNT, dtype=np.int32),
    )
    return tokens, (rng.random((COUNT, CLASSES)) < 0.4).astype(np.float32)


TOKENS, LABELS = make_data()
MASK = np.ones_like(LABELS)
STATS = LabelStats(LABELS.sum(axis=0), MASK.sum(axis=0))


def fill(placement, shape=SHAPE):
    return jax.tree.map(jnp.asarray, packing.fill(TOKENS, LABELS, MASK, placement, shape))


def make_batch(examples):
    (placement,) = plan(TOKENS, examples, SHAPE)
    return fill(placement)


@pytest.fixture(scope="module")
def network(tiny_experiment, tiny_config):
    """(apply, params) of the tiny network; the parameters are numpy arrays, which cannot be
    donated."""
    init, apply = build(tiny_experiment, tiny_config, CLASSES)
    batch = fill(None, Shape(1, LENGTH, 1))
    return apply, jax.tree.map(np.asarray, jax.jit(init)(jax.random.key(0), batch))


def start(params, tx):
    params = jax.tree.map(jnp.asarray, params)
    return State(jnp.int32(0), params, tx.init(params), jnp.asarray(dropout_key(0)))


def make_step(network, optim):
    """(train step, function that makes the initial state)."""
    apply, params = network
    tx = make_optimizer(optim, 100)
    step = make_train_step(apply, LOSSES["bce"], tx, STATS, COUNT, Regularization())
    return step, lambda: start(params, tx)


@pytest.fixture(scope="module")
def adam(network):
    return make_step(network, OPTIM)


def max_difference(tree_a, tree_b):
    """The largest absolute difference between two trees."""
    difference = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max()), tree_a, tree_b)
    return max(jax.tree.leaves(difference))


@pytest.mark.parametrize(
    "loss",
    ["bce", *(pytest.param(name, marks=pytest.mark.slow) for name in LOSSES if name != "bce")],
)
def test_two_micro_batches_equal_the_big_batch(network, loss):
    """Without dropout, whose masks would differ; with plain SGD, which shows the gradient."""
    apply, params = network
    sgd, stats = optax.sgd(1.0), LabelStats(jnp.ones(CLASSES), jnp.full(CLASSES, 32.0))
    accumulating_sgd = optax.MultiSteps(sgd, 2).gradient_transformation()

    def apply_without_dropout(params, batch, key, mix):
        return apply(params, batch)

    big_step, micro_step = (
        make_train_step(apply_without_dropout, LOSSES[loss], tx, stats, size, Regularization())
        for tx, size in ((sgd, 32), (accumulating_sgd, 16))
    )
    expected, _ = big_step(start(params, sgd), make_batch(range(32)))
    state = start(params, accumulating_sgd)
    for examples in (range(16), range(16, 32)):
        state, _ = micro_step(state, make_batch(examples))
    chex.assert_trees_all_close(state.params, expected.params, atol=1e-6, rtol=0)
    assert max_difference(expected.params, params) > 1e-2


def test_accumulation_updates_at_every_kth_batch(network):
    step, make_state = make_step(network, Optim(lr=1e-2, gradient_accumulation_steps=2))
    state, _ = step(make_state(), make_batch(range(16)))
    chex.assert_trees_all_equal(state.params, network[1])
    state, _ = step(state, make_batch(range(16, 32)))
    assert max_difference(state.params, network[1]) > 1e-4


def test_an_empty_batch_has_no_gradient(adam, network):
    step, make_state = adam
    state, metrics = step(make_state(), fill(None))
    assert (float(metrics.loss), float(metrics.grad_norm)) == (0, 0)
    biases = [params["head"]["classifier"]["bias"] for params in (state.params, network[1])]
    np.testing.assert_array_equal(*biases)  # weight decay changes kernels only


def test_labels_of_empty_slots_have_no_effect(adam):
    step, make_state = adam
    batch = make_batch(range(8))
    changed = batch._replace(
        labels=jnp.where(batch.weight[:, None] > 0, batch.labels, 1),
        label_mask=jnp.ones_like(batch.label_mask),
    )
    states = [step(make_state(), batch)[0] for batch in (batch, changed)]
    chex.assert_trees_all_equal(*(state.params for state in states))


def test_a_step_is_a_function_of_state_and_batch(adam):
    """The step number selects the dropout mask."""
    step, make_state = adam
    batch = make_batch(range(32))
    losses = [
        float(step(make_state()._replace(step=jnp.int32(number)), batch)[1].loss)
        for number in (0, 0, 1)
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_all_batches_share_one_compilation(network):
    apply, params = network
    traced_once = chex.assert_max_traces(apply, n=1)
    tx = make_optimizer(OPTIM, 100)
    step = make_train_step(traced_once, LOSSES["bce"], tx, STATS, 8, Regularization())
    shape = training_shape(TOKENS, 8, LENGTH)
    placements = list(plan(TOKENS, range(COUNT), shape))
    assert len(placements) > 2
    state = start(params, tx)
    for placement in placements:
        state, _ = step(state, fill(placement, shape))
    assert int(state.step) == len(placements)
    assert step._cache_size() == 1
