"""Weights are on the simplex and the best there, an honest blend sees no row twice, and where the
truth is planted a blend of noisy members is better than the best of them."""

import functools
import itertools

import counting
import numpy as np
import pytest
from goemotions_like import draw_members
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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
from jaxclf.errors import ConfigError
from jaxclf.experiment.overrides import options_of

NAN, INF = float("nan"), float("inf")
SHARPNESS, NOISE = (1.0, 0.6, 1.3), (1.0, 1.2, 2.0)


@functools.cache
def world(rows=1000, classes=6, seed=0):
    """(labels, probs) of three members, the last the worst; one label in ten is not known."""
    labels, probs = draw_members(seed, SHARPNESS, NOISE, rows=rows)
    labels[np.random.default_rng([seed, 1]).random(labels.shape) < 0.1] = NAN
    return labels[:, -classes:], probs[:, :, -classes:]


def one_weight(labels, probs, weights):
    return log_loss(labels, np.einsum("mnc,m->nc", probs.astype(np.float64), weights))


def macro_precision(labels, probs):
    return mean_where_known(average_precision(labels, probs))


def macro_f1(labels, probs, thresholds):
    return counting.macro_f1(labels, decide(probs, thresholds))


def fine_grid(members, parts):
    """All weights that are multiples of 1 / parts."""
    for some in itertools.product(range(parts + 1), repeat=members - 1):
        if sum(some) <= parts:
            yield np.array([*some, parts - sum(some)]) / parts


# The simplex


