"""Slopes of a batch: every family has them, and they are the derivatives by each token alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from tiny_encoders import hf_config

from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.model.attribution import make_slopes_step, path_gradients, slopes_shape
from jaxclf.model.classifier import FAMILIES, build
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.packing import fill, plan
from jaxclf.types import Shape, Tokens

CLASSES, SHAPE = 2, Shape(2, 24, 6)
EXPERIMENT = Experiment(
    Data("", "", "", max_length=24),
    encoder=Encoder(dtype="bfloat16"),
    pool=Spec("attention", hidden_dim=8),
    head=Spec("linear"),
)
EXACT = Experiment(EXPERIMENT.data, Encoder(), EXPERIMENT.pool, head=EXPERIMENT.head)
# Two windows of one text, then two texts; 1 is a special token.
TOKENS = Tokens(
    np.array([1, 9, 8, 7, 1, 1, 7, 6, 1, 1, 20, 30, 40, 50, 1, 1, 12, 1], np.int32),
    np.array([0, 5, 9, 15, 18], np.int32),
    np.array([0, 0, 1, 2], np.int32),
)
BLANKS = np.where(TOKENS.ids == 1, 1, 2).astype(np.int32)


def packed(tokens):
    blank = np.zeros((3, 0), np.float32)
    (placement,) = plan(tokens, range(3), SHAPE)
    return fill(tokens, blank, blank, placement, SHAPE)


def shapes_of(config):
    init, _ = build(EXPERIMENT, config, CLASSES)
    return jax.eval_shape(init, jax.random.key(0), packed(TOKENS))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_table_that_slopes_are_taken_by(name):
    config = hf_config(name)
    step = make_slopes_step(EXPERIMENT, config, CLASSES, 1, SHAPE)
    batch = packed(TOKENS)
    shares = np.zeros(batch.ids.shape, np.float32)
    found = jax.eval_shape(step, shapes_of(config), batch, batch.ids, shares)
    assert found.logits.shape == (1, 6, CLASSES)
    assert found.slopes.shape == (1, 2, 24, CLASSES)
    assert found.scores.shape == (1, 2, 24)


@pytest.fixture(scope="module")
def network():
    """(config, parameters, step) of a random ELECTRA, whose embeddings are projected."""
    config = hf_config("electra")
    rng = np.random.default_rng(0)
    leaves = {
        path: jnp.asarray(0.3 * rng.normal(size=leaf.shape) + (path[-1] == "scale"), jnp.float32)
        for path, leaf in flatten_params(shapes_of(config)).items()
    }
    step = make_slopes_step(EXPERIMENT, config, CLASSES, 1, SHAPE)
    return config, unflatten_dict(leaves), step


def slopes(network, batch, share=0.4):
    _, params, step = network
    here = batch.segments > 0
    blanks = np.where(batch.ids == 1, 1, np.where(here, 2, 0)).astype(np.int32)
    return jax.tree.map(np.asarray, step(params, batch, blanks, share * here.astype(np.float32)))


def test_slopes_are_the_derivatives_by_each_tokens_share(network):
    """Forward, one token after another, through a table to which the embeddings are added."""
    config, params, _ = network
    batch = packed(TOKENS)
    found = slopes(network, batch)
    word = params["encoder"]["embeddings"]["word"]["embedding"]
    start = len(word)
    _, apply = build(EXACT, {**config, "vocab_size": start + batch.ids.size}, CLASSES)
    here = batch.segments > 0
    blanks = np.where(batch.ids == 1, 1, np.where(here, 2, 0))
    own, blank = (word[ids.reshape(-1)] for ids in (batch.ids, blanks))
    new = np.arange(start, start + batch.ids.size, dtype=np.int32).reshape(batch.ids.shape)

    def logits(shares):
        added = shares[:, None] * own + (1 - shares[:, None]) * blank
        embeddings = dict(params["encoder"]["embeddings"])
        embeddings["word"] = {"embedding": jnp.concatenate([word, added])}
        changed = {**params, "encoder": {**params["encoder"], "embeddings": embeddings}}
        return apply(changed, jax.tree.map(jnp.asarray, batch._replace(ids=new)))

    shares = jnp.asarray(0.4 * here.reshape(-1), jnp.float32)
    value, rates = jax.jit(lambda at: (logits(at), jax.jacfwd(logits)(at)))(shares)
    np.testing.assert_allclose(found.logits[0], value, atol=1e-5)
    for slot in range(3):
        of_slot = (batch.examples == slot).reshape(-1)
        np.testing.assert_allclose(
            found.slopes[0].reshape(-1, CLASSES)[of_slot], rates[slot].T[of_slot], atol=1e-5
        )
        assert np.abs(rates[slot]).max() > 0.05
        assert not np.asarray(rates[slot].T)[~of_slot].any()


def test_padding_and_special_tokens_have_none_and_neighbours_no_part(network):
    batch = packed(TOKENS)
    before = slopes(network, batch)
    own = (batch.segments > 0) & (batch.ids != 1)
    assert not before.slopes[0][~own].any()
    assert (np.abs(before.slopes[0][own]).max(axis=-1) > 1e-4).all()
    other = slopes(network, packed(TOKENS._replace(ids=np.where(TOKENS.ids > 9, 33, TOKENS.ids))))
    first = batch.examples == 0
    np.testing.assert_array_equal(before.slopes[0][first], other.slopes[0][first])
    assert np.abs(before.slopes[0] - other.slopes[0])[batch.examples == 1].max() > 1e-4


def test_a_walk_puts_every_point_and_token_in_its_place(network):
    _, params, step = network
    points = np.linspace(0, 1, 6)  # so that a long example waits, and a later one comes before it
    walks = path_gradients(step, params, TOKENS, BLANKS, [0, 2], points, SHAPE)
    batch = packed(TOKENS)
    for text, one in zip([0, 2], walks, strict=True):
        here = batch.examples == text
        for index, share in enumerate(points):
            found = slopes(network, batch, float(share))
            # In another place of another batch: rounding.
            np.testing.assert_allclose(one.logits[index, 0], found.logits[0, text], atol=1e-5)
            np.testing.assert_allclose(one.slopes[index, :, 0], found.slopes[0][here], atol=1e-5)
            np.testing.assert_allclose(one.scores[index, :, 0], found.scores[0][here], atol=1e-5)
    assert step._cache_size() == 1


def test_a_batch_holds_the_longest_text_and_few_labels_more_tokens():
    data = Data("", "", "", max_length=128, max_windows=4)
    assert slopes_shape(data, 400).rows == 4
    assert slopes_shape(data, 2).rows == 8
    assert slopes_shape(data, 2).slots >= 8
