"""Losses as identities: focal at gamma 0 is BCE, unknown labels count for nothing, extremes are
finite; and each as its paper writes it, in float64."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf.experiment.overrides import options_of
from jaxclf.training.losses import (
    LOSSES,
    asymmetric,
    bce,
    class_balanced,
    focal,
)
from jaxclf.types import LabelStats

N, C = 16, 5
rng = np.random.default_rng(0)
LOGITS = jnp.asarray(rng.normal(0, 3, (N, C)), jnp.float32)
LABELS = jnp.asarray(rng.random((N, C)) < 0.3, jnp.float32)
KNOWN = jnp.ones((N, C), jnp.float32)
STATS = LabelStats(
    jnp.asarray([1.0, 2.0, 4.0, 8.0, 0.0]), jnp.asarray([16.0, 16.0, 16.0, 16.0, 16.0])
)
SOFT = jnp.asarray(rng.random((N, C)), jnp.float32)
OPTIONS = [(name, option) for name in LOSSES for option in options_of(LOSSES[name])]


def chosen(stats, columns):
    return LabelStats(*(counts[jnp.asarray(columns)] for counts in stats))


def gradient_of(loss, logits=LOGITS, labels=LABELS, known=KNOWN, stats=STATS):
    return jax.grad(lambda x: loss(x, labels, known, stats).sum())(logits)


def assert_same(one, other, labels=LABELS):
    """Equal to the bit, in value and gradient."""
    np.testing.assert_array_equal(
        one(LOGITS, labels, KNOWN, STATS), other(LOGITS, labels, KNOWN, STATS)
    )
    np.testing.assert_array_equal(
        gradient_of(one, labels=labels), gradient_of(other, labels=labels)
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


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_asymmetric_with_equal_exponents_and_no_margin_is_focal(gamma, labels):
    one = functools.partial(asymmetric, gamma_pos=gamma, gamma_neg=gamma, clip=0.0)
    assert_same(one, functools.partial(focal, gamma=gamma), labels)
    if gamma == 0:
        assert_same(one, bce, labels)


def test_negatives_within_the_margin_count_for_nothing():
    logits = jax.scipy.special.logit(jnp.asarray([[0.01, 0.0499, 0.0501, 0.9]]))
    absent, known = jnp.zeros((1, 4)), jnp.ones((1, 4))
    gradient = np.asarray(gradient_of(asymmetric, logits, absent, known))[0]
    assert (gradient[:2] == 0).all()
    assert (gradient[2:] > 0).all()
    loss = asymmetric(logits[:, :2], absent[:, :2], known[:, :2], STATS)
    assert float(loss[0]) == 0


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("clip", [0.05, 0.5, 0.95])
def test_the_edge_of_the_margin_is_finite(clip, gamma):
    edge = np.float32(np.log(clip) - np.log1p(-clip))
    near = edge + np.float32(1e-7) * np.arange(-200, 201, dtype=np.float32) * max(1, abs(edge))
    loss = functools.partial(asymmetric, clip=clip, gamma_neg=gamma)
    x, absent = jnp.asarray(near)[None], jnp.zeros((1, len(near)))
    gradient = np.asarray(gradient_of(loss, x, absent, jnp.ones_like(x)))
    assert np.isfinite(gradient).all()
    assert 0 < (gradient == 0).sum() < gradient.size


def test_equal_counts_make_class_balanced_plain():
    even = LabelStats(jnp.full(C, 7.0), STATS.known)
    for gamma, plain in ((0.0, bce), (2.0, focal)):
        value = class_balanced(LOGITS, SOFT, KNOWN, even, gamma=gamma)
        np.testing.assert_allclose(value, plain(LOGITS, SOFT, KNOWN, even), rtol=1e-6)


def test_class_balanced_weighs_a_label_by_its_effective_number():
    counts = np.array([1.0, 2.0, 4.0, 8.0, 1.0])  # a label without positives counts as one
    weight = gradient_of(class_balanced) / gradient_of(bce)
    weight = np.asarray(weight).mean(axis=0)
    np.testing.assert_allclose(weight.mean(), 1, rtol=1e-6)
    assert (np.diff(weight[:4]) < 0).all()
    effective = (1 - 0.999**counts) / (1 - 0.999)
    np.testing.assert_allclose(weight / weight[0], effective[0] / effective, rtol=1e-5)
    almost = gradient_of(functools.partial(class_balanced, beta=1 - 1e-12)) / gradient_of(bce)
    inverse = 1 / counts / np.mean(1 / counts)
    np.testing.assert_allclose(almost, np.broadcast_to(inverse, (N, C)), rtol=1e-5)


# Each as its paper writes it, for one example in float64.


def paper_focal(p, y, n, total, gamma_pos=2.0, gamma_neg=2.0, clip=0.0):
    shifted = np.maximum(p - clip, 0)
    positive = (1 - p) ** gamma_pos * np.log(p)
    negative = shifted**gamma_neg * np.log(1 - shifted)
    return -np.mean(y * positive + (1 - y) * negative)


def paper_class_balanced(p, y, n, total, beta, gamma):
    weight = (1 - beta) / (1 - beta**n)
    weight = weight * len(n) / weight.sum()
    loss = y * (1 - p) ** gamma * np.log(p) + (1 - y) * p**gamma * np.log(1 - p)
    return -np.mean(weight * loss)


PAPERS = {
    "asymmetric": (
        functools.partial(asymmetric, gamma_pos=0.5, gamma_neg=3.0, clip=0.1),
        functools.partial(paper_focal, gamma_pos=0.5, gamma_neg=3.0, clip=0.1),
    ),
    "class_balanced": (
        functools.partial(class_balanced, beta=0.9, gamma=1.5),
        functools.partial(paper_class_balanced, beta=0.9, gamma=1.5),
    ),
}


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("labels", [LABELS.at[:, 0].set(1), SOFT], ids=["hard", "soft"])
def test_a_loss_is_as_its_paper_writes_it(name, labels):
    ours, paper = PAPERS[name]
    stats = LabelStats(jnp.asarray([1.0, 2.0, 4.0, 8.0, 3.0]), STATS.known)
    n, total = np.asarray(stats.positives, float), 16.0
    x, y = np.asarray(LOGITS, float), np.asarray(labels, float)

    def expected(x):
        p = 1 / (1 + np.exp(-x))
        return np.array([paper(*row, n, total) for row in zip(p, y, strict=True)])

    value = ours(LOGITS, labels, KNOWN, stats)
    np.testing.assert_allclose(value, expected(x), rtol=1e-5)
    # The whole gradient, through the focusing powers too, as central differences have it.
    gradient = gradient_of(ours, labels=labels, stats=stats)
    for c in range(C):
        step = 1e-5 * np.eye(C)[c]
        slope = (expected(x + step) - expected(x - step)) / 2e-5
        np.testing.assert_allclose(gradient[:, c], slope, rtol=1e-4, atol=1e-6)


# Every name in the registry


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_labels_count_for_nothing(name):
    known = jnp.asarray(rng.random((N, C)) < 0.6, jnp.float32).at[0].set(0)
    loss = LOSSES[name]
    # Weights with mean 1 over the labels stay with fewer labels where the counts are equal.
    stats = STATS._replace(positives=jnp.full(C, 4.0)) if name == "class_balanced" else STATS
    value = loss(LOGITS, LABELS, known, stats)
    # Whatever stands where a label is not known, value and gradient stay.
    other_labels = jnp.where(known > 0, LABELS, 1 - LABELS)
    other_logits = jnp.where(known > 0, LOGITS, 50.0)
    np.testing.assert_array_equal(value, loss(other_logits, other_labels, known, stats))
    gradient = gradient_of(loss, known=known, stats=stats)
    assert not np.asarray(gradient)[np.asarray(known) == 0].any()
    np.testing.assert_array_equal(
        gradient,
        jnp.where(known > 0, gradient_of(loss, other_logits, other_labels, known, stats), 0),
    )
    assert value[0] == 0
    for row in range(1, N):
        columns = np.flatnonzero(known[row])
        if len(columns):
            alone = loss(
                LOGITS[row : row + 1, columns],
                LABELS[row : row + 1, columns],
                KNOWN[row : row + 1, columns],
                chosen(stats, columns),
            )
            np.testing.assert_allclose(value[row], alone[0], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_is_its_examples(name):
    """What accumulation of micro-batches rests on: no example's loss knows of another's."""
    known = jnp.asarray(rng.random((N, C)) < 0.8, jnp.float32)
    together = LOSSES[name](LOGITS, SOFT, known, STATS)
    alone = [
        LOSSES[name](LOGITS[i : i + 1], SOFT[i : i + 1], known[i : i + 1], STATS)[0]
        for i in range(N)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_labels_means_nothing(name):
    order = jnp.asarray([3, 0, 4, 1, 2])
    known = jnp.asarray(rng.random((N, C)) < 0.8, jnp.float32)
    one = LOSSES[name](LOGITS, SOFT, known, STATS)
    other = LOSSES[name](LOGITS[:, order], SOFT[:, order], known[:, order], chosen(STATS, order))
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_soft_label_next_to_a_hard_one_has_its_loss(name):
    nearly = jnp.where(LABELS > 0, 1 - 2.0**-24, 1e-30)
    hard, soft = (LOSSES[name](LOGITS, labels, KNOWN, STATS) for labels in (LABELS, nearly))
    np.testing.assert_allclose(soft, hard, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_soft_label_is_so_much_of_a_positive(name):
    x, y = LOGITS.reshape(-1, 1), SOFT.reshape(-1, 1)
    stats = chosen(STATS, [1])
    absent, present, soft = (
        LOSSES[name](x, labels, jnp.ones_like(x), stats)
        for labels in (jnp.zeros_like(x), jnp.ones_like(x), y)
    )
    np.testing.assert_allclose(soft, y[:, 0] * present + (1 - y[:, 0]) * absent, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name, option in OPTIONS if option == "smoothing"])
def test_smoothing_is_a_soft_label(name):
    loss = LOSSES[name]
    one = loss(LOGITS, LABELS, KNOWN, STATS, smoothing=0.2)
    other = loss(LOGITS, LABELS * 0.8 + 0.1, KNOWN, STATS)
    np.testing.assert_allclose(one, other, rtol=1e-6)


AT_THE_EDGE = {
    "gamma": 0.5,
    "gamma_pos": 0.5,
    "gamma_neg": 0.5,
    "clip": 0.0,
    "smoothing": 0.1,
}


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in LOSSES]
    + [(name, {key: AT_THE_EDGE[key]}) for name, key in OPTIONS if key in AT_THE_EDGE],
)
@pytest.mark.parametrize("label", [0.0, 1e-30, 0.5, 1.0])
def test_values_and_gradients_are_finite_at_any_logit(name, options, label):
    loss = functools.partial(LOSSES[name], **options)
    logits = jnp.asarray([-1e4, -104.0, -88.5, -50.0, 0.0, 50.0, 88.5, 104.0, 1e4])[:, None]
    y, known, stats = jnp.full_like(logits, label), jnp.ones_like(logits), chosen(STATS, [4])
    value = np.asarray(loss(logits, y, known, stats))
    assert np.isfinite(value).all()
    assert (value >= 0).all()
    assert np.isfinite(gradient_of(loss, logits, y, known, stats)).all()
    # All of them as the labels of one example.
    assert np.isfinite(gradient_of(loss, logits.T, y.T, known.T, chosen(STATS, [4] * 9))).all()


OTHER = {
    "alpha": 0.3,
    "beta": 0.5,
    "gamma": 1.0,
    "gamma_neg": 1.0,
    "gamma_pos": 3.0,
    "clip": 0.3,
    "pos_weight": 3.0,
    "smoothing": 0.1,
}


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_changes_the_gradient(name, option):
    loss = LOSSES[name]
    changed = gradient_of(functools.partial(loss, **{option: OTHER[option]}))
    assert not np.allclose(gradient_of(loss), changed, rtol=1e-3)


def test_every_loss_has_another_gradient():
    gradients = [gradient_of(loss) for loss in LOSSES.values()]
    for one, other in itertools.combinations(gradients, 2):
        assert not np.allclose(one, other, rtol=1e-3)
    for loss in LOSSES.values():
        assert list(inspect.signature(loss).parameters)[:4] == [
            "logits",
            "labels",
            "known",
            "stats",
        ]