@st.composite
def tables(draw):
    """(labels, probs) with unknowns, ties, 0 and 1."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(st.integers(1, 3)))
    some = st.one_of(st.sampled_from([0, 1e-30, 0.25, 0.5, 1]), st.floats(0, 1, width=32))
    return (
        draw(arrays(np.float32, shape[1:], elements=st.sampled_from((0.0, 1.0, NAN)))),
        draw(arrays(np.float32, shape, elements=some.map(np.float32))),
    )


@settings(deadline=None, max_examples=60)
@given(tables(), st.sampled_from(list(BLENDERS)))
def test_weights_are_on_the_simplex_whatever_they_were_fitted_on(table, name):
    labels, probs = table
    weights = BLENDERS[name](labels, probs)
    assert weights.shape == (probs.shape[0], probs.shape[2])
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-12)
    if len(probs) == 1:
        np.testing.assert_array_equal(blend(probs, weights), probs[0])


def test_uniform_is_the_mean():
    labels, probs = world()
    found = blend(probs, uniform(labels, probs))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, probs.mean(axis=0), rtol=1e-6)


def test_a_blend_weighs_each_label_by_its_own_column():
    probs = np.array([[[0.2, 0.4]], [[0.6, 0.8]]], np.float32)
    weights = np.array([[1.0, 0.25], [0.0, 0.75]])
    np.testing.assert_allclose(blend(probs, weights), [[0.2, 0.7]], rtol=1e-6)


# The least log loss


@pytest.mark.parametrize(("members", "parts"), [(2, 400), (3, 40)])
def test_simplex_is_the_least_of_a_fine_grid(members, parts):
    labels, probs = world()
    probs = probs[-members:]
    found = simplex(labels, probs)
    assert (found == found[:, :1]).all()
    losses = {tuple(w): one_weight(labels, probs, w) for w in fine_grid(members, parts)}
    best = min(losses, key=lambda w: losses[w])
    assert one_weight(labels, probs, found[:, 0]) <= losses[best]
    np.testing.assert_allclose(found[:, 0], best, atol=1.5 / parts)


def test_at_the_optimum_no_member_with_weight_is_worse_than_another():
    """Kuhn and Tucker: the mean of (a member's likelihood / the blend's) is 1 where there is
    weight and at most 1 elsewhere; simplex_per_label without a prior, the same in each label."""
    labels, probs = world()
    likelihood = np.where(labels == 1, probs, 1 - probs.astype(np.float64))
    for weights, axes in (
        (simplex(labels, probs), (1, 2)),
        (simplex_per_label(labels, probs, prior_strength=0.0), (1,)),
    ):
        odds = likelihood / np.einsum("mnc,mc->nc", likelihood, weights)
        mean = np.nanmean(np.where(np.isnan(labels), NAN, odds), axis=axes, keepdims=True)[:, 0]
        assert (mean < 1 + 1e-8).all()
        assert (weights * (1 - mean) < 1e-8).all()
        assert ((weights > 0.01) & (weights < 0.99)).any()
        assert (mean < 1 - 1e-4).any()


def test_a_copy_of_a_member_changes_nothing_and_shares_its_weight():
    labels, probs = world()
    before = simplex(labels, probs)
    copied = probs[[0, 1, 2, 0]]
    after = simplex(labels, copied)
    np.testing.assert_allclose(blend(copied, after), blend(probs, before), atol=1e-5)
    np.testing.assert_allclose(after[0] + after[3], before[0], atol=1e-5)
    np.testing.assert_allclose(after[0], after[3], atol=1e-6)


@pytest.mark.parametrize("name", ["simplex", "simplex_per_label", "greedy"])
def test_a_perfect_member_gets_all_the_weight(name):
    labels, probs = world()
    perfect = np.nan_to_num(labels, nan=0.5)
    weights = BLENDERS[name](labels, np.stack([probs[0], perfect, probs[1]]))
    np.testing.assert_allclose(weights[1], 1, atol=1e-6)


@pytest.mark.parametrize("name", list(BLENDERS))
def test_weights_follow_their_members(name):
    labels, probs = world()
    order = [2, 0, 1]
    before, after = (BLENDERS[name](labels, some) for some in (probs, probs[order]))
    np.testing.assert_allclose(after, before[order], atol=1e-5)


# What rare labels borrow


def test_with_all_the_prior_labels_share_their_weights():
    labels, probs = world()
    shared = simplex(labels, probs)
    np.testing.assert_allclose(
        simplex_per_label(labels, probs, prior_strength=INF), shared, rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        simplex_per_label(labels, probs, prior_strength=1e12), shared, rtol=0, atol=1e-5
    )


def test_without_prior_a_label_stands_alone():
    labels, probs = world()
    together = simplex_per_label(labels, probs, prior_strength=0.0)
    for index in range(labels.shape[1]):
        one = slice(index, index + 1)
        alone = simplex(labels[:, one], probs[:, :, one])
        losses = [
            log_loss(labels[:, one], blend(probs[:, :, one], w)) for w in (alone, together[:, one])
        ]
        assert losses[1] == pytest.approx(losses[0], abs=1e-7)
    assert np.ptp(together[0]) > 0.2


@pytest.mark.parametrize("prior", [5.0, 50.0])
@pytest.mark.parametrize("edge", [False, True])
def test_the_prior_weighs_as_so_many_positives_of_the_pooled_data(prior, edge):
    """Of two members: the pooled likelihood's parabola, found by differences."""
    labels, probs = world()
    probs = probs[:2].copy()
    if edge:  # the second is so much worse that in the pool it has no weight
        probs = np.stack([np.clip(probs[0], 0.02, 0.98), 0.1 + 0.8 * probs[1]])
        probs[:, :, 0] = probs[::-1, :, 0]
    likelihood = np.where(labels == 1, probs, 1 - probs.astype(np.float64))

    def logs(w):
        mixture = w * likelihood[0] + (1 - w) * likelihood[1]
        return np.where(np.isnan(labels), 0, np.log(mixture)).sum(axis=0)

    at, step, grid = simplex(labels, probs)[0, 0], 1e-3, np.linspace(0, 1, 501)
    below, now, above = (logs(w).sum() for w in (at - step, at, at + step))
    slope, bend = (above - below) / (2 * step), (above - 2 * now + below) / step**2
    pooled = slope * (grid - at) + bend * (grid - at) ** 2 / 2
    own = np.stack([logs(w) for w in grid])
    total = own + prior / np.nansum(labels) * pooled[:, None]
    found = simplex_per_label(labels, probs, prior_strength=prior)
    np.testing.assert_allclose(found[0], grid[total.argmax(axis=0)], atol=0.003)
    assert np.abs(found[0] - at).max() > 0.02
    assert (at == 1) == edge


