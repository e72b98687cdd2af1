"""Losses as identities: focal at gamma 0 is BCE, unknown labels count for nothing, extremes are
finite."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf.config import options_of
from jaxclf.training.losses import LOSSES, bce, focal
from jaxclf.types import LabelStats

N, C = 16, 5
rng = np.random.default_rng(0)
LOGITS = jnp.asarray(rng.normal(0, 3, (N, C)), jnp.float32)
LABELS = jnp.asarray(rng.random((N, C)) < 0.3, jnp.float32)
KNOWN = jnp.ones((N, C), jnp.float32)
STATS = LabelStats(
    jnp.asarray([1.0, 2.0, 4.0, 8.0, 0.0]), jnp.asarray([16.0, 16.0, 16.0, 16.0, 16.0])
)


def test_bce_is_the_mean_of_optax():
    expected = optax.sigmoid_binary_cross_entropy(LOGITS, LABELS).mean(axis=1)
    np.testing.assert_allclose(bce(LOGITS, LABELS, KNOWN, STATS), expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_at_gamma_zero_is_bce(smoothing):
    one = focal(LOGITS, LABELS, KNOWN, STATS, gamma=0.0, smoothing=smoothing)
    other = bce(LOGITS, LABELS, KNOWN, STATS, smoothing=smoothing)
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_is_optax_on_hard_labels(alpha):
    expected = optax.losses.sigmoid_focal_loss(LOGITS, LABELS, alpha=alpha, gamma=2.0)
    ours = focal(LOGITS, LABELS, KNOWN, STATS, gamma=2.0, alpha=alpha)
    np.testing.assert_allclose(ours, expected.mean(axis=1), rtol=1e-5)


def test_pos_weight_is_torch():
    import torch

    weight = [1.0, 2.0, 3.0, 0.5, 10.0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(np.asarray(LOGITS)),
        torch.tensor(np.asarray(LABELS)),
        pos_weight=torch.tensor(weight),
        reduction="none",
    ).numpy()
    ours = bce(LOGITS, LABELS, KNOWN, STATS, pos_weight=tuple(weight))
    np.testing.assert_allclose(ours, expected.mean(axis=1), rtol=1e-5)


def test_balanced_pos_weight_is_negatives_by_positives():
    explicit = (15.0, 7.0, 3.0, 1.0, 16.0)  # a label without positives counts as one
    one = bce(LOGITS, LABELS, KNOWN, STATS, pos_weight="balanced")
    other = bce(LOGITS, LABELS, KNOWN, STATS, pos_weight=explicit)
    np.testing.assert_array_equal(one, other)


def test_an_option_per_label_is_that_option_for_each():
    gammas = (0.0, 1.0, 2.0, 3.0, 0.5)
    together = focal(LOGITS, LABELS, KNOWN, STATS, gamma=gammas)
    columns = [
        focal(
            LOGITS[:, c : c + 1], LABELS[:, c : c + 1], KNOWN[:, c : c + 1], STATS, gamma=gammas[c]
        )
        for c in range(C)
    ]
    np.testing.assert_allclose(together, np.mean(columns, axis=0), rtol=1e-6)


def test_smoothing_moves_labels_towards_a_half():
    soft = LABELS * 0.8 + 0.1
    expected = optax.sigmoid_binary_cross_entropy(LOGITS, soft).mean(axis=1)
    ours = bce(LOGITS, LABELS, KNOWN, STATS, smoothing=0.2)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_labels_count_for_nothing(name):
    known = jnp.asarray(rng.random((N, C)) < 0.6, jnp.float32).at[0].set(0)
    loss = LOSSES[name]
    value = loss(LOGITS, LABELS, known, STATS)
    # Whatever stands where a label is not known, value and gradient stay.
    other_labels = jnp.where(known > 0, LABELS, 1 - LABELS)
    other_logits = jnp.where(known > 0, LOGITS, 50.0)
    np.testing.assert_array_equal(value, loss(other_logits, other_labels, known, STATS))
    gradient = jax.grad(lambda x: loss(x, LABELS, known, STATS).sum())(LOGITS)
    assert not np.asarray(gradient)[np.asarray(known) == 0].any()
    assert value[0] == 0
    for row in range(1, N):
        columns = np.flatnonzero(known[row])
        if len(columns):
            alone = loss(
                LOGITS[row : row + 1, columns],
                LABELS[row : row + 1, columns],
                KNOWN[row : row + 1, columns],
                STATS,
            )
            np.testing.assert_allclose(value[row], alone[0], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("logit", [-1e4, -50.0, 0.0, 50.0, 1e4])
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"gamma": 0.5}])
def test_values_and_gradients_are_finite_at_any_logit(name, logit, label, options):
    options = {key: value for key, value in options.items() if key in options_of(LOSSES[name])}
    x, y, known = jnp.full((1, 1), logit), jnp.full((1, 1), label), jnp.ones((1, 1))
    value, gradient = jax.value_and_grad(
        lambda x: LOSSES[name](x, y, known, STATS, **options).sum()
    )(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert value >= 0


OTHER = {"pos_weight": 3.0, "smoothing": 0.1, "gamma": 1.0, "alpha": 0.3}


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name in LOSSES for option in options_of(LOSSES[name])]
)
def test_every_option_changes_the_gradient(name, option):
    def gradient(**options):
        loss = functools.partial(LOSSES[name], **options)
        return jax.grad(lambda x: loss(x, LABELS, KNOWN, STATS).sum())(LOGITS)

    assert not np.allclose(gradient(), gradient(**{option: OTHER[option]}), rtol=1e-3)


def test_every_loss_has_another_gradient():
    gradients = [
        jax.grad(lambda x, loss=loss: loss(x, LABELS, KNOWN, STATS).sum())(LOGITS)
        for loss in LOSSES.values()
    ]
    assert not np.allclose(gradients[0], gradients[1], rtol=1e-3)
    for loss in LOSSES.values():
        assert list(inspect.signature(loss).parameters)[:4] == [
            "logits",
            "labels",
            "known",
            "stats",
        ]
