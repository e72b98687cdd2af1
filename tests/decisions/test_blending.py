"""Blending weights are on the simplex and optimal; a blend of noisy members is better than the best
of them."""

import functools

import counting
import numpy as np
import pytest
from goemotions_like import draw_members
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_tables import DEGENERATE, NAN, PROBS

from jaxclf.decisions.arrays import mean_where_known
from jaxclf.decisions.blending import (
    BLENDERS,
    blend,
    blend_out_of_fold,
    diversity,
    greedy,
    leave_one_out,
    simplex,
    simplex_per_label,
    uniform,
)
from jaxclf.decisions.calibration import CALIBRATORS, apply_calibration
from jaxclf.decisions.metrics import average_precision, log_loss
from jaxclf.decisions.thresholds import decide, plug_in
from jaxclf.experiment.overrides import options_of

INF = float("inf")
SHARPNESS, NOISE = (1.0, 0.6, 1.3), (1.0, 1.2, 2.0)


@functools.cache
def simulated(rows=1000, classes=6, seed=0):
    """(labels, probs) of three members, the last the worst; a tenth of the labels are unknown."""
    labels, probs = draw_members(seed, SHARPNESS, NOISE, rows=rows)
    labels[np.random.default_rng([seed, 1]).random(labels.shape) < 0.1] = NAN
    return labels[:, -classes:], probs[:, :, -classes:]


def mean_ap(labels, probs):
    return mean_where_known(average_precision(labels, probs))


