"""Pools against their definitions in numpy; heads and pools change what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import options_of
from jaxclf.model.classifier import Head, Pool
from jaxclf.model.encoders.common import Native
from jaxclf.model.heads import HEADS, POOLS
from jaxclf.types import Batch

ROWS, LENGTH, HIDDEN, COUNT = 2, 9, 4, 4
rng = np.random.default_rng(0)
STATES = rng.normal(size=(ROWS, LENGTH, HIDDEN)).astype(np.float32)
POOLED = jnp.asarray(rng.normal(size=(5, 8)), jnp.float32)

# Example 0 owns two windows in two rows, 1 and 2 one each; slot 3 is empty.
EXAMPLES = np.array([[0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 0, 4, 4, 4, 4, 4, 4, 4]], np.int32)
POSITIONS = np.array([[0, 1, 2, 0, 1, 0, 1, 2, 3], [0, 1, 0, 0, 0, 0, 0, 0, 0]], np.int32)


NOTHING = jnp.zeros((COUNT, 1))
BATCH = Batch(*[jnp.asarray(POSITIONS)] * 3, jnp.asarray(EXAMPLES), NOTHING, NOTHING, NOTHING[:, 0])


def pooled(spec, states=STATES):
    """(what the pool gives, its parameters)."""
    module, states = Pool(spec), jnp.asarray(states)
    params = module.init(jax.random.key(0), states, BATCH)
    return module.apply(params, states, BATCH), params.get("params", {})


def tokens_of(example):
    return STATES[example == EXAMPLES]


@pytest.mark.parametrize("example", range(3))
def test_pools_equal_their_definitions(example):
    tokens = tokens_of(example)
    first = STATES[(example == EXAMPLES) & (POSITIONS == 0)].mean(axis=0)
    expected = {
        "cls": first,
        "mean": tokens.mean(axis=0),
        "mean_max": np.concatenate([tokens.mean(axis=0), tokens.max(axis=0)]),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(pooled(Spec(name))[0][example], value, atol=1e-6)


@pytest.mark.parametrize("example", range(3))
def test_attention_is_a_softmax_over_the_tokens_of_an_example(example):
    values, params = pooled(Spec("attention", hidden_dim=3))
    project = jax.tree.map(np.asarray, params["project"])
    tokens = tokens_of(example)
    hidden = np.tanh(tokens @ project["kernel"] + project["bias"])
    scores = np.exp(hidden @ np.asarray(params["score"]["kernel"])[:, 0])
    expected = (tokens * (scores / scores.sum())[:, None]).sum(axis=0)
    np.testing.assert_allclose(values[example], expected, atol=1e-6)
    assert not np.allclose(expected, tokens.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("name", POOLS)
def test_an_empty_slot_is_zero_and_values_and_gradients_are_finite(name):
    values, _ = pooled(Spec(name))
    assert not values[3].any()
    assert np.isfinite(pooled(Spec(name), STATES * 1e4)[0]).all()
    gradient = jax.grad(lambda states: (pooled(Spec(name), states)[0] ** 2).sum())(
        jnp.asarray(STATES)
    )
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[EXAMPLES == COUNT].any()


def logits(spec, key=None):
    module = Head(spec, 3, Native("tanh"))
    params = module.init(jax.random.key(0), POOLED, True)
    rngs = None if key is None else {"dropout": key}
    return module.apply(params, POOLED, key is None, rngs=rngs), params


@pytest.mark.parametrize("name", HEADS)
def test_every_head_has_its_dropout(name):
    key = jax.random.key(1)
    clean, _ = logits(Spec(name))
    assert clean.shape == (5, 3)
    still, _ = logits(Spec(name, dropout=0.0), key)
    np.testing.assert_array_equal(clean, still)
    assert not np.array_equal(clean, logits(Spec(name, dropout=0.5), jax.random.key(1))[0])


@pytest.mark.parametrize("name", HEADS)
def test_dropout_samples_are_averaged(name):
    """The variance over keys falls as one over the samples."""
    spec = Spec(name, dropout=0.5, dropout_samples=16)
    np.testing.assert_array_equal(logits(spec)[0], logits(Spec(name))[0])
    keys = jax.random.split(jax.random.key(1), 60)
    single, averaged = (
        jax.vmap(lambda key, spec=spec: logits(spec, key)[0])(keys).var(axis=0).mean()
        for spec in (Spec("linear", dropout=0.5), Spec("linear", dropout=0.5, dropout_samples=16))
    )
    assert 8 < single / averaged < 32


def test_the_residual_head_has_the_asked_number_of_blocks():
    for blocks in (0, 1, 3):
        _, params = logits(Spec("residual", blocks=blocks))
        assert sum(name.endswith("_up") for name in params["params"]) == blocks


def test_the_residual_head_equals_its_definition():
    values, params = logits(Spec("residual", blocks=1))
    p = jax.tree.map(np.asarray, params["params"])

    def norm(x, of):
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6) * of[
            "scale"
        ] + of["bias"]

    def dense(x, of):
        return x @ of["kernel"] + of["bias"]

    x = np.asarray(POOLED)
    y = dense(norm(x, p["block_0_norm"]), p["block_0_up"])
    y = np.asarray(jax.nn.gelu(y, approximate=False))
    x = x + dense(y, p["block_0_down"])
    np.testing.assert_allclose(values, dense(norm(x, p["norm"]), p["classifier"]), atol=1e-5)


def test_options_are_tested():
    assert {name: list(options_of(POOLS[name])) for name in POOLS if options_of(POOLS[name])} == {
        "attention": ["hidden_dim"]
    }
    assert {name: list(options_of(HEADS[name])) for name in HEADS} == {
        "native": ["dropout", "dropout_samples"],
        "linear": ["dropout", "dropout_samples"],
        "residual": ["blocks", "dropout", "dropout_samples"],
    }
