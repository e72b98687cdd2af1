"""Networks around the tiny encoders, and batches for them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.model.classifier import build, family_of
from jaxclf.model.encoders.common import Settings
from jaxclf.model.storage.encoder_config import read_hf_config
from jaxclf.model.storage.saved_model import pretrained_params
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.packing import fill, plan
from jaxclf.types import Shape, Tokens

CLASSES, LENGTH = 3, 24
SHAPE = Shape(3, LENGTH, 8)  # one shape for all batches: one compilation
CLS, ATTENTION = Spec("cls"), Spec("attention", hidden_dim=8)
LINEAR, NATIVE = Spec("linear"), Spec("native")


def make_experiment(pool=CLS, head=LINEAR, length=LENGTH, **encoder):
    return Experiment(
        Data("", "", "", max_length=length), encoder=Encoder(**encoder), pool=pool, head=head
    )


def ragged(lengths, seed, example_index=None):
    """Windows of random ids, by default each an example."""
    rng = np.random.default_rng(seed)
    return Tokens(
        rng.integers(5, 60, sum(lengths)).astype(np.int32),
        np.cumsum([0, *lengths]).astype(np.int32),
        np.array(range(len(lengths)) if example_index is None else example_index, np.int32),
    )


def packed(tokens, shape=SHAPE):
    """All examples in one batch."""
    count = int(tokens.example_index[-1]) + 1
    blank = np.zeros((count, CLASSES), np.float32)
    (placement,) = plan(tokens, range(count), shape)
    return jax.tree.map(jnp.asarray, fill(tokens, blank, blank, placement, shape))


def abstract_params(config, head=NATIVE, pool=CLS):
    """The shapes of a network's parameters."""
    init, _ = build(make_experiment(pool, head), config, CLASSES)
    return jax.eval_shape(init, jax.random.key(0), packed(ragged([3], 0)))


def make_network(folder, pool=CLS, head=LINEAR):
    """(apply, params) with the folder's weights; the other parameters are random."""
    config = read_hf_config(folder)
    _, apply = build(make_experiment(pool, head), config, CLASSES)
    shapes = abstract_params(config, head, pool)
    rng = np.random.default_rng(0)
    params = {
        path: 0.3 * rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in flatten_params(shapes).items()
    } | flatten_params(pretrained_params(folder, shapes))
    return jax.jit(apply), jax.tree.map(jnp.asarray, unflatten_dict(params))


def hidden_states(folder, ids, mask):
    """Hidden states after the embeddings, the first layer and the last: [texts, length, hidden]."""
    config = read_hf_config(folder)
    family = family_of(config)
    module = family.module(Settings(family.from_hf(config), jnp.dtype("float32"), 0.0, 0.0))
    positions = (np.arange(ids.shape[1])[None] * mask).astype(np.int32)
    batch = jax.tree.map(jnp.asarray, (ids, positions, mask))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *batch, True))["params"]
    params = pretrained_params(folder, {"encoder": shapes})["encoder"]
    last, captured = module.apply(
        {"params": params}, *batch, True, capture_intermediates=True, mutable="intermediates"
    )
    layers = captured["intermediates"]
    states = (layers["embeddings"]["__call__"][0], layers["layer_0"]["__call__"][0], last)
    return [np.asarray(values).reshape(*ids.shape, -1) for values in states]
