"""Freezing, learning rates by layer and reinitialized layers, selected by parameter paths."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Optim, Spec
from jaxclf.model.storage.weights import flatten_params
from jaxclf.training.optimizer import make_optimizer
from jaxclf.training.param_groups import (
    check_groups,
    depth,
    init_bias_from_prior,
    stop_gradient_on,
    without_last_layers,
)
from jaxclf.types import LabelStats

LAYERS = 12
HEAD, WORDS = "head/classifier/kernel", "encoder/embeddings/word/embedding"


def query(layer):
    return f"encoder/layer_{layer}/attention/query/kernel"


def make_params():
    dense = {"kernel": jnp.ones((2, 2))}
    layers = {f"layer_{layer}": {"attention": {"query": dense}} for layer in range(LAYERS)}
    embeddings = {"word": {"embedding": jnp.ones((2, 2))}}
    return {
        "encoder": {"embeddings": embeddings, "norm": {"scale": jnp.ones(2)}, **layers},
        "head": {"classifier": dense},
    }


def train(optim, steps=3):
    """(path -> largest change, optimizer state) under constant gradients."""
    optim = Optim(**{"lr": 0.1, "warmup_ratio": 0.0, "schedule": Spec("constant"), **optim})
    tx, params = make_optimizer(optim, 10), make_params()
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    changes = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, make_params())
    return {"/".join(path): change for path, change in flatten_params(changes).items()}, state


def test_a_frozen_parameter_is_unchanged_and_has_no_moments():
    free, full_state = train({"weight_decay": 0.5})
    assert min(free.values()) > 0
    patterns = ("encoder/embeddings", "encoder/layer_[0-3]")
    frozen, state = train({"weight_decay": 0.5, "freeze": patterns})
    expected = {WORDS, *(query(layer) for layer in range(4))}
    assert {path for path, change in frozen.items() if change == 0} == expected
    # Clipping uses the norm of the trained parameters, so they move at least as far.
    assert frozen[HEAD] >= free[HEAD]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (full_state, state)]
    assert sizes[0] - sizes[1] == 2 * 5 * 4  # two moments of five leaves with four numbers


def test_a_pattern_matches_complete_parts_of_a_path():
    """layer_1 does not match layer_10 and layer_11."""
    frozen, _ = train({"freeze": ("encoder/layer_1",)})
    assert [path for path, change in frozen.items() if change == 0] == [query(1)]


def test_the_backward_pass_ends_above_frozen_parameters():
    x = jnp.full((64, 64), 0.01)
    params = {"encoder": {"a": {"kernel": x}, "b": {"kernel": x}}}

    def apply(params, batch):
        encoder = params["encoder"]
        return jnp.tanh(batch @ encoder["a"]["kernel"]) @ encoder["b"]["kernel"]

    def make_gradient(patterns):
        apply_frozen = stop_gradient_on(apply, patterns)
        return jax.jit(jax.grad(lambda params: apply_frozen(params, x).sum()))

    def count_flops(patterns):
        return make_gradient(patterns).lower(params).compile().cost_analysis()["flops"]

    free, frozen = (make_gradient(patterns)(params)["encoder"] for patterns in ((), ("encoder/a",)))
    assert free["a"]["kernel"].any()
    assert not frozen["a"]["kernel"].any()
    np.testing.assert_array_equal(free["b"]["kernel"], frozen["b"]["kernel"])
    assert count_flops(("encoder/a",)) < 0.7 * count_flops(())


@pytest.mark.parametrize("steps", [1, 2])
def test_layerwise_decay_scales_the_updates_of_each_layer(steps):
    """Weight decay is scaled too. With a second update the parameters differ, so the comparison is
    loose."""
    optim = {"weight_decay": 0.5, "gradient_accumulation_steps": steps}
    plain, _ = train(optim, 2)
    decayed, _ = train({**optim, "layerwise_lr_decay": 0.5}, 2)
    factors = {path: decayed[path] / plain[path] for path in plain}
    assert factors[HEAD] == pytest.approx(1)
    for layer in range(LAYERS):
        assert factors[query(layer)] == pytest.approx(0.5 ** (LAYERS - layer), rel=0.05)
    assert factors[WORDS] == pytest.approx(0.5**13, rel=0.05)
    assert factors["encoder/norm/scale"] == pytest.approx(0.5)


def test_the_head_has_its_own_learning_rate():
    plain, _ = train({})
    scaled, _ = train({"head_lr_multiplier": 3.0, "layerwise_lr_decay": 0.5})
    assert scaled[HEAD] == pytest.approx(3 * plain[HEAD], rel=0.05)
    last = query(LAYERS - 1)
    assert scaled[last] == pytest.approx(0.5 * plain[last], rel=0.05)


def test_the_last_bias_starts_at_the_frequency_of_each_label():
    head = {"classifier": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
    params = {"encoder": make_params()["encoder"], "head": head}
    stats = LabelStats(np.float32([9, 0, 48]), np.float32([38, 98, 48]))
    initialized = init_bias_from_prior(params, stats)
    bias = initialized["head"]["classifier"].pop("bias")
    np.testing.assert_allclose(jax.nn.sigmoid(bias), [10 / 40, 1 / 100, 49 / 50], rtol=1e-6)
    initialized["head"]["classifier"]["bias"] = head["classifier"]["bias"]
    chex.assert_trees_all_equal(initialized, params)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("encoder/embeddings/word/embedding", 0),
        ("encoder/relative/embedding", 0),
        ("encoder/layer_0/up/kernel", 1),
        ("encoder/layer_11/up/kernel", 12),
        ("encoder/norm/scale", 12),
        ("pool/score/kernel", 13),
        ("head/classifier/bias", 13),
    ],
)
def test_the_depth_of_a_parameter(path, expected):
    assert depth(path, 12) == expected


def test_only_the_last_layers_are_dropped():
    params = make_params()
    chex.assert_trees_all_equal(without_last_layers(params, 0), params)
    kept = without_last_layers(params, 2)
    dropped = flatten_params(params).keys() - flatten_params(kept).keys()
    assert {"/".join(path) for path in dropped} == {query(10), query(11)}


@pytest.mark.parametrize(
    ("optim", "message"),
    [
        ({"freeze": ("encoder/embedding",)}, "encoder/embeddings"),
        ({"freeze": ("*",)}, "nothing is left to train"),
        ({"reinit_layers": 13}, "the encoder has 12 layers"),
    ],
    ids=str,
)
def test_impossible_options_are_errors(optim, message):
    with pytest.raises(ConfigError, match=message):
        check_groups(Optim(**optim), make_params())
    possible = Optim(freeze=("encoder/*", "encoder/layer_0"), reinit_layers=12)
    check_groups(possible, make_params())
