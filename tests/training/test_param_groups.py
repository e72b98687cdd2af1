"""Freezing, rates by layer and fresh layers go by paths, and do what they say and no more."""

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


def params_of():
    leaf = {"kernel": jnp.ones((2, 2))}
    layers = {f"layer_{index}": {"attention": {"query": leaf}} for index in range(LAYERS)}
    embeddings = {"word": {"embedding": jnp.ones((2, 2))}}
    return {
        "encoder": {"embeddings": embeddings, "norm": {"scale": jnp.ones(2)}, **layers},
        "head": {"classifier": leaf},
    }


def moved(optim, steps=3):
    """How far each parameter goes, by path, under constant gradients."""
    optim = Optim(**{"lr": 0.1, "warmup_ratio": 0.0, "schedule": Spec("constant"), **optim})
    tx, params = make_optimizer(optim, 10), params_of()
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    found = flatten_params(
        jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, params_of())
    )
    return {"/".join(path): far for path, far in found.items()}, state


def test_a_frozen_parameter_stays_to_the_bit_and_has_no_moments():
    free, whole = moved({"weight_decay": 0.5})
    assert min(free.values()) > 0
    frozen, state = moved(
        {"weight_decay": 0.5, "freeze": ("encoder/embeddings", "encoder/layer_[0-3]")}
    )
    for path, far in frozen.items():
        still = path.startswith(("encoder/embeddings", *(f"encoder/layer_{i}/" for i in range(4))))
        assert (far == 0) == still, path
    # Clipping is by the norm of what is trained: the others move at least as far as before.
    assert frozen["head/classifier/kernel"] >= free["head/classifier/kernel"]
    # Two moments of four numbers for each of the five frozen leaves are not kept.
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(whole))
        - sum(leaf.size for leaf in jax.tree.leaves(state))
        == 2 * 5 * 4
    )


def test_a_pattern_is_of_whole_parts():
    """layer_1 is not layer_10 and layer_11."""
    frozen, _ = moved({"freeze": ("encoder/layer_1",)})
    assert [path for path, far in frozen.items() if far == 0] == [
        "encoder/layer_1/attention/query/kernel"
    ]


def test_nothing_flows_back_below_what_is_frozen():
    """The gradient of frozen leaves is zero and their backward pass is not computed."""
    x = jnp.full((64, 64), 0.01)
    params = {"encoder": {"a": {"kernel": x}, "b": {"kernel": x}}}

    def apply(params, batch):
        encoder = params["encoder"]
        return jnp.tanh(batch @ encoder["a"]["kernel"]) @ encoder["b"]["kernel"]

    def gradient(patterns):
        held = stop_gradient_on(apply, patterns)
        return jax.jit(jax.grad(lambda params: held(params, x).sum()))

    free, held = gradient(())(params), gradient(("encoder/a",))(params)
    assert free["encoder"]["a"]["kernel"].any()
    assert not held["encoder"]["a"]["kernel"].any()
    np.testing.assert_array_equal(free["encoder"]["b"]["kernel"], held["encoder"]["b"]["kernel"])

    def flops(patterns):
        return gradient(patterns).lower(params).compile().cost_analysis()["flops"]

    assert flops(("encoder/a",)) < 0.7 * flops(())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_layer_learns_at_a_share_of_the_rate_of_the_one_above(accumulate):
    """Decay included: the whole update is scaled."""
    plain, _ = moved({"weight_decay": 0.5, "gradient_accumulation_steps": accumulate}, 2)
    slow, _ = moved(
        {"weight_decay": 0.5, "gradient_accumulation_steps": accumulate, "layerwise_lr_decay": 0.5},
        2,
    )
    share = {path: slow[path] / plain[path] for path in plain}
    # One update (two micro-batches) or two; the second starts from elsewhere, so compare loosely.
    assert share["head/classifier/kernel"] == pytest.approx(1)
    for index in range(LAYERS):
        expected = 0.5 ** (LAYERS - index)
        found = share[f"encoder/layer_{index}/attention/query/kernel"]
        assert found == pytest.approx(expected, rel=0.05)
    assert share["encoder/embeddings/word/embedding"] == pytest.approx(0.5**13, rel=0.05)
    assert share["encoder/norm/scale"] == pytest.approx(0.5)


def test_pool_and_head_learn_at_their_own_rate():
    plain, _ = moved({})
    fast, _ = moved({"head_lr_multiplier": 3.0, "layerwise_lr_decay": 0.5})
    # After three steps decay starts from elsewhere, so compare loosely.
    kernel, top = "head/classifier/kernel", f"encoder/layer_{LAYERS - 1}/attention/query/kernel"
    assert fast[kernel] == pytest.approx(3 * plain[kernel], rel=0.05)
    assert fast[top] == pytest.approx(0.5 * plain[top], rel=0.05)


def test_the_last_bias_starts_at_what_is_known_of_each_label():
    """A network that knows nothing of the texts then gives each label its share."""
    head = {"classifier": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
    params = {"encoder": params_of()["encoder"], "head": head}
    stats = LabelStats(np.float32([9, 0, 48]), np.float32([38, 98, 48]))
    found = init_bias_from_prior(params, stats)
    np.testing.assert_allclose(
        jax.nn.sigmoid(found["head"]["classifier"]["bias"]), [10 / 40, 1 / 100, 49 / 50], rtol=1e-6
    )
    found["head"]["classifier"]["bias"] = head["classifier"]["bias"]
    chex.assert_trees_all_equal(found, params)


def test_depths():
    found = [
        depth(path, 12)
        for path in (
            "encoder/embeddings/word/embedding",
            "encoder/relative/embedding",
            "encoder/layer_0/up/kernel",
            "encoder/layer_11/up/kernel",
            "encoder/norm/scale",
            "pool/score/kernel",
            "head/classifier/bias",
        )
    ]
    assert found == [0, 0, 1, 12, 12, 13, 13]


def test_the_last_layers_go_and_nothing_else():
    params = params_of()
    assert flatten_params(without_last_layers(params, 0)).keys() == flatten_params(params).keys()
    gone = flatten_params(params).keys() - flatten_params(without_last_layers(params, 2)).keys()
    assert gone == {
        ("encoder", "layer_10", "attention", "query", "kernel"),
        ("encoder", "layer_11", "attention", "query", "kernel"),
    }


@pytest.mark.parametrize(
    ("optim", "named"),
    [
        ({"freeze": ("encoder/embedding",)}, "encoder/embeddings"),
        ({"freeze": ("*",)}, "nothing is left to train"),
        ({"reinit": 13}, "the encoder has 12 layers"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(optim, named):
    with pytest.raises(ConfigError, match=named):
        check_groups(Optim(**optim), params_of())


def test_what_can_be_is_let_through():
    check_groups(Optim(freeze=("encoder/*", "encoder/layer_0"), reinit_layers=12), params_of())
