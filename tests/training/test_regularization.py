"""Regularization: each method follows its paper, and every option has an effect."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, rel_entr

from jaxclf.experiment.config import Regularization, Spec
from jaxclf.training.losses import LOSSES
from jaxclf.training.manifest import CheckpointInfo, Progress
from jaxclf.training.regularization import (
    ADVERSARIES,
    AVERAGES,
    fgm,
    mix_labels,
    sample_mixup,
    symmetric_kl,
    update_ema,
)
from jaxclf.training.step import dropout_key, key_implementation, make_train_step, weights_of
from jaxclf.types import Batch, LabelStats, State

SLOTS, FEATURES, CLASSES = 6, 5, 3
WEIGHT = np.array([1, 1, 0, 1, 1, 0], np.float32)
STATS = LabelStats(jnp.full(CLASSES, 2.0), jnp.full(CLASSES, 4.0))
WORDS = ("encoder", "embeddings", "word", "embedding")


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((SLOTS, CLASSES)) < 0.5).astype(np.float32)
    label_mask = (rng.random((SLOTS, CLASSES)) < 0.8).astype(np.float32)
    tokens = jnp.asarray(rng.integers(0, 9, (SLOTS, FEATURES)), jnp.int32)
    return Batch(*[tokens] * 4, *map(jnp.asarray, (labels * label_mask, label_mask, WEIGHT)))


def make_params():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    embeddings = {"word": {"embedding": draw(9, 4)}, "norm": {"scale": draw(4)}}
    head = {"kernel": draw(4, CLASSES), "bias": draw(CLASSES)}
    return {"encoder": {"embeddings": embeddings}, "head": {"classifier": head}}


def make_key(seed):
    return jax.random.key(seed, impl=key_implementation())


def apply(params, batch, key, mix):
    """A bag of words with dropout: the smallest network with all the parts."""
    embeddings = params["encoder"]["embeddings"]
    pooled = embeddings["word"]["embedding"][batch.ids].mean(axis=1)
    pooled = pooled * embeddings["norm"]["scale"][None]
    pooled = pooled * jax.random.bernoulli(key, 0.8, pooled.shape) / 0.8
    if mix is not None:
        pooled = mix.lam * pooled + (1 - mix.lam) * pooled[mix.index]
    head = params["head"]["classifier"]
    return pooled @ head["kernel"] + head["bias"][None]


def compute_objective(params, batch, key):
    logits = apply(params, batch, key, None)
    losses = LOSSES["bce"](logits, batch.labels, batch.label_mask, STATS)
    return (losses * batch.weight).sum() / 4


def make_step(regularization, accumulation_steps=1):
    """(train step, initial state)."""
    tx = optax.sgd(0.1)
    if accumulation_steps > 1:
        tx = optax.MultiSteps(tx, accumulation_steps).gradient_transformation()
    step = make_train_step(apply, LOSSES["bce"], tx, STATS, 4, regularization, accumulation_steps)
    params = make_params()
    ema = jax.tree.map(jnp.copy, params) if regularization.ema_decay else ()
    return step, State(jnp.int32(0), params, tx.init(params), jnp.asarray(dropout_key(0)), ema)


def train_one_step(regularization):
    step, state = make_step(regularization)
    return step(state, make_batch())[0].params


def distance(params_a, params_b):
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, params_a, params_b)))


OPTIONS = {  # two values of each option
    "rdrop": (Regularization(rdrop=1.0), Regularization(rdrop=2.0)),
    "mixup": (Regularization(mixup=0.5), Regularization(mixup=5.0)),
    "fgm": tuple(Regularization(adversarial=Spec("fgm", epsilon=value)) for value in (0.5, 1.0)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_method_and_its_option_change_the_step(name):
    weak, strong = OPTIONS[name]
    plain, weak_params, strong_params, repeated = map(
        train_one_step, (Regularization(), weak, strong, weak)
    )
    assert distance(weak_params, plain) > 1e-4
    assert distance(weak_params, strong_params) > 1e-4
    chex.assert_trees_all_equal(weak_params, repeated)


def test_rdrop_is_the_symmetric_divergence_over_known_labels():
    rng = np.random.default_rng(0)
    logits_a, logits_b = rng.normal(0, 3, (2, SLOTS, CLASSES)).astype(np.float32)
    label_mask = np.asarray(make_batch().label_mask)
    p, q = expit(logits_a.astype(np.float64)), expit(logits_b.astype(np.float64))
    divergence = rel_entr(p, q) + rel_entr(1 - p, 1 - q) + rel_entr(q, p) + rel_entr(1 - q, 1 - p)
    known = np.maximum(label_mask.sum(axis=1), 1)
    expected = (divergence / 2 * label_mask).sum(axis=1) / known
    a, b, mask = map(jnp.asarray, (logits_a, logits_b, label_mask))
    np.testing.assert_allclose(symmetric_kl(a, b, mask), expected, rtol=1e-5)
    assert not np.asarray(symmetric_kl(a, a, mask)).any()


def test_mixup_pairs_each_example_with_another_and_keeps_at_least_half():
    indices, used = set(), np.flatnonzero(WEIGHT)
    for seed in range(30):
        mix = sample_mixup(make_key(seed), jnp.asarray(WEIGHT), 0.4)
        index, lam = np.asarray(mix.index), np.asarray(mix.lam)
        np.testing.assert_array_equal(np.sort(index[used]), used)  # each is a partner once
        assert (index[used] != used).all()
        np.testing.assert_array_equal(index[WEIGHT == 0], np.flatnonzero(WEIGHT == 0))
        chex.assert_shape(lam, (SLOTS, 1))
        assert ((lam >= 0.5) & (lam <= 1)).all()
        indices.add(tuple(index))
    assert len(indices) > 3


def test_mixup_of_a_single_example_keeps_it():
    mix = sample_mixup(make_key(0), jnp.asarray([0.0, 1.0, 0.0]), 1.0)
    np.testing.assert_array_equal(mix.index, [0, 1, 2])


def test_mixed_labels_are_known_where_both_are():
    batch = make_batch(3)
    mix = sample_mixup(make_key(1), batch.weight, 1.0)
    mixed = mix_labels(batch, mix)
    labels, label_mask = np.asarray(batch.labels), np.asarray(batch.label_mask)
    index, lam = np.asarray(mix.index), np.asarray(mix.lam)
    both_known = label_mask * label_mask[index]
    np.testing.assert_array_equal(mixed.label_mask, both_known)
    expected = (lam * labels + (1 - lam) * labels[index]) * both_known
    np.testing.assert_allclose(mixed.labels, expected, atol=1e-6)


def test_fgm_moves_only_the_word_embeddings_and_raises_the_loss():
    params, batch, key = make_params(), make_batch(), jax.random.key(0)

    def compute_loss(params):
        return compute_objective(params, batch, jax.random.clone(key))

    perturbed = fgm(params, jax.grad(compute_loss)(params), epsilon=0.3)
    difference = jax.tree.map(jnp.subtract, perturbed, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(difference):
        expected = 0.3 if tuple(part.key for part in path) == WORDS else 0
        assert float(jnp.linalg.norm(leaf)) == pytest.approx(expected, abs=1e-6)
    assert float(compute_loss(perturbed)) > float(compute_loss(params))


@pytest.mark.parametrize("name", ADVERSARIES)
def test_a_zero_gradient_perturbs_nothing(name):
    params = make_params()
    perturbed = ADVERSARIES[name](params, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal(perturbed, params)


def test_an_adversarial_step_adds_the_gradient_at_the_perturbed_parameters():
    step, state = make_step(OPTIONS["fgm"][0])
    params, batch = make_params(), make_batch()
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=key_implementation()), 0)

    def compute_gradient(params):
        return jax.grad(compute_objective)(params, batch, jax.random.clone(key))

    clean = compute_gradient(params)
    perturbed = compute_gradient(fgm(params, clean, epsilon=0.5))
    expected = jax.tree.map(lambda p, a, b: p - 0.1 * (a + b), params, clean, perturbed)
    assert distance(step(state, batch)[0].params, expected) < 1e-5


def test_the_ema_averages_the_parameters_after_each_update():
    step, state = make_step(Regularization(ema_decay=0.5))
    expected = make_params()
    for update in range(12):
        state, _ = step(state, make_batch(update))
        decay = min(0.5, (2 + update) / (11 + update))
        expected = jax.tree.map(
            lambda average, new, decay=decay: decay * average + (1 - decay) * new,
            expected,
            state.params,
        )
    assert distance(state.ema, expected) < 1e-5
    assert weights_of(state) is state.ema
    _, state_without_ema = make_step(Regularization())
    assert weights_of(state_without_ema) is state_without_ema.params


def test_the_ema_changes_only_at_updates():
    step, state = make_step(Regularization(ema_decay=0.5), accumulation_steps=2)
    initial = jax.tree.map(np.asarray, state.ema)
    state, _ = step(state, make_batch(0))
    chex.assert_trees_all_equal(state.ema, initial)
    state, _ = step(state, make_batch(1))
    assert distance(state.ema, initial) > 1e-4
    first = update_ema({"x": jnp.ones(2)}, {"x": jnp.zeros(2)}, jnp.int32(1), 0.9, 2)
    np.testing.assert_allclose(first["x"], 2 / 11, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [("best", {}, 4), ("swa", {"num_epochs": 1}, 8), ("swa", {"num_epochs": 2}, 6), ("swa", {}, 4)],
)
def test_weight_averages(name, options, expected):
    values, scores = {10: 0.0, 20: 4.0, 30: 8.0}, {10: 0.5, 20: 0.9, 30: 0.7}
    best_first = [
        CheckpointInfo(step, Progress([{"score": scores[step]}], 0.0, 0), {})
        for step in (20, 30, 10)
    ]
    average = AVERAGES[name](
        best_first, lambda checkpoint: {"x": jnp.full(2, values[checkpoint.step])}, **options
    )
    np.testing.assert_allclose(average["x"], expected)