@pytest.mark.parametrize("value", [0.0, 1.0, NAN])
@pytest.mark.parametrize("prior", [0.0, 20.0])
def test_a_label_of_one_kind_of_cells_has_the_shared_weights(value, prior):
    labels, probs = world()
    labels = labels.copy()
    labels[:, 2] = value
    found = simplex_per_label(labels, probs, prior_strength=prior)
    np.testing.assert_array_equal(found[:, 2], simplex(labels, probs)[:, 2])


def test_the_rarer_a_label_the_more_it_borrows():
    labels, probs = world(2000)
    labels, probs = labels[:, [0, 0, 5]].copy(), probs[:, :, [0, 0, 5]].copy()
    probs[:, :, :2] = probs[::-1, :, :2]  # the other way round than the third
    labels[500:, 1] = NAN
    own, mixed, shared = (
        simplex_per_label(labels, probs, prior_strength=one) for one in (0.0, 20.0, INF)
    )
    moved = np.abs(mixed - own).sum(axis=0) / np.abs(shared - own).sum(axis=0)
    assert moved[0] < 0.7 * moved[1]


# Greedy


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rounds", [1, 2, 10])
def test_greedy_is_never_below_its_best_member(seed, rounds):
    labels, probs = world(600, seed=seed)
    singles = [macro_precision(labels, one) for one in probs]
    weights = greedy(labels, probs, rounds=rounds)
    assert macro_precision(labels, blend(probs, weights)) >= max(singles) - 1e-9
    counts = weights * 2520  # of which 1 to 10 are divisors
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-6)
    if rounds == 1:
        assert (weights[np.argmax(singles)] == 1).all()


def test_more_rounds_are_never_worse_where_they_are_fitted():
    labels, probs = world(600)
    scores = [
        macro_precision(labels, blend(probs, greedy(labels, probs, rounds=rounds)))
        for rounds in range(1, 8)
    ]
    assert (np.diff(scores) >= -1e-9).all()
    assert scores[-1] > scores[0]


def test_of_equals_greedy_picks_the_first():
    labels, probs = world(600)
    weights = greedy(labels, probs[[2, 1, 1, 2]], rounds=5)
    assert weights[1, 0] > 0
    assert (weights[2:] == 0).all()


# Out of fold


def test_no_row_is_blended_by_weights_it_had_a_hand_in():
    labels = (np.arange(40)[:, None] % 2).astype(np.float32)
    probs = np.stack([np.full((40, 1), 0.25), np.arange(1, 41)[:, None] / 64]).astype(np.float32)
    fitted = []

    def spy(labels, probs):
        fitted.append(set(probs[1, :, 0].tolist()))
        return np.array([[len(fitted) / 8], [1 - len(fitted) / 8]])

    found = blend_out_of_fold(labels, probs, spy, folds=4)
    assert [len(one) for one in fitted] == [30] * 4
    for (same, own), blended in zip(probs[:, :, 0].T, found[:, 0], strict=True):
        (unseen,) = [fold for fold, seen in enumerate(fitted, 1) if own not in seen]
        assert blended == pytest.approx(unseen / 8 * same + (1 - unseen / 8) * own)


def test_what_fitted_the_weights_flatters():
    """Log loss above that of the whole world's best weights: on the rows that fitted them weights
    seem better than those, on fresh rows they are worse, and out of fold it shows."""
    labels, probs = world(6000, classes=3)
    best = simplex(labels, probs)

    def excess(rows, blended):
        return log_loss(labels[rows], blended) - log_loss(labels[rows], blend(probs[:, rows], best))

    naive, honest, fresh = [], [], []
    for rows in np.arange(6000).reshape(20, 300):
        weights = simplex(labels[rows], probs[:, rows])
        naive.append(excess(rows, blend(probs[:, rows], weights)))
        honest.append(excess(rows, blend_out_of_fold(labels[rows], probs[:, rows], simplex)))
        fresh.append(excess(slice(None), blend(probs, weights)))
    assert (np.array(naive) < np.array(honest)).all()
    assert max(naive) < 0 < min(fresh)
    flatters, differs = np.mean(fresh) - np.mean(naive), np.mean(fresh) - np.mean(honest)
    assert abs(differs) < 0.5 * flatters


