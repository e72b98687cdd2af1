"""Losses: identities between them, their papers' formulas in float64, unknown labels without
effect, finite values at extreme logits."""

import functools
import inspect
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.experiment.overrides import options_of
from jaxclf.training.losses import LOSSES, asymmetric, bce, class_balanced, focal
from jaxclf.types import LabelStats

N, C = 16, 5
rng = np.random.default_rng(0)
LOGITS = jnp.asarray(rng.normal(0, 3, (N, C)), jnp.float32)
LABELS = jnp.asarray(rng.random((N, C)) < 0.3, jnp.float32)
MASK = jnp.ones((N, C), jnp.float32)
STATS = LabelStats(jnp.asarray([1.0, 2.0, 4.0, 8.0, 0.0]), jnp.full(C, 16.0))
SOFT_LABELS = jnp.asarray(rng.random((N, C)), jnp.float32)
PARTLY_KNOWN = jnp.asarray(rng.random((N, C)) < 0.8, jnp.float32)
OPTIONS = [(name, option) for name in LOSSES for option in options_of(LOSSES[name])]


def select_labels(stats, columns):
    return LabelStats(*(counts[jnp.asarray(columns)] for counts in stats))


def compute_gradient(loss, logits=LOGITS, labels=LABELS, label_mask=MASK, stats=STATS):
    return jax.grad(lambda x: loss(x, labels, label_mask, stats).sum())(logits)


def assert_identical(loss_a, loss_b, labels):
    """Equal values and gradients, bit by bit."""
    chex.assert_trees_all_equal(
        *(
            (loss(LOGITS, labels, MASK, STATS), compute_gradient(loss, labels=labels))
            for loss in (loss_a, loss_b)
        )
    )


def test_balanced_pos_weight_is_negatives_by_positives():
    ratios = (15.0, 7.0, 3.0, 1.0, 16.0)  # a label without positives counts as one
    balanced = bce(LOGITS, LABELS, MASK, STATS, pos_weight="balanced")
    np.testing.assert_array_equal(balanced, bce(LOGITS, LABELS, MASK, STATS, pos_weight=ratios))


