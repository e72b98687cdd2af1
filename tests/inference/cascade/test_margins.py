"""A text leaves a cascade where nothing is in doubt, and what that costs is as promised."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy.special import expit, logit

from jaxclf.decisions.calibration import Calibration, calibrated
from jaxclf.decisions.folds import folds_of
from jaxclf.decisions.metrics import count, f1
from jaxclf.decisions.thresholds import decide
from jaxclf.inference.cascade.cutoffs import (
    ALWAYS,
    EarlyExit,
    Goal,
    RuleMatches,
    expected_loss,
    fit_cascade,
    fit_out_of_fold,
    in_doubt,
    pass_through,
    run_stages,
)
from jaxclf.inference.cascade.margins import (
    WORTH,
    conformal_floor,
    cost_of,
    fit_exponential,
    laws_of,
    margin_of,
)
from jaxclf.inference.cascade.summary import _missed, counted

ROWS = 3000
SHARE = np.array([0.4, 0.15, 0.05, 0.02])
CLASSES = len(SHARE)
HALF = np.full(CLASSES, 0.5)
NONE = np.zeros(CLASSES, bool)
AS_IT_IS = Calibration("none", ({},) * CLASSES)


def goal(loss=0.002, metric="macro_f1", sure=0.9, last=NONE, miss=0.02):
    return Goal(metric, loss, sure, last, miss)


def world(seed, noise: float | np.ndarray = 0.7, rows=ROWS):
    """(labels, probs [early, last]): the last stage's probabilities are exact, the early stage's
    are those with an error."""
    rng = np.random.default_rng(seed)
    z = logit(SHARE) + rng.normal(size=(rows, CLASSES)) * 2.5 - 1
    labels = (rng.random(z.shape) < expit(z)).astype(np.float32)
    early = z + rng.normal(size=z.shape) * noise
    return labels, expit(np.stack([early, z])).astype(np.float32)


def thresholds_of(probs):
    """Of best expected F1: the last stage's are half of it."""
    found = []
    for p in probs[-1].T.astype(np.float64):
        falling = np.sort(p)[::-1]
        found.append((np.cumsum(falling) / (np.arange(len(p)) + 1 + p.sum())).max())
    return np.array(found)


def macro(labels, decided):
    return np.nanmean(f1(count(labels, decided)))


def band(low, high):
    return np.tile([low, high], (CLASSES, 1)).astype(np.float64)


@pytest.fixture(scope="module")
def fitted():
    labels, probs = world(0)
    thresholds = thresholds_of(probs)
    return labels, probs, thresholds, fit_cascade(labels, probs, thresholds, goal())


def test_without_margins_all_leave_and_with_endless_ones_none():
    _, probs = world(0)
    all_leave = run_stages([EarlyExit(AS_IT_IS, band(0.5, 0.5))], probs)
    assert (all_leave.stage == 0).all()
    np.testing.assert_array_equal(all_leave.probs, probs[0])
    none_leave = run_stages([EarlyExit(AS_IT_IS, band(0, ALWAYS))], probs)
    assert (none_leave.stage == 1).all()
    np.testing.assert_array_equal(none_leave.probs, probs[1])


def test_a_text_has_the_answer_of_the_stage_where_it_left(fitted):
    _, probs, _, early = fitted
    mixed = run_stages(early, probs)
    left = mixed.stage == 0
    assert 0.1 < left.mean() < 0.9
    np.testing.assert_array_equal(left, ~in_doubt(calibrated(early[0][0], probs[0]), early[0][1]))
    np.testing.assert_array_equal(mixed.probs[~left], probs[1][~left])
    np.testing.assert_array_equal(mixed.probs[left], calibrated(early[0][0], probs[0])[left])


