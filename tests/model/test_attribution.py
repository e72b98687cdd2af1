"""Token gradients: every family has them, and they are derivatives by each token alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoder_networks import (
    ATTENTION,
    CLASSES,
    LINEAR,
    abstract_params,
    make_experiment,
    make_network,
)
from tiny_encoders import GOLDEN, hf_config

from jaxclf.experiment.config import Data
from jaxclf.model.attribution import make_slopes_step, path_gradients, slopes_shape
from jaxclf.model.classifier import FAMILIES, build
from jaxclf.text.packing import fill, plan
from jaxclf.types import Shape, Tokens

SHAPE = Shape(2, 24, 6)
EXPERIMENT = make_experiment(ATTENTION, dtype="bfloat16")
# Two windows of one text, then two texts; 1 is a special token.
TOKENS = Tokens(
    np.array([1, 9, 8, 7, 1, 1, 7, 6, 1, 1, 20, 30, 40, 50, 1, 1, 12, 1], np.int32),
    np.array([0, 5, 9, 15, 18], np.int32),
    np.array([0, 0, 1, 2], np.int32),
)
BASELINES = np.where(TOKENS.ids == 1, 1, 2).astype(np.int32)


def pack(tokens):
    no_labels = np.zeros((3, 0), np.float32)
    (placement,) = plan(tokens, range(3), SHAPE)
    return fill(tokens, no_labels, no_labels, placement, SHAPE)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_token_gradients(name):
    config = hf_config(name)
    step = make_slopes_step(EXPERIMENT, config, CLASSES, 1, SHAPE)
    batch = pack(TOKENS)
    shares = np.zeros(batch.ids.shape, np.float32)
    gradients = jax.eval_shape(
        step, abstract_params(config, LINEAR, ATTENTION), batch, batch.ids, shares
    )
    assert gradients.logits.shape == (1, 6, CLASSES)
    assert gradients.slopes.shape == (1, 2, 24, CLASSES)
    assert gradients.scores.shape == (1, 2, 24)


@pytest.fixture(scope="module")
def network():
    """(config, parameters, step) of a random ELECTRA, whose embeddings are projected."""
    config = hf_config("electra")
    _, params = make_network(GOLDEN / "electra", ATTENTION)
    step = make_slopes_step(EXPERIMENT, config, CLASSES, 1, SHAPE)
    return config, params, step


def slopes(network, batch, share=0.4):
    _, params, step = network
    is_token = batch.segments > 0
    baselines = np.where(batch.ids == 1, 1, np.where(is_token, 2, 0)).astype(np.int32)
    return jax.tree.map(
        np.asarray, step(params, batch, baselines, share * is_token.astype(np.float32))
    )


def test_slopes_are_derivatives_by_each_token(network):
    """Forward-mode derivatives through a table that has the interpolated embeddings as new rows."""
    config, params, _ = network
    batch = pack(TOKENS)
    gradients = slopes(network, batch)
    word = params["encoder"]["embeddings"]["word"]["embedding"]
    start = len(word)
    _, apply = build(
        make_experiment(ATTENTION), {**config, "vocab_size": start + batch.ids.size}, CLASSES
    )
    is_token = batch.segments > 0
    baselines = np.where(batch.ids == 1, 1, np.where(is_token, 2, 0))
    ends, starts = (word[ids.reshape(-1)] for ids in (batch.ids, baselines))
    new = np.arange(start, start + batch.ids.size, dtype=np.int32).reshape(batch.ids.shape)

    def logits(shares):
        added = shares[:, None] * ends + (1 - shares[:, None]) * starts
        embeddings = dict(params["encoder"]["embeddings"])
        embeddings["word"] = {"embedding": jnp.concatenate([word, added])}
        changed = {**params, "encoder": {**params["encoder"], "embeddings": embeddings}}
        return apply(changed, jax.tree.map(jnp.asarray, batch._replace(ids=new)))

    shares = jnp.asarray(0.4 * is_token.reshape(-1), jnp.float32)
    value, rates = jax.jit(lambda at: (logits(at), jax.jacfwd(logits)(at)))(shares)
    np.testing.assert_allclose(gradients.logits[0], value, atol=1e-5)
    for slot in range(3):
        of_slot = (batch.examples == slot).reshape(-1)
        np.testing.assert_allclose(
            gradients.slopes[0].reshape(-1, CLASSES)[of_slot], rates[slot].T[of_slot], atol=1e-5
        )
        assert np.abs(rates[slot]).max() > 0.05
        assert not np.asarray(rates[slot].T)[~of_slot].any()


def test_padding_and_special_tokens_have_zero_slopes_and_neighbors_no_effect(network):
    batch = pack(TOKENS)
    before = slopes(network, batch)
    is_word = (batch.segments > 0) & (batch.ids != 1)
    assert not before.slopes[0][~is_word].any()
    assert (np.abs(before.slopes[0][is_word]).max(axis=-1) > 1e-4).all()
    changed_gradients = slopes(
        network, pack(TOKENS._replace(ids=np.where(TOKENS.ids > 9, 33, TOKENS.ids)))
    )
    first = batch.examples == 0
    np.testing.assert_array_equal(before.slopes[0][first], changed_gradients.slopes[0][first])
    assert np.abs(before.slopes[0] - changed_gradients.slopes[0])[batch.examples == 1].max() > 1e-4


def test_paths_are_in_the_order_of_texts_points_and_tokens(network):
    _, params, step = network
    points = np.linspace(0, 1, 6)  # enough for packing to reorder examples
    paths = path_gradients(step, params, TOKENS, BASELINES, [0, 2], points, SHAPE)
    batch = pack(TOKENS)
    for text, path in zip([0, 2], paths, strict=True):
        is_text = batch.examples == text
        for index, share in enumerate(points):
            gradients = slopes(network, batch, float(share))
            # Another batch adds in another order.
            np.testing.assert_allclose(path.logits[index, 0], gradients.logits[0, text], atol=1e-5)
            for name in ("slopes", "scores"):
                actual, expected = getattr(path, name), getattr(gradients, name)[0][is_text]
                np.testing.assert_allclose(actual[index, :, 0], expected, atol=1e-5)
    assert step._cache_size() == 1


def test_a_batch_holds_the_longest_text_and_few_labels_more_tokens():
    data = Data("", "", "", max_length=128, max_windows=4)
    assert slopes_shape(data, 400).rows == 4
    assert slopes_shape(data, 2).rows == 8
    assert slopes_shape(data, 2).slots >= 8