def test_folds_and_seed_matter_and_are_all_that_does():
    labels, probs = world(400)
    five = blend_out_of_fold(labels, probs, simplex)
    assert five.tobytes() == blend_out_of_fold(labels, probs, simplex, folds=5, seed=0).tobytes()
    assert (five != blend_out_of_fold(labels, probs, simplex, folds=4)).any()
    assert (five != blend_out_of_fold(labels, probs, simplex, seed=1)).any()
    with pytest.raises(ConfigError, match="at least 2"):
        blend_out_of_fold(labels, probs, simplex, folds=1)


# What members are worth


def test_a_member_gains_what_the_others_lose_without_it():
    labels, probs = world()

    def score(labels, probs):
        return -log_loss(labels, probs)

    gains = leave_one_out(labels, probs, simplex, score)
    whole = score(labels, blend(probs, simplex(labels, probs)))
    rest = probs[[0, 2]]
    assert gains[1] == pytest.approx(whole - score(labels, blend(rest, simplex(labels, rest))))
    assert (gains > -1e-9).all()  # of nested simplices
    copied = leave_one_out(labels, probs[[0, 1, 2, 0]], simplex, score)
    np.testing.assert_allclose(copied[[0, 3]], 0, atol=1e-7)
    assert gains[0] > 1e-4
    assert np.isnan(leave_one_out(labels, probs[:1], simplex, score)).all()


def test_diversity_by_hand():
    labels = np.array([[1, 1], [0, 0], [0, NAN], [1, NAN]], np.float32)
    one = np.array([[0.9, 0.9], [0.2, 0.1], [0.6, 0.5], [0.3, 0.5]], np.float32)
    other = np.array([[0.7, 0.2], [0.4, 0.8], [0.1, 0.5], [0.8, 0.5]], np.float32)
    probs = np.stack([one, other])
    found = diversity(labels, probs, probs >= 0.5)
    np.testing.assert_allclose(found.disagreement, [[0, 0.75], [0.75, 0]])
    errors = [(labels - p)[:, 0] for p in probs], [(labels - p)[:2, 1] for p in probs]
    expected = np.mean([np.corrcoef(pair) for pair in errors], axis=0)
    np.testing.assert_allclose(found.correlation, expected, atol=1e-6)


def test_errors_in_common_correlate():
    found = []
    for common in (0.1, 0.9):
        labels, probs = draw_members(0, (1.0, 1.0), (2.0, 2.0), common, rows=1000)
        found.append(diversity(labels, probs, probs >= 0.3))
    assert found[0].correlation[0, 1] < found[1].correlation[0, 1] - 0.1
    assert found[0].disagreement[0, 1] > 1.5 * found[1].disagreement[0, 1]


# Little to go by


ODD = {
    "no positives": (np.zeros((20, 2)), np.full((3, 20, 2), 0.3)),
    "only positives": (np.ones((20, 2)), np.full((3, 20, 2), 0.3)),
    "nothing known": (np.full((20, 2), NAN), np.linspace(0, 1, 120).reshape(3, 20, 2)),
    "one row": (np.ones((1, 2)), np.full((3, 1, 2), 1.0)),
    "no rows": (np.ones((0, 2)), np.ones((3, 0, 2))),
    "constant": (np.eye(20)[:, :2], np.zeros((3, 20, 2))),
    "identical": (np.eye(20)[:, :2], np.repeat(np.linspace(0, 1, 40).reshape(1, 20, 2), 3, 0)),
    "one member": (np.eye(20)[:, :2], np.linspace(0, 1, 40).reshape(1, 20, 2)),
}


