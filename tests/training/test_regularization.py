"""Regularization by its definitions: each does what its paper says, and none does nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, rel_entr

from jaxclf.experiment.config import Regularization, Spec
from jaxclf.training.adversarial import ADVERSARIES, fgm
from jaxclf.training.averaging import AVERAGES, mean
from jaxclf.training.checkpoint import CheckpointInfo, Progress
from jaxclf.training.losses import LOSSES
from jaxclf.training.mixup import mix_labels, sample_mixup
from jaxclf.training.step import (
    disagreement,
    dropout_key,
    key_kind,
    make_train_step,
    running_mean,
    weights_of,
)
from jaxclf.types import Batch, LabelStats, State

SLOTS, FEATURES, CLASSES = 6, 5, 3
USED = np.array([1, 1, 0, 1, 1, 0], np.float32)


def batch_of(seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((SLOTS, CLASSES)) < 0.5).astype(np.float32)
    known = (rng.random((SLOTS, CLASSES)) < 0.8).astype(np.float32)
    tokens = jnp.asarray(rng.integers(0, 9, (SLOTS, FEATURES)), jnp.int32)
    arrays = (labels * known, known, USED)
    return Batch(*[tokens] * 4, *map(jnp.asarray, arrays))


def params_of(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    words = {"word": {"embedding": draw(9, 4)}, "norm": {"scale": draw(4)}}
    head = {"kernel": draw(4, CLASSES), "bias": draw(CLASSES)}
    return {"encoder": {"embeddings": words}, "head": {"classifier": head}}


def apply(params, batch, key, mix):
    """A bag of words with dropout: as small as a network can be that has all the parts."""
    words = params["encoder"]["embeddings"]
    pooled = words["word"]["embedding"][batch.ids].mean(axis=1) * words["norm"]["scale"][None]
    pooled = pooled * jax.random.bernoulli(key, 0.8, pooled.shape) / 0.8
    if mix is not None:
        pooled = mix.lam * pooled + (1 - mix.lam) * pooled[mix.index]
    head = params["head"]["classifier"]
    return pooled @ head["kernel"] + head["bias"][None]


STATS = LabelStats(jnp.full(CLASSES, 2.0), jnp.full(CLASSES, 4.0))


def step_of(regular, accumulate=1):
    tx = optax.sgd(0.1)
    if accumulate > 1:
        tx = optax.MultiSteps(tx, accumulate).gradient_transformation()
    step = make_train_step(apply, LOSSES["bce"], tx, STATS, 4, regular, accumulate)
    params = params_of()
    mean = jax.tree.map(jnp.copy, params) if regularization.ema_decay else ()
    return step, State(jnp.int32(0), params, tx.init(params), jnp.asarray(dropout_key(0)), mean)


def distance(one, other):
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, one, other)))


REGULAR = {
    "rdrop": Regularization(rdrop=1.0),
    "mixup": Regularization(mixup=0.5),
    "fgm": Regularization(adversarial=Spec("fgm", epsilon=0.5)),
}


@pytest.mark.parametrize("name", REGULAR)
def test_each_changes_the_step_and_its_option_does_too(name):
    plain = step_of(Regularization())
    plain = plain[0](plain[1], batch_of())[0].params
    one = REGULAR[name]
    more = {
        "rdrop": Regularization(rdrop=2.0),
        "mixup": Regularization(mixup=5.0),
        "fgm": Regularization(adversarial=Spec("fgm", epsilon=1.0)),
    }[name]
    found = []
    for regular in (one, more, one):
        step, state = step_of(regular)
        found.append(step(state, batch_of())[0].params)
    assert distance(found[0], plain) > 1e-4
    assert distance(found[0], found[1]) > 1e-4
    assert distance(found[0], found[2]) == 0


def test_disagreement_is_the_mean_of_both_divergences_over_known_labels():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 3, (2, SLOTS, CLASSES)).astype(np.float32)
    known = np.asarray(batch_of().label_mask)
    p, q = expit(one.astype(np.float64)), expit(other.astype(np.float64))

    def kl(p, q):
        return rel_entr(p, q) + rel_entr(1 - p, 1 - q)

    expected = ((kl(p, q) + kl(q, p)) / 2 * known).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    found = disagreement(*map(jnp.asarray, (one, other, known)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.asarray(disagreement(*map(jnp.asarray, (one, one, known)))).any()


def test_an_example_is_mixed_with_another_and_keeps_at_least_half():
    seen = set()
    for seed in range(30):
        mix = sample_mixup(jax.random.key(seed, impl=key_kind()), jnp.asarray(USED), 0.4)
        partner, used = np.asarray(mix.partner), np.flatnonzero(USED)
        np.testing.assert_array_equal(np.sort(partner[used]), used)  # each is taken from once
        assert (partner[used] != used).all()
        np.testing.assert_array_equal(partner[USED == 0], np.flatnonzero(USED == 0))
        share = np.asarray(mix.share)
        assert share.shape == (SLOTS, 1)
        assert ((share >= 0.5) & (share <= 1)).all()
        seen.add(tuple(partner))
    assert len(seen) > 3


def test_one_example_alone_is_mixed_with_itself():
    mix = sample_mixup(jax.random.key(0, impl=key_kind()), jnp.asarray([0.0, 1.0, 0.0]), 1.0)
    np.testing.assert_array_equal(mix.partner, [0, 1, 2])


def test_mixed_labels_are_shares_and_known_where_both_are():
    batch = batch_of(3)
    mix = sample_mixup(jax.random.key(1, impl=key_kind()), batch.weight, 1.0)
    mixed = mix_labels(batch, mix)
    labels, known = np.asarray(batch.labels), np.asarray(batch.label_mask)
    for slot, (other, (share,)) in enumerate(zip(np.asarray(mix.partner), np.asarray(mix.share))):  # noqa: B905
        both = known[slot] * known[other]
        np.testing.assert_array_equal(mixed.label_mask[slot], both)
        expected = (share * labels[slot] + (1 - share) * labels[other]) * both
        np.testing.assert_allclose(mixed.labels[slot], expected, atol=1e-6)


def loss_at(params):
    logits = apply(params, batch_of(), jax.random.key(0), None)
    batch = batch_of()
    return LOSSES["bce"](logits, batch.labels, batch.label_mask, STATS).sum()


def test_fgm_moves_the_words_alone_and_uphill():
    params = params_of()
    gradient = jax.grad(loss_at)(params)
    worse = fgm(params, gradient, epsilon=0.3)
    words = ("encoder", "embeddings", "word", "embedding")
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(jnp.subtract, worse, params)
    ):
        names = tuple(part.key for part in path)
        assert float(jnp.linalg.norm(leaf)) == pytest.approx(0.3 if names == words else 0, abs=1e-6)
    assert float(loss_at(worse)) > float(loss_at(params))


@pytest.mark.parametrize("name", ADVERSARIES)
def test_without_a_gradient_nothing_moves_and_nothing_breaks(name):
    params = params_of()
    still = ADVERSARIES[name](params, jax.tree.map(jnp.zeros_like, params))
    assert distance(still, params) == 0


def test_an_adversarial_step_is_the_sum_of_both_gradients():
    """Plain descent: the step of FGM is the plain one plus one from the perturbed place."""
    regular = REGULAR["fgm"]
    step, state = step_of(regular)
    params, batch = params_of(), batch_of()
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=key_kind()), 0)

    def objective(params):
        logits = apply(params, batch, jax.random.clone(key), None)
        each = LOSSES["bce"](logits, batch.labels, batch.label_mask, STATS)
        return (each * batch.weight).sum() / 4

    first = jax.grad(objective)(params)
    second = jax.grad(objective)(fgm(params, first, epsilon=0.5))
    expected = jax.tree.map(lambda p, a, b: p - 0.1 * (a + b), params, first, second)
    assert distance(step(state, batch)[0].params, expected) < 1e-5


def test_the_running_mean_is_that_of_the_updates():
    regular = Regularization(ema_decay=0.5)
    step, state = step_of(regular)
    expected = params_of()
    for update in range(12):
        state, _ = step(state, batch_of(update))
        rate = min(0.5, (2 + update) / (11 + update))  # at the end the 0.5
        kept = jax.tree.map(lambda leaf, rate=rate: rate * leaf, expected)
        expected = jax.tree.map(lambda a, b, rate=rate: a + (1 - rate) * b, kept, state.params)
    assert distance(state.ema, expected) < 1e-5
    assert weights_of(state) is state.ema
    plain, bare = step_of(Regularization())
    assert weights_of(bare) is bare.params
    plain(bare, batch_of())


def test_between_updates_the_mean_rests():
    step, state = step_of(Regularization(ema_decay=0.5), accumulate=2)
    before = jax.tree.map(np.asarray, state.ema)
    state, _ = step(state, batch_of(0))
    assert distance(state.ema, before) == 0
    state, _ = step(state, batch_of(1))
    assert distance(state.ema, before) > 1e-4
    one = running_mean({"x": jnp.ones(2)}, {"x": jnp.zeros(2)}, jnp.int32(1), 0.9, 2)
    np.testing.assert_allclose(one["x"], 2 / 11, rtol=1e-6)  # the first update


EPOCHS = [
    CheckpointInfo(10 * (at + 1), Progress([{"score": score}], 0.0, 0), {})
    for at, score in enumerate([0.5, 0.9, 0.7])
]
BEST_FIRST = sorted(EPOCHS, key=lambda one: -one.score)
VALUES = {10: 0.0, 20: 4.0, 30: 8.0}


def average(name, **options):
    load = {step: {"x": jnp.full(2, value)} for step, value in VALUES.items()}
    found = AVERAGES[name](BEST_FIRST, lambda one: load[one.step], **options)
    return float(found["x"][0])


def test_averages_of_epochs():
    assert average("best") == 4
    assert average("swa", num_epochs=1) == 8
    assert average("swa", num_epochs=2) == 6
    assert average("swa") == pytest.approx(4)
    assert float(mean([{"x": jnp.ones(1)}])["x"][0]) == 1
