"""The train step: accumulation is the big batch, empty slots count for nothing, one compilation."""

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
OPTIM = Optim(lr=1e-2, warmup_ratio=0.0, schedule=Spec("constant"), max_grad_norm=1e9)


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


@pytest.fixture(scope="module")
def network(tiny_experiment, tiny_config):
    """(apply, params): the tiny network, its parameters as numpy so that no step can donate
    them."""
    init, apply = build(tiny_experiment, tiny_config, CLASSES)
    tokens, labels, known = data()
    batch = fill(tokens, labels, known, None, Shape(1, LENGTH, 1))
    return apply, jax.tree.map(np.asarray, jax.jit(init)(jax.random.key(0), batch))


def begin(params, tx):
    params = jax.tree.map(jnp.asarray, params)
    return State(jnp.int32(0), params, tx.init(params), jnp.asarray(dropout_key(0)))


def setup(network, optim):
    """(step, () -> a state that has not begun)."""
    apply, params = network
    _, labels, known = data()
    tx = make_optimizer(optim, 100)
    stats = LabelStats(labels.sum(axis=0), known.sum(axis=0))
    return make_train_step(apply, LOSSES["bce"], tx, stats, COUNT, Regularization()), lambda: begin(
        params, tx
    )


@pytest.fixture(scope="module")
def adam(network):
    return setup(network, OPTIM)


def assert_close(one, other, atol):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_batches_of_16_equal_one_of_32(network, loss):
    """Dropout off, since the masks would differ; plain descent, so that the gradient itself is
    seen."""
    apply, params = network
    sgd, stats = optax.sgd(1.0), LabelStats(jnp.ones(CLASSES), jnp.full(CLASSES, 32.0))
    twice = optax.MultiSteps(sgd, 2).gradient_transformation()

    def still(params, batch, key, mix):
        return apply(params, batch)

    big = make_train_step(still, LOSSES[loss], sgd, stats, 32, Regularization())
    small = make_train_step(still, LOSSES[loss], twice, stats, 16, Regularization())
    shape = Shape(24, LENGTH, 32)
    one, _ = big(begin(params, sgd), batch_of(range(32), shape))
    two = begin(params, twice)
    for examples in (range(16), range(16, 32)):
        two, _ = small(two, batch_of(examples, shape))
    assert_close(one.params, two.params, 1e-6)
    assert furthest(one.params, params) > 1e-2


def furthest(one, other):
    """The largest difference between two trees."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.asarray(a) - b).max()) for a, b in pairs)


def test_accumulation_updates_every_kth_batch(network):
    step, fresh = setup(network, Optim(lr=1e-2, gradient_accumulation_steps=2))
    shape = Shape(24, LENGTH, 32)
    state, _ = step(fresh(), batch_of(range(16), shape))
    assert furthest(state.params, network[1]) == 0
    state, _ = step(state, batch_of(range(16, 32), shape))
    assert furthest(state.params, network[1]) > 1e-4


def test_an_empty_batch_adds_nothing(adam, network):
    tokens, labels, known = data()
    step, fresh = adam
    empty = fill(tokens, labels, known, None, Shape(24, LENGTH, 32))
    state, metrics = step(fresh(), empty)
    assert float(metrics.loss) == 0
    assert float(metrics.grad_norm) == 0
    biases = [
        leaf["bias"]
        for leaf in (state.params["head"]["classifier"], network[1]["head"]["classifier"])
    ]
    np.testing.assert_array_equal(*biases)  # kernels decay, and nothing else moves


def test_the_labels_of_empty_slots_do_not_matter(adam):
    step, fresh = adam
    batch = batch_of(range(8), Shape(24, LENGTH, 32))
    other = batch._replace(
        labels=jnp.where(batch.weight[:, None] > 0, batch.labels, 1),
        label_mask=jnp.ones_like(batch.label_mask),
    )
    assert_close(step(fresh(), batch)[0].params, step(fresh(), other)[0].params, 0)


def test_a_step_is_a_function_of_state_and_batch(adam):
    """Same state and batch, same bits; another step number, another dropout mask."""
    step, fresh = adam
    batch = batch_of(range(32), Shape(24, LENGTH, 32))
    losses = [
        float(step(fresh()._replace(step=jnp.int32(number)), batch)[1].loss) for number in (0, 0, 1)
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_one_compilation_for_all_batches(network):
    apply, params = network
    tokens, labels, known = data()
    counted = chex.assert_max_traces(apply, n=1)
    tx = make_optimizer(OPTIM, 100)
    stats = LabelStats(labels.sum(axis=0), known.sum(axis=0))
    step = make_train_step(counted, LOSSES["bce"], tx, stats, 8, Regularization())
    shape = training_shape(tokens, 8, LENGTH)
    placements = list(plan(tokens, range(COUNT), shape))
    assert len(placements) > 2
    state = begin(params, tx)
    for placement in placements:
        state, _ = step(state, fill(tokens, labels, known, placement, shape))
    assert int(state.step) == len(placements)
    assert step._cache_size() == 1