@pytest.mark.parametrize("labels", [LABELS, SOFT_LABELS], ids=["hard", "soft"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_asymmetric_with_equal_exponents_and_no_clip_is_focal(gamma, labels):
    symmetric = functools.partial(asymmetric, gamma_pos=gamma, gamma_neg=gamma, clip=0.0)
    assert_identical(symmetric, functools.partial(focal, gamma=gamma), labels)
    if gamma == 0:
        assert_identical(symmetric, bce, labels)


def test_clipped_negatives_have_no_loss():
    logits = jax.scipy.special.logit(jnp.asarray([[0.01, 0.0499, 0.0501, 0.9]]))
    labels, label_mask = jnp.zeros((1, 4)), jnp.ones((1, 4))
    gradient = np.asarray(compute_gradient(asymmetric, logits, labels, label_mask))[0]
    assert (gradient[:2] == 0).all()
    assert (gradient[2:] > 0).all()
    assert float(asymmetric(logits[:, :2], labels[:, :2], label_mask[:, :2], STATS)[0]) == 0


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("clip", [0.05, 0.5, 0.95])
def test_gradients_at_the_clipping_point_are_finite(clip, gamma):
    edge = np.float32(np.log(clip) - np.log1p(-clip))
    steps = np.arange(-200, 201, dtype=np.float32)
    logits = jnp.asarray(edge + np.float32(1e-7) * steps * max(1, abs(edge)))[None]
    loss = functools.partial(asymmetric, clip=clip, gamma_neg=gamma)
    labels, label_mask = jnp.zeros_like(logits), jnp.ones_like(logits)
    gradient = np.asarray(compute_gradient(loss, logits, labels, label_mask))
    assert np.isfinite(gradient).all()
    assert 0 < (gradient == 0).sum() < gradient.size


def test_class_balanced_with_beta_near_one_weights_by_inverse_counts():
    counts = np.array([1.0, 2.0, 4.0, 8.0, 1.0])  # a label without positives counts as one
    loss = functools.partial(class_balanced, beta=1 - 1e-12)
    weights = compute_gradient(loss) / compute_gradient(bce)
    expected = 1 / counts / np.mean(1 / counts)
    np.testing.assert_allclose(weights, np.broadcast_to(expected, (N, C)), rtol=1e-5)


# The formulas of the papers, for one example in float64. n: positives of each label.


def paper_bce(p, y, n, pos_weight):
    return -np.mean(pos_weight * y * np.log(p) + (1 - y) * np.log(1 - p))


def paper_asymmetric(p, y, n, gamma_pos, gamma_neg, clip=0.0, weights=(1, 1)):
    shifted = np.maximum(p - clip, 0)
    positive = weights[0] * (1 - p) ** gamma_pos * np.log(p)
    negative = weights[1] * shifted**gamma_neg * np.log(1 - shifted)
    return -np.mean(y * positive + (1 - y) * negative)


def paper_focal(p, y, n, gamma=2.0, alpha=None):
    weights = (1, 1) if alpha is None else (alpha, 1 - alpha)
    return paper_asymmetric(p, y, n, np.array(gamma), np.array(gamma), weights=weights)


def paper_class_balanced(p, y, n, beta, gamma):
    weight = (1 - beta) / (1 - beta**n)
    weight = weight * len(n) / weight.sum()
    loss = y * (1 - p) ** gamma * np.log(p) + (1 - y) * p**gamma * np.log(1 - p)
    return -np.mean(weight * loss)


PAPERS = [
    (bce, paper_bce, {"pos_weight": (1.0, 2.0, 3.0, 0.5, 10.0)}),
    (focal, paper_focal, {}),
    (focal, paper_focal, {"alpha": 0.25}),
    (focal, paper_focal, {"gamma": (0.0, 1.0, 2.0, 3.0, 0.5)}),
    (asymmetric, paper_asymmetric, {"gamma_pos": 0.5, "gamma_neg": 3.0, "clip": 0.1}),
    (class_balanced, paper_class_balanced, {"beta": 0.9, "gamma": 1.5}),
    (class_balanced, paper_class_balanced, {"beta": 0.9, "gamma": 0.0}),
]


@pytest.mark.parametrize(("loss", "paper", "options"), PAPERS)
@pytest.mark.parametrize("labels", [LABELS.at[:, 0].set(1), SOFT_LABELS], ids=["hard", "soft"])
def test_a_loss_is_the_formula_of_its_paper(loss, paper, options, labels):
    loss, paper = functools.partial(loss, **options), functools.partial(paper, **options)
    stats = LabelStats(jnp.asarray([1.0, 2.0, 4.0, 8.0, 3.0]), STATS.known)
    n, logits, y = (np.asarray(array, float) for array in (stats.positives, LOGITS, labels))

    def compute_expected(logits):
        probs = 1 / (1 + np.exp(-logits))
        return np.array([paper(*row, n) for row in zip(probs, y, strict=True)])

    expected = compute_expected(logits)
    for variant in (loss, jax.jit(loss)):
        np.testing.assert_allclose(variant(LOGITS, labels, MASK, stats), expected, rtol=1e-5)
    gradient = compute_gradient(loss, labels=labels, stats=stats)
    for c in range(C):
        step = 1e-5 * np.eye(C)[c]
        slope = (compute_expected(logits + step) - compute_expected(logits - step)) / 2e-5
        np.testing.assert_allclose(gradient[:, c], slope, rtol=1e-4, atol=1e-6)


# Properties of every registered loss.


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_labels_have_no_effect(name):
    label_mask = jnp.asarray(rng.random((N, C)) < 0.6, jnp.float32).at[0].set(0)
    loss = LOSSES[name]
    # Equal counts: the mean weight of 1 then holds for a subset of the labels too.
    stats = STATS._replace(positives=jnp.full(C, 4.0)) if name == "class_balanced" else STATS
    value = loss(LOGITS, LABELS, label_mask, stats)
    changed_labels = jnp.where(label_mask > 0, LABELS, 1 - LABELS)
    changed_logits = jnp.where(label_mask > 0, LOGITS, 50.0)
    np.testing.assert_array_equal(value, loss(changed_logits, changed_labels, label_mask, stats))
    gradient = compute_gradient(loss, label_mask=label_mask, stats=stats)
    changed = compute_gradient(loss, changed_logits, changed_labels, label_mask, stats)
    assert not np.asarray(gradient)[np.asarray(label_mask) == 0].any()
    np.testing.assert_array_equal(gradient, jnp.where(label_mask > 0, changed, 0))
    assert value[0] == 0
    for row in range(1, N):
        columns = np.flatnonzero(label_mask[row])
        if len(columns):
            known_only = (array[row : row + 1, columns] for array in (LOGITS, LABELS, MASK))
            expected = loss(*known_only, select_labels(stats, columns))
            np.testing.assert_allclose(value[row], expected[0], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_an_example_does_not_depend_on_its_batch(name):
    """Gradient accumulation needs this."""
    value = LOSSES[name](LOGITS, SOFT_LABELS, PARTLY_KNOWN, STATS)
    rows = (slice(row, row + 1) for row in range(N))
    separate = [
        LOSSES[name](LOGITS[row], SOFT_LABELS[row], PARTLY_KNOWN[row], STATS)[0] for row in rows
    ]
    np.testing.assert_allclose(value, separate, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_labels_has_no_effect(name):
    order = jnp.asarray([3, 0, 4, 1, 2])
    arrays = (LOGITS, SOFT_LABELS, PARTLY_KNOWN)
    reordered = LOSSES[name](*(a[:, order] for a in arrays), select_labels(STATS, order))
    np.testing.assert_allclose(LOSSES[name](*arrays, STATS), reordered, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_linear_in_soft_labels(name):
    logits, labels = LOGITS.reshape(-1, 1), SOFT_LABELS.reshape(-1, 1)
    stats = select_labels(STATS, [1])
    negative, positive, soft = (
        LOSSES[name](logits, y, jnp.ones_like(logits), stats)
        for y in (jnp.zeros_like(logits), jnp.ones_like(logits), labels)
    )
    expected = labels[:, 0] * positive + (1 - labels[:, 0]) * negative
    np.testing.assert_allclose(soft, expected, rtol=1e-6)


@pytest.mark.parametrize("name", [name for name, option in OPTIONS if option == "smoothing"])
def test_smoothing_is_a_soft_label(name):
    smoothed = LOSSES[name](LOGITS, LABELS, MASK, STATS, smoothing=0.2)
    expected = LOSSES[name](LOGITS, LABELS * 0.8 + 0.1, MASK, STATS)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-6)


EXTREME_OPTIONS = {"gamma": 0.5, "gamma_pos": 0.5, "gamma_neg": 0.5, "clip": 0.0, "smoothing": 0.1}


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in LOSSES]
    + [(name, {key: EXTREME_OPTIONS[key]}) for name, key in OPTIONS if key in EXTREME_OPTIONS],
)
@pytest.mark.parametrize("label", [0.0, 1e-30, 0.5, 1.0])
def test_values_and_gradients_are_finite_at_any_logit(name, options, label):
    loss = functools.partial(LOSSES[name], **options)
    logits = jnp.asarray([-1e4, -104.0, -88.5, -50.0, 0.0, 50.0, 88.5, 104.0, 1e4])[:, None]
    labels, label_mask = jnp.full_like(logits, label), jnp.ones_like(logits)
    stats = select_labels(STATS, [4])
    value = np.asarray(loss(logits, labels, label_mask, stats))
    assert np.isfinite(value).all()
    assert (value >= 0).all()
    assert np.isfinite(compute_gradient(loss, logits, labels, label_mask, stats)).all()
    # The same logits as the labels of one example.
    gradient = compute_gradient(
        loss, logits.T, labels.T, label_mask.T, select_labels(STATS, [4] * len(logits))
    )
    assert np.isfinite(gradient).all()


CHANGED_OPTIONS = {
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
    changed = compute_gradient(functools.partial(loss, **{option: CHANGED_OPTIONS[option]}))
    assert not np.allclose(compute_gradient(loss), changed, rtol=1e-3)


def test_all_losses_differ_and_have_one_signature():
    gradients = [compute_gradient(loss) for loss in LOSSES.values()]
    for gradient_a, gradient_b in itertools.combinations(gradients, 2):
        assert not np.allclose(gradient_a, gradient_b, rtol=1e-3)
    for loss in LOSSES.values():
        parameters = list(inspect.signature(loss).parameters)
        assert parameters[:4] == ["logits", "labels", "label_mask", "stats"]