def test_stages_are_asked_in_turn_and_only_of_what_is_left():
    rng = np.random.default_rng(1)
    probs = rng.random((3, 200, CLASSES)).astype(np.float32)
    early = [EarlyExit(AS_IT_IS, band(0.4, 0.6)), EarlyExit(AS_IT_IS, band(0.45, 0.55))]
    asked = []

    def score(stage, rows):
        asked.append((stage, rows))
        return probs[stage, rows]

    nothing = RuleMatches(np.zeros(200, bool), np.zeros((200, CLASSES), bool))
    found = pass_through(early, score, nothing)
    for row in range(200):
        stage = 0
        while stage < 2 and any(
            low <= p < high
            for p, (low, high) in zip(probs[stage, row], early[stage].doubt, strict=True)
        ):
            stage += 1
        assert found.stage[row] == stage
        np.testing.assert_array_equal(found.probs[row], probs[stage, row])
    assert [stage for stage, _ in asked] == [0, 1, 2]
    for stage, rows in asked:
        np.testing.assert_array_equal(rows, np.flatnonzero(found.stage >= stage))


def test_rules_send_texts_on_and_give_labels(fitted):
    _, probs, _, early = fitted
    rng = np.random.default_rng(2)
    given = rng.random(probs.shape[1:]) < 0.05
    ruled = RuleMatches(rng.random(ROWS) < 0.2, given)
    plain, mixed = run_stages(early, probs), run_stages(early, probs, ruled)
    assert (mixed.stage[ruled.demanded] == 1).all()
    assert (mixed.probs[given] == 1).all()
    untouched = ~given.any(axis=1) & ~ruled.demanded
    np.testing.assert_array_equal(mixed.stage[untouched], plain.stage[untouched])
    # A label that a rule gives is in doubt no more: fewer texts go on for it.
    only = given.any(axis=1) & ~ruled.demanded
    assert (mixed.stage[only] <= plain.stage[only]).all()
    assert (mixed.stage[only] < plain.stage[only]).any()
    rest = untouched | ruled.demanded
    np.testing.assert_array_equal(
        mixed.probs[rest & (mixed.stage == 1)][~given[rest & (mixed.stage == 1)]],
        probs[1][rest & (mixed.stage == 1)][~given[rest & (mixed.stage == 1)]],
    )