@st.composite
def member_tables(draw):
    """(labels, probs), with unknown labels, ties, 0 and 1."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(st.integers(1, 3)))
    return (
        draw(arrays(np.float32, shape[1:], elements=st.sampled_from((0.0, 1.0, NAN)))),
        draw(arrays(np.float32, shape, elements=PROBS)),
    )


@settings(deadline=None, max_examples=60)
@given(member_tables(), st.sampled_from(list(BLENDERS)))
def test_weights_are_on_the_simplex(table, name):
    labels, probs = table
    weights = BLENDERS[name](labels, probs)
    assert weights.shape == (probs.shape[0], probs.shape[2])
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-12)
    if len(probs) == 1:
        np.testing.assert_array_equal(blend(probs, weights), probs[0])


def test_uniform_is_the_mean():
    labels, probs = simulated()
    blended = blend(probs, uniform(labels, probs))
    assert blended.dtype == np.float32
    np.testing.assert_allclose(blended, probs.mean(axis=0), rtol=1e-6)


def test_every_label_has_its_own_weights():
    probs = np.array([[[0.2, 0.4]], [[0.6, 0.8]]], np.float32)
    weights = np.array([[1.0, 0.25], [0.0, 0.75]])
    np.testing.assert_allclose(blend(probs, weights), [[0.2, 0.7]], rtol=1e-6)


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize(
    ("blender", "axes"),
    [(simplex, (1, 2)), (functools.partial(simplex_per_label, prior_strength=0.0), (1,))],
)
def test_simplex_satisfies_the_optimality_conditions(members, blender, axes):
    """Kuhn and Tucker: the mean ratio of the likelihoods of a member and of the blend is 1 for a
    positive weight, and at most 1 for a weight of 0. The loss is convex: no weights are better."""
    labels, probs = simulated()
    probs = probs[-members:]
    likelihood = np.where(labels == 1, probs, 1 - probs.astype(np.float64))
    weights = blender(labels, probs)
    ratio = likelihood / np.einsum("mnc,mc->nc", likelihood, weights)
    mean = np.nanmean(np.where(np.isnan(labels), NAN, ratio), axis=axes, keepdims=True)[:, 0]
    assert (mean < 1 + 1e-8).all()
    assert (weights * (1 - mean) < 1e-8).all()
    assert ((weights > 0.01) & (weights < 0.99)).any()
    assert (mean < 1 - 1e-4).any() or members == 2
    assert (weights == weights[:, :1]).all() == (blender is simplex)


def test_a_copy_of_a_member_takes_half_its_weight():
    labels, probs = simulated()
    before = simplex(labels, probs)
    copied = probs[[0, 1, 2, 0]]
    after = simplex(labels, copied)
    np.testing.assert_allclose(blend(copied, after), blend(probs, before), atol=1e-5)
    np.testing.assert_allclose(after[0] + after[3], before[0], atol=1e-5)
    np.testing.assert_allclose(after[0], after[3], atol=1e-6)


@pytest.mark.parametrize("name", ["simplex", "simplex_per_label", "greedy"])
def test_a_perfect_member_gets_all_the_weight(name):
    labels, probs = simulated()
    perfect = np.nan_to_num(labels, nan=0.5)
    weights = BLENDERS[name](labels, np.stack([probs[0], perfect, probs[1]]))
    np.testing.assert_allclose(weights[1], 1, atol=1e-6)


@pytest.mark.parametrize("name", list(BLENDERS))
def test_weights_do_not_depend_on_the_order_of_members(name):
    labels, probs = simulated()
    order = [2, 0, 1]
    before, after = (BLENDERS[name](labels, table) for table in (probs, probs[order]))
    np.testing.assert_allclose(after, before[order], atol=1e-5)


def test_the_prior_leads_from_labels_alone_to_shared_weights():
    labels, probs = simulated()
    for prior in (1e12, INF):
        weights = simplex_per_label(labels, probs, prior_strength=prior)
        np.testing.assert_allclose(weights, simplex(labels, probs), rtol=0, atol=1e-5)
    weights = simplex_per_label(labels, probs, prior_strength=0.0)
    for index in range(labels.shape[1]):
        column = labels[:, [index]], probs[:, :, [index]]
        losses = [
            log_loss(column[0], blend(column[1], table))
            for table in (weights[:, [index]], simplex(*column))
        ]
        assert losses[0] == pytest.approx(losses[1], abs=1e-7)
    assert np.ptp(weights[0]) > 0.2


@pytest.mark.parametrize("prior", [5.0, 50.0])
@pytest.mark.parametrize("edge", [False, True])
def test_the_prior_is_a_number_of_positives_of_the_pooled_data(prior, edge):
    """For two members, with the parabola of the pooled likelihood from finite differences."""
    labels, probs = simulated()
    probs = probs[:2].copy()
    if edge:  # the second is so much worse that its pooled weight is 0
        probs = np.stack([np.clip(probs[0], 0.02, 0.98), 0.1 + 0.8 * probs[1]])
        probs[:, :, 0] = probs[::-1, :, 0]
    likelihood = np.where(labels == 1, probs, 1 - probs.astype(np.float64))

    def log_likelihood(w):
        mixture = w * likelihood[0] + (1 - w) * likelihood[1]
        return np.where(np.isnan(labels), 0, np.log(mixture)).sum(axis=0)

    optimum, step, grid = simplex(labels, probs)[0, 0], 1e-3, np.linspace(0, 1, 501)
    below, center, above = (log_likelihood(optimum + d).sum() for d in (-step, 0, step))
    slope, curvature = (above - below) / (2 * step), (above - 2 * center + below) / step**2
    pooled = slope * (grid - optimum) + curvature * (grid - optimum) ** 2 / 2
    alone = np.stack([log_likelihood(w) for w in grid])
    total = alone + prior / np.nansum(labels) * pooled[:, None]
    weights = simplex_per_label(labels, probs, prior_strength=prior)
    np.testing.assert_allclose(weights[0], grid[total.argmax(axis=0)], atol=0.003)
    assert np.abs(weights[0] - optimum).max() > 0.02
    assert (optimum == 1) == edge


@pytest.mark.parametrize("value", [0.0, 1.0, NAN])
@pytest.mark.parametrize("prior", [0.0, 20.0])
def test_a_constant_label_has_the_shared_weights(value, prior):
    labels, probs = simulated()
    labels = labels.copy()
    labels[:, 2] = value
    weights = simplex_per_label(labels, probs, prior_strength=prior)
    np.testing.assert_array_equal(weights[:, 2], simplex(labels, probs)[:, 2])


def test_rarer_labels_are_nearer_to_the_shared_weights():
    labels, probs = simulated(2000)
    labels, probs = labels[:, [0, 0, 5]].copy(), probs[:, :, [0, 0, 5]].copy()
    probs[:, :, :2] = probs[::-1, :, :2]  # the first two labels need weights unlike the third
    labels[500:, 1] = NAN
    alone, mixed, shared = (
        simplex_per_label(labels, probs, prior_strength=prior) for prior in (0.0, 20.0, INF)
    )
    moved = np.abs(mixed - alone).sum(axis=0) / np.abs(shared - alone).sum(axis=0)
    assert moved[0] < 0.7 * moved[1]


@pytest.mark.parametrize("seed", range(3))
def test_greedy_begins_with_the_best_member_and_never_falls(seed):
    labels, probs = simulated(600, seed=seed)
    singles = [mean_ap(labels, member) for member in probs]
    weights = [greedy(labels, probs, rounds=rounds) for rounds in range(1, 11)]
    assert (weights[0][np.argmax(singles)] == 1).all()
    scores = [mean_ap(labels, blend(probs, table)) for table in weights]
    assert (np.diff([max(singles), *scores]) >= -1e-9).all()
    assert scores[-1] > scores[0]
    counts = np.array(weights) * 2520  # divisible by every number from 1 to 10
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-6)


def test_greedy_picks_the_first_of_equal_members():
    labels, probs = simulated(600)
    weights = greedy(labels, probs[[2, 1, 1, 2]], rounds=5)
    assert weights[1, 0] > 0
    assert (weights[2:] == 0).all()


def test_leave_one_out_is_the_loss_without_the_member():
    labels, probs = simulated()

    def score(labels, probs):
        return -log_loss(labels, probs)

    gains = leave_one_out(labels, probs, simplex, score)
    rest = probs[[0, 2]]
    full, reduced = (score(labels, blend(p, simplex(labels, p))) for p in (probs, rest))
    assert gains[1] == pytest.approx(full - reduced)
    assert (gains > -1e-9).all()
    copied = leave_one_out(labels, probs[[0, 1, 2, 0]], simplex, score)
    np.testing.assert_allclose(copied[[0, 3]], 0, atol=1e-7)
    assert gains[0] > 1e-4
    assert np.isnan(leave_one_out(labels, probs[:1], simplex, score)).all()


def test_diversity_by_hand():
    labels = np.array([[1, 1], [0, 0], [0, NAN], [1, NAN]], np.float32)
    first = np.array([[0.9, 0.9], [0.2, 0.1], [0.6, 0.5], [0.3, 0.5]], np.float32)
    second = np.array([[0.7, 0.2], [0.4, 0.8], [0.1, 0.5], [0.8, 0.5]], np.float32)
    probs = np.stack([first, second])
    result = diversity(labels, probs, probs >= 0.5)
    np.testing.assert_allclose(result.disagreement, [[0, 0.75], [0.75, 0]])
    errors = [(labels - p)[:, 0] for p in probs], [(labels - p)[:2, 1] for p in probs]
    expected = np.mean([np.corrcoef(pair) for pair in errors], axis=0)
    np.testing.assert_allclose(result.correlation, expected, atol=1e-6)


TABLES = {
    **{kind: (labels, np.stack([probs] * 3)) for kind, (labels, probs) in DEGENERATE.items()},
    "nothing known": (np.full((20, 2), NAN), np.linspace(0, 1, 120).reshape(3, 20, 2)),
    "equal members": (np.eye(20)[:, :2], np.stack([np.linspace(0, 1, 40).reshape(20, 2)] * 3)),
    "single member": (np.eye(20)[:, :2], np.linspace(0, 1, 40).reshape(1, 20, 2)),
}
TABLES = {kind: [table.astype(np.float32) for table in pair] for kind, pair in TABLES.items()}


@pytest.mark.parametrize("name", list(BLENDERS))
@pytest.mark.parametrize("kind", list(TABLES))
def test_degenerate_tables_have_a_blend(kind, name):
    labels, probs = TABLES[kind]
    blender = functools.partial(greedy, rounds=3) if name == "greedy" else BLENDERS[name]
    weights = blender(labels, probs)
    if name != "greedy" or kind in ("no positives", "nothing known", "no rows"):
        np.testing.assert_allclose(weights, 1 / len(probs), atol=1e-12)
    assert np.isfinite(blend_out_of_fold(labels, probs, blender)).all()
    gains = leave_one_out(labels, probs, blender, log_loss)
    assert gains.shape == (len(probs),)


@pytest.mark.parametrize("kind", list(TABLES))
def test_diversity_of_degenerate_tables_is_nan_where_undefined(kind):
    labels, probs = TABLES[kind]
    result = diversity(labels, probs, probs >= 0.5)
    is_empty = kind in ("nothing known", "no rows")
    assert np.isnan(result.disagreement).all() == is_empty
    assert is_empty or (np.diag(result.disagreement) == 0).all()
    is_constant = is_empty or kind in ("no positives", "only positives", "one row")
    assert np.isnan(result.correlation).all() == is_constant


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_the_correlation_of_a_constant_error_is_nan(error):
    labels = np.arange(10.0)[:, None] % 2
    probs = np.stack([np.full((10, 1), error), np.linspace(0, 1, 10)[:, None]])
    correlation = diversity(np.zeros_like(labels), probs, probs >= 0.5).correlation
    np.testing.assert_array_equal(np.isnan(correlation), [[True, True], [True, False]])
    assert correlation[1, 1] == pytest.approx(1)
    assert not np.isnan(diversity(labels, probs, probs >= 0.5).correlation).any()


@functools.cache
def calibrated_members():
    """(labels, probs) to fit on, and the same for unseen examples, calibrated on the first."""
    noise = (1.5, 1.5, 1.8)
    fitted = draw_members(0, SHARPNESS, noise, common=0.2, rows=2000)
    unseen = draw_members(50, SHARPNESS, noise, common=0.2, rows=4000)
    labels, probs, unseen_labels, unseen_probs = (x[..., ::2] for x in (*fitted, *unseen))
    curves = [CALIBRATORS["platt"](labels, member) for member in probs]
    probs, unseen_probs = (
        np.stack([apply_calibration(*pair) for pair in zip(curves, table, strict=True)])
        for table in (probs, unseen_probs)
    )
    return labels, probs, unseen_labels, unseen_probs


@pytest.mark.parametrize("name", list(BLENDERS))
def test_a_blend_has_a_higher_macro_f1_than_its_best_member(name):
    """On unseen examples, with thresholds fitted where the weights are."""
    labels, probs, unseen_labels, unseen_probs = calibrated_members()

    def score(weights):
        thresholds = plug_in(labels, blend(probs, weights))
        return counting.macro_f1(unseen_labels, decide(blend(unseen_probs, weights), thresholds))

    options = {"rounds": 5} if name == "greedy" else {}
    singles = [score(np.repeat(row[:, None], labels.shape[1], 1)) for row in np.eye(3)]
    assert score(BLENDERS[name](labels, probs, **options)) > max(singles) + 0.01


def test_prior_strength_and_rounds_are_the_options():
    labels, probs = simulated()
    options = {name: set(options_of(blender)) for name, blender in BLENDERS.items()}
    assert options == {
        **{"uniform": set(), "simplex": set()},
        **{"simplex_per_label": {"prior_strength"}, "greedy": {"rounds"}},
    }
    weights = [
        simplex_per_label(labels, probs, prior_strength=prior) for prior in (10.0, 100.0, 1e3)
    ]
    assert np.abs(np.diff(weights, axis=0)).max(axis=(1, 2)).min() > 1e-3
    np.testing.assert_array_equal(weights[1], simplex_per_label(labels, probs))
    assert (greedy(labels, probs, rounds=1) != greedy(labels, probs, rounds=9)).any()