@pytest.mark.parametrize("name", list(BLENDERS))
@pytest.mark.parametrize("kind", list(ODD))
def test_odd_tables_have_a_blend(kind, name):
    labels, probs = (part.astype(np.float32) for part in ODD[kind])
    blender = functools.partial(greedy, rounds=3) if name == "greedy" else BLENDERS[name]
    weights = blender(labels, probs)
    if name != "greedy" or kind in ("no positives", "nothing known", "no rows"):
        np.testing.assert_allclose(weights, 1 / len(probs), atol=1e-12)
    assert np.isfinite(blend_out_of_fold(labels, probs, blender)).all()
    gains = leave_one_out(labels, probs, blender, log_loss)
    assert gains.shape == (len(probs),)


@pytest.mark.parametrize("kind", list(ODD))
def test_odd_tables_have_a_diversity_or_none(kind):
    labels, probs = (part.astype(np.float32) for part in ODD[kind])
    found = diversity(labels, probs, probs >= 0.5)
    nothing = kind in ("nothing known", "no rows")
    assert np.isnan(found.disagreement).all() == nothing
    assert nothing or (np.diag(found.disagreement) == 0).all()
    constant = nothing or kind in ("no positives", "only positives", "one row")
    assert np.isnan(found.correlation).all() == constant


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_a_member_that_always_errs_alike_has_no_correlation(error):
    labels = np.arange(10.0)[:, None] % 2
    probs = np.stack([np.full((10, 1), error), np.linspace(0, 1, 10)[:, None]])
    found = diversity(np.zeros_like(labels), probs, probs >= 0.5).correlation
    np.testing.assert_array_equal(np.isnan(found), [[True, True], [True, False]])
    assert found[1, 1] == pytest.approx(1)
    assert not np.isnan(diversity(labels, probs, probs >= 0.5).correlation).any()


# The planted truth


@functools.cache
def calibrated_world():
    """(labels, probs) to fit on, and fresh ones, both calibrated where they are fitted."""
    noise = (1.5, 1.5, 1.8)
    labels, probs = draw_members(0, SHARPNESS, noise, common=0.2, rows=2000)
    others, unseen = draw_members(50, SHARPNESS, noise, common=0.2, rows=4000)
    labels, probs, others, unseen = (table[..., ::2] for table in (labels, probs, others, unseen))
    curves = [CALIBRATORS["platt"](labels, one) for one in probs]
    probs, unseen = (
        np.stack([apply_calibration(curve, one) for curve, one in zip(curves, some, strict=True)])
        for some in (probs, unseen)
    )
    return labels, probs, others, unseen


@pytest.mark.parametrize("name", list(BLENDERS))
def test_a_blend_is_better_than_the_best_of_its_members(name):
    """In macro F1 of fresh examples, thresholds fitted where the weights are."""
    labels, probs, others, unseen = calibrated_world()

    def score(weights):
        thresholds = plug_in(labels, blend(probs, weights))
        return macro_f1(others, blend(unseen, weights), thresholds)

    options = {"rounds": 5} if name == "greedy" else {}
    singles = [score(np.repeat(one[:, None], labels.shape[1], 1)) for one in np.eye(3)]
    assert score(BLENDERS[name](labels, probs, **options)) > max(singles) + 0.01


# Options


def test_prior_and_rounds_matter():
    labels, probs = world()
    assert options_of(simplex_per_label).keys() == {"prior_strength"}
    assert options_of(greedy).keys() == {"rounds"}
    assert not options_of(simplex)
    assert not options_of(uniform)
    found = [simplex_per_label(labels, probs, prior_strength=prior) for prior in (10.0, 100.0, 1e3)]
    assert np.abs(np.diff(found, axis=0)).max(axis=(1, 2)).min() > 1e-3
    np.testing.assert_array_equal(found[1], simplex_per_label(labels, probs))
    assert (greedy(labels, probs, rounds=1) != greedy(labels, probs, rounds=9)).any()