def test_more_loss_lets_more_texts_leave():
    labels, probs = world(0)
    thresholds = thresholds_of(probs)
    shares = [
        np.mean(run_stages(fit_cascade(labels, probs, thresholds, goal(loss)), probs).stage == 0)
        for loss in (0.0, 0.001, 0.004, 0.016, 1.0)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[-1] == 1
    surer = run_stages(fit_cascade(labels, probs, thresholds, goal(sure=0.99)), probs)
    evens = run_stages(fit_cascade(labels, probs, thresholds, goal(sure=0.5)), probs)
    assert np.mean(surer.stage == 0) < np.mean(evens.stage == 0)


@pytest.mark.parametrize("safe", [False, True])
def test_margins_are_as_narrow_as_the_goal_allows(fitted, safe):
    """What texts would lose that go on for a safety label takes nothing from the goal."""
    labels, probs, thresholds, _ = fitted
    last = np.array([True, False, False, False]) & safe
    early = fit_cascade(labels, probs, thresholds, goal(0.004, last=last))
    wanted, decided = (decide(p, thresholds) for p in (probs[1], run_stages(early, probs).probs))
    loss, scatter = expected_loss(labels, probs[1], wanted, decided, "macro_f1")
    # Laws are not to the letter what is promised of these texts.
    assert 0.0033 < loss + NormalDist().inv_cdf(0.9) * scatter < 0.0048


def test_an_early_stage_on_another_scale_is_put_on_the_last_ones(fitted):
    labels, probs, thresholds, _ = fitted
    timid = np.stack([expit(0.4 * logit(probs[1].astype(np.float64)) - 1), probs[1]])
    (early,) = fit_cascade(labels, timid.astype(np.float32), thresholds, goal(1e-4))
    again = calibrated(early.calibration, timid[0].astype(np.float32))
    # What a curve can undo it undoes, but for what labels borrow of each other.
    np.testing.assert_allclose(again, probs[1], atol=0.005)
    mixed = run_stages([early], timid.astype(np.float32))
    assert np.mean(mixed.stage == 0) > 0.95


def test_a_promise_is_the_change_of_the_expected_figure(fitted):
    """One more text with the label, or one fewer: the change of F1 of expected counts, exactly to
    first order; recall is linear, so exactly."""
    labels, probs, thresholds, _ = fitted
    last, wanted = probs[1], decide(probs[1], thresholds)
    rng = np.random.default_rng(3)
    changed = rng.choice(np.argwhere(wanted), 40)
    decided = wanted.copy()
    decided[tuple(changed.T)] = False
    p = last.astype(np.float64)
    both = {}
    for name, given in (("all", wanted), ("fewer", decided)):
        hits, size, positives = (p * given).sum(0), given.sum(0) + p.sum(0), p.sum(0)
        both[name] = {
            "macro_f1": np.mean(2 * hits / size),
            "macro_recall": np.mean(hits / positives),
        }
    # The labels are drawn from `last`, which is so calibrated anew to within a few hundredths.
    for metric in WORTH:
        loss, _ = expected_loss(labels, last, wanted, decided, metric)
        assert loss == pytest.approx(both["all"][metric] - both["fewer"][metric], rel=0.1)
    assert expected_loss(labels, last, wanted, wanted, "macro_f1") == (0, 0)
    # More labels than the last stage gives cost no recall.
    assert expected_loss(labels, last, wanted, wanted | (p > 0.1), "macro_recall")[0] == 0
    assert expected_loss(labels, last, wanted, wanted | (p > 0.1), "macro_f1")[0] > 0


def test_a_cost_is_what_may_happen_weighed_by_how_likely(fitted):
    """Each cell where two decide differently, with the label and without."""
    _, probs, thresholds, _ = fitted
    truth, wanted = probs[1].astype(np.float64), decide(probs[1], thresholds)
    decided = decide(probs[0], thresholds)
    right, wrong = np.array([0.3, 0.2, 0.1, 0.5]), np.array([-0.1, -0.2, 0.0, -0.5])
    losses, squares = cost_of(truth, wanted, decided, np.stack([right, wrong]))
    change = wanted.astype(int) - decided
    outcomes = ((truth, change * right), (1 - truth, change * wrong))
    expected = sum(likely * lost for likely, lost in outcomes)
    np.testing.assert_allclose(losses, np.maximum(expected, 0), atol=1e-15)
    np.testing.assert_allclose(squares, sum(likely * lost**2 for likely, lost in outcomes))


@pytest.fixture(scope="module")
def fresh():
    """Worlds like the one that was fitted."""
    return [world(seed) for seed in range(100, 160)]


@pytest.mark.parametrize("metric", ["macro_f1", "macro_recall"])
def test_what_is_measured_elsewhere_is_what_was_promised(fresh, metric):
    labels, probs = world(0)
    thresholds, allowed = thresholds_of(probs), 0.004
    early = fit_cascade(labels, probs, thresholds, goal(allowed, metric))
    last, decided = decide(probs[1], thresholds), decide(run_stages(early, probs).probs, thresholds)
    loss, scatter = expected_loss(labels, probs[1], last, decided, metric)

    def figure(labels, decided):
        if metric == "macro_f1":
            return macro(labels, decided)
        return np.mean((labels * decided).sum(0) / labels.sum(0))

    measured = np.array(
        [
            figure(y, decide(p[1], thresholds))
            - figure(y, decide(run_stages(early, p).probs, thresholds))
            for y, p in fresh
        ]
    )
    # Recall that is gained where early stages give more pays for nothing in what is promised.
    error = 3 * scatter / np.sqrt(len(fresh))
    assert measured.mean() < loss + error
    if metric == "macro_f1":
        assert measured.mean() > loss - error
        assert 0.7 < measured.std() / scatter < 1.4
    # At most one in ten beyond what is allowed, give or take three standard errors.
    assert np.mean(measured > allowed) < 0.1 + 3 * np.sqrt(0.09 / len(fresh))


def test_margins_of_each_label_lose_less_than_one_for_all():
    """Where the early stage knows the frequent labels better than the rare ones."""
    noise = np.array([0.1, 0.3, 0.8, 1.5])
    labels, probs = world(0, noise)
    thresholds = thresholds_of(probs)
    early = fit_cascade(labels, probs, thresholds, goal(0.004))
    left = np.mean(run_stages(early, probs).stage == 0)
    centre = logit(thresholds)
    p = logit(calibrated(early[0].calibration, probs[0]).astype(np.float64))
    margin = np.quantile(np.abs(p - centre).min(axis=1), 1 - left)
    one = [EarlyExit(early[0].calibration, expit(np.stack([centre - margin, centre + margin], 1)))]
    losses = []
    for cascade in (early, one):
        total = 0.0
        for y, q in (world(seed, noise) for seed in range(1, 11)):
            last = decide(q[1], thresholds)
            decided = decide(run_stages(cascade, q).probs, thresholds)
            total += expected_loss(y, q[1], last, decided, "macro_f1")[0]
        losses.append(total)
    assert np.mean(run_stages(one, probs).stage == 0) == pytest.approx(left, abs=0.01)
    assert losses[0] < 0.5 * losses[1]


def test_a_law_is_found_again():
    distance, ones = np.linspace(0, 6, 400), np.ones(400)
    for height, fall in ((-9.0, 1.5), (-2.0, 0.3)):
        losses = np.exp(height - fall * distance)
        assert fit_exponential(distance, losses, ones) == pytest.approx((height, fall))
        assert fit_exponential(distance, losses, 7 * ones) == pytest.approx((height, fall))
    assert fit_exponential(distance, np.zeros(400), ones) == (-np.inf, 0)
    flat = fit_exponential(
        distance, distance / distance.sum(), ones
    )  # what rises is no law: nothing is safe
    assert flat[1] == 0
    assert np.exp(flat[0]) * 400 == pytest.approx(1)
    steep = fit_exponential(distance + 12, np.where(distance == 0, 1e-3, 0.0), ones)
    assert np.isfinite(steep).all()
    assert margin_of(-np.inf, 0.0, 0.0) == 0
    assert margin_of(-3.0, 2.0, 0.0) == np.inf
    assert margin_of(-3.0, 0.0, np.exp(-4.0)) == np.inf
    assert margin_of(-3.0, 2.0, np.exp(-2.0)) == 0
    assert margin_of(-3.0, 2.0, np.exp(-4.0)) == pytest.approx(0.5)


def test_a_label_without_losses_borrows_the_law_of_all():
    distance = np.tile(np.linspace(0, 6, 400)[:, None], 3)
    unit = np.array([1e-3, 1e-2, 0.0])
    losses = np.exp(-1.0 - 1.5 * distance) * unit
    losses[:, 1] = 0
    heights, falls = laws_of(distance, losses, unit, 200)
    assert falls[:2] == pytest.approx([1.5, 1.5])
    assert heights[0] > np.log(unit[0]) - 1.2
    assert -np.inf < heights[1] < np.log(unit[1]) - 1  # less than its own losses would have said
    assert heights[2] == -np.inf  # it counts for nothing
    assert (laws_of(distance, np.zeros((400, 3)), unit, 0)[0] == -np.inf).all()


def test_of_texts_with_a_safety_label_a_share_at_most_leaves():
    """Each of 100 texts in turn as the one that is new: exactly that share of them is missed."""
    rng = np.random.default_rng(4)
    scores = rng.random(100).astype(np.float32)
    for miss, missed in ((0.05, 5), (0.011, 1), (0.0099, 0)):
        lows = [conformal_floor(np.delete(scores, new), miss) for new in range(100)]
        assert sum(score < low for score, low in zip(scores, lows, strict=True)) == missed


@pytest.mark.parametrize("stages", [2, 3])
def test_a_safety_label_demands_the_last_stage(fresh, stages):
    def staged(probs):
        return probs if stages == 2 else np.stack([probs[0], probs.mean(0), probs[1]])

    labels, probs, fresh = *world(0), fresh[:20]
    thresholds, safe = thresholds_of(probs), np.array([False, False, True, False])
    wanted = goal(0.02, last=safe, miss=0.05)
    early = fit_cascade(labels, staged(probs), thresholds, wanted)
    free = fit_cascade(labels, staged(probs), thresholds, goal(0.02))
    missed, given = 0, 0
    for _, p in fresh:
        mixed = run_stages(early, staged(p))
        found = p[1][:, 2] >= thresholds[2]
        missed, given = missed + np.sum(found & (mixed.stage < stages - 1)), given + found.sum()
        # It is the last stage that gives the label, and nobody else.
        decided = decide(mixed.probs, thresholds)[:, 2]
        assert (mixed.stage[decided] == stages - 1).all()
    assert 0 < missed / given < 0.05 + 3 * np.sqrt(0.05 / given)
    lost = np.mean([np.mean(run_stages(free, staged(p)).stage < stages - 1) for _, p in fresh])
    kept = np.mean([np.mean(run_stages(early, staged(p)).stage < stages - 1) for _, p in fresh])
    assert 0 < kept < lost
    few = fit_cascade(labels, staged(probs), thresholds, wanted._replace(miss=1e-4))
    assert (run_stages(few, staged(probs)).stage == stages - 1).all()


def test_what_is_not_known_and_labels_without_positives_are_no_obstacle(fitted):
    labels, probs, thresholds, _ = fitted
    labels = labels.copy()
    labels[np.random.default_rng(5).random(labels.shape) < 0.5] = np.nan
    labels[:, 3] = np.where(np.isnan(labels[:, 3]), np.nan, 0)
    (early,) = fit_cascade(labels, probs, thresholds, goal())
    assert np.isfinite(early.doubt).all()
    assert early.doubt[3, 0] == early.doubt[3, 1]  # it counts for no macro mean
    assert 0 < np.mean(run_stages([early], probs).stage == 0) < 1
    never = np.array([0.5, 0.5, 0.5, 2.0])  # and neither is a label that is never given
    (early,) = fit_cascade(labels, probs, never, goal())
    assert np.isfinite(early.doubt).all()


def test_out_of_fold_is_by_what_the_others_fitted(fitted):
    labels, probs, _, _ = fitted
    labels, probs = labels[:600], probs[:, :600]

    def rule(labels, probs):
        return np.quantile(probs, 0.9, axis=0).astype(np.float64)

    found = fit_out_of_fold(labels, probs, rule, goal())
    inside = folds_of(labels, 10) == 3
    thresholds = rule(labels[~inside], probs[1][~inside])
    early = fit_cascade(labels[~inside], probs[:, ~inside], thresholds, goal())
    mixed = run_stages(early, probs[:, inside])
    np.testing.assert_array_equal(found.mixed.stage[inside], mixed.stage)
    np.testing.assert_array_equal(found.mixed.probs[inside], mixed.probs)
    np.testing.assert_array_equal(found.decided[inside], decide(mixed.probs, thresholds))
    np.testing.assert_array_equal(found.last[inside], decide(probs[1][inside], thresholds))


def test_what_a_safety_label_missed():
    alone = np.array([1, 1, 1, 1, 0, 0], bool)
    ours = np.array([1, 1, 0, 1, 1, 0], bool)
    truth = np.array([1, 0, 1, np.nan, 1, 0])
    found = _missed(truth, ours, alone)
    assert (found["given"], found["missed"]) == (4, 1)
    assert found["recall"] == found["recall_alone"] == pytest.approx(2 / 3)
    # With this share, four texts have at most one missed in 5 % of all samples.
    q = found["at_most"]
    assert (1 - q) ** 4 + 4 * q * (1 - q) ** 3 == pytest.approx(0.05)
    assert _missed(truth, ours, np.zeros(6, bool))["at_most"] == 1
    assert _missed(truth * 0, ours, alone)["recall"] is None


def test_cost_is_counted_by_what_is_new_at_each_stage():
    stage, tokens = np.array([0, 0, 1, 2]), np.array([10, 10, 20, 40])
    # Three networks alike: one first, another second, the third last.
    assert counted(stage, tokens, np.ones(3), 3.0) == pytest.approx((80 + 60 + 40) / (3 * 80))
    assert counted(np.zeros(4, int), tokens, np.array([1.0, 2.0]), 3.0) == pytest.approx(1 / 3)
    # Networks that are not shared cost more than the last stage alone.
    assert counted(np.ones(4, int), tokens, np.array([1.0, 3.0]), 3.0) == pytest.approx(4 / 3)
