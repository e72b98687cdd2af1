"""A text exits a cascade early if no label is uncertain, and the loss is as expected."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy.special import expit, logit

from jaxclf.decisions.calibration import Calibration, apply_calibration
from jaxclf.decisions.folds import assign_folds
from jaxclf.decisions.metrics import score_labels
from jaxclf.decisions.thresholds import decide
from jaxclf.inference.cascade.config import CascadeConfig
from jaxclf.inference.cascade.cutoffs import (
    EarlyExit,
    Goal,
    RuleMatches,
    expected_loss,
    fit_exits,
    fit_out_of_fold,
    no_matches,
    run_stages,
    run_stages_lazily,
)
from jaxclf.inference.cascade.margins import (
    conformal_floor,
    expected_cost,
    fit_exponential,
    fit_labels,
    margin_at,
)
from jaxclf.inference.cascade.summary import count_cost, count_missed

ROWS = 3000
PRIORS = np.array([0.4, 0.15, 0.05, 0.02])
CLASSES = len(PRIORS)
NO_LABELS = np.zeros(CLASSES, bool)
IDENTITY = Calibration("none", ({},) * CLASSES)


def make_goal(loss=0.002, metric="macro_f1", confidence=0.9, is_final=NO_LABELS, miss_rate=0.02):
    return Goal(CascadeConfig(metric, loss, confidence, (), miss_rate), is_final)


def simulate(seed, noise: float | np.ndarray = 0.7, rows=ROWS):
    """(labels, probs [early, final]): the final stage's probabilities are exact, the early stage's
    have an error."""
    rng = np.random.default_rng(seed)
    z = logit(PRIORS) + rng.normal(size=(rows, CLASSES)) * 2.5 - 1
    labels = (rng.random(z.shape) < expit(z)).astype(np.float32)
    early = z + rng.normal(size=z.shape) * noise
    return labels, expit(np.stack([early, z])).astype(np.float32)


def best_thresholds(probs):
    """Thresholds of the best expected F1: half of that F1."""
    best = []
    for p in probs[-1].T.astype(np.float64):
        falling = np.sort(p)[::-1]
        best.append((np.cumsum(falling) / (np.arange(len(p)) + 1 + p.sum())).max())
    return np.array(best)


def macro_f1(labels, decisions):
    return np.nanmean(score_labels(labels, decisions).f1)


def same_range(low, high):
    return np.tile([low, high], (CLASSES, 1)).astype(np.float64)


def exit_rate(exits, probs):
    return np.mean(run_stages(exits, probs).stage < len(probs) - 1)


@pytest.fixture(scope="module")
def fitted():
    labels, probs = simulate(0)
    thresholds = best_thresholds(probs)
    return labels, probs, thresholds, fit_exits(labels, probs, thresholds, make_goal())


@pytest.fixture(scope="module")
def fresh():
    """New samples of the fitted distribution."""
    return [simulate(seed) for seed in range(100, 160)]


def test_each_stage_scores_only_the_texts_that_reach_it():
    rng = np.random.default_rng(1)
    probs = rng.random((3, 200, CLASSES)).astype(np.float32)
    exits = [EarlyExit(IDENTITY, same_range(*ends)) for ends in ((0.4, 0.6), (0.45, 0.55))]
    calls = []

    def score_stage(stage, rows):
        calls.append((stage, rows))
        return probs[stage, rows]

    outputs = run_stages_lazily(exits, score_stage, no_matches(probs))
    for row in range(200):
        stage = 0
        while stage < 2 and any(
            low <= p < high
            for p, (low, high) in zip(probs[stage, row], exits[stage].uncertain, strict=True)
        ):
            stage += 1
        assert outputs.stage[row] == stage
        np.testing.assert_array_equal(outputs.probs[row], probs[stage, row])
    assert [stage for stage, _ in calls] == [0, 1, 2]
    for stage, rows in calls:
        np.testing.assert_array_equal(rows, np.flatnonzero(outputs.stage >= stage))


def test_rules_escalate_texts_and_force_labels(fitted):
    _, probs, _, exits = fitted
    rng = np.random.default_rng(2)
    forced = rng.random(probs.shape[1:]) < 0.05
    matches = RuleMatches(rng.random(ROWS) < 0.2, forced)
    plain, outputs = run_stages(exits, probs), run_stages(exits, probs, matches)
    assert (outputs.stage[matches.escalate] == 1).all()
    assert (outputs.probs[forced] == 1).all()
    has_forced = forced.any(axis=1)
    untouched = ~has_forced & ~matches.escalate
    np.testing.assert_array_equal(outputs.stage[untouched], plain.stage[untouched])
    # A forced label is no longer uncertain, so fewer texts continue because of it.
    only_forced = has_forced & ~matches.escalate
    assert (outputs.stage[only_forced] <= plain.stage[only_forced]).all()
    assert (outputs.stage[only_forced] < plain.stage[only_forced]).any()
    is_final = (outputs.stage == 1)[:, None] & ~forced
    np.testing.assert_array_equal(outputs.probs[is_final], probs[1][is_final])


def test_more_loss_or_less_confidence_lets_more_texts_exit():
    labels, probs = simulate(0)
    thresholds = best_thresholds(probs)

    def fitted_rate(**goal):
        return exit_rate(fit_exits(labels, probs, thresholds, make_goal(**goal)), probs)

    rates = [fitted_rate(loss=loss) for loss in (0.0, 0.002, 1.0)]
    assert rates == sorted(rates)
    assert rates[0] < 0.2
    assert rates[-1] == 1
    assert fitted_rate(confidence=0.99) < fitted_rate(confidence=0.5)


@pytest.mark.parametrize("has_final_label", [False, True])
def test_margins_are_as_narrow_as_the_goal_allows(fitted, has_final_label):
    """Texts that must continue for a final-stage label do not count toward the loss."""
    labels, probs, thresholds, _ = fitted
    is_final = np.array([True, False, False, False]) & has_final_label
    exits = fit_exits(labels, probs, thresholds, make_goal(0.004, is_final=is_final))
    final, decisions = (decide(p, thresholds) for p in (probs[1], run_stages(exits, probs).probs))
    loss, standard_deviation = expected_loss(labels, probs[1], final, decisions, "macro_f1")
    # The fitted exponentials follow the expected losses only roughly.
    assert 0.0033 < loss + NormalDist().inv_cdf(0.9) * standard_deviation < 0.0048


def test_an_early_stage_on_another_scale_is_mapped_onto_the_final_stages(fitted):
    labels, probs, thresholds, _ = fitted
    shrunk = expit(0.4 * logit(probs[1].astype(np.float64)) - 1)
    stage_probs = np.stack([shrunk, probs[1]]).astype(np.float32)
    (early_exit,) = fit_exits(labels, stage_probs, thresholds, make_goal(1e-4))
    # Exact up to the shrinkage of each label's curve toward the shared one.
    restored = apply_calibration(early_exit.calibration, stage_probs[0])
    np.testing.assert_allclose(restored, probs[1], atol=0.005)
    assert exit_rate([early_exit], stage_probs) > 0.95


def test_the_expected_loss_is_the_change_of_the_expected_metric(fitted):
    """To first order for F1; exactly for recall, which is linear in the counts."""
    labels, probs, thresholds, _ = fitted
    final_probs, final = probs[1], decide(probs[1], thresholds)
    rng = np.random.default_rng(3)
    decisions = final.copy()
    decisions[tuple(rng.choice(np.argwhere(final), 40).T)] = False
    p = final_probs.astype(np.float64)

    def expected_metrics(predicted):
        hits, size, positives = (p * predicted).sum(0), predicted.sum(0) + p.sum(0), p.sum(0)
        return {"macro_f1": np.mean(2 * hits / size), "macro_recall": np.mean(hits / positives)}

    before, after = expected_metrics(final), expected_metrics(decisions)
    # The final probabilities are calibrated again on the labels, which changes them by a few
    # hundredths.
    for metric in ("macro_f1", "macro_recall"):
        loss, _ = expected_loss(labels, final_probs, final, decisions, metric)
        assert loss == pytest.approx(before[metric] - after[metric], rel=0.1)
    assert expected_loss(labels, final_probs, final, final, "macro_f1") == (0, 0)
    # More labels than the final stage predicts cost no recall.
    more = final | (p > 0.1)
    assert expected_loss(labels, final_probs, final, more, "macro_recall")[0] == 0
    assert expected_loss(labels, final_probs, final, more, "macro_f1")[0] > 0


def test_the_expected_cost_is_the_mean_over_both_outcomes(fitted):
    _, probs, thresholds, _ = fitted
    truth, final = probs[1].astype(np.float64), decide(probs[1], thresholds)
    decisions = decide(probs[0], thresholds)
    if_true, if_false = np.array([0.3, 0.2, 0.1, 0.5]), np.array([-0.1, -0.2, 0.0, -0.5])
    losses, squares = expected_cost(truth, final, decisions, np.stack([if_true, if_false]))
    change = final.astype(int) - decisions
    outcomes = ((truth, change * if_true), (1 - truth, change * if_false))
    mean = sum(probability * loss for probability, loss in outcomes)
    np.testing.assert_allclose(losses, np.maximum(mean, 0), atol=1e-15)
    np.testing.assert_allclose(squares, sum(p * loss**2 for p, loss in outcomes))


@pytest.mark.parametrize("metric", ["macro_f1", "macro_recall"])
def test_the_loss_on_fresh_samples_is_as_expected(fresh, metric):
    labels, probs = simulate(0)
    thresholds, max_loss = best_thresholds(probs), 0.004
    exits = fit_exits(labels, probs, thresholds, make_goal(max_loss, metric))
    final = decide(probs[1], thresholds)
    decisions = decide(run_stages(exits, probs).probs, thresholds)
    loss, standard_deviation = expected_loss(labels, probs[1], final, decisions, metric)

    def measure(labels, decisions):
        if metric == "macro_f1":
            return macro_f1(labels, decisions)
        return np.mean((labels * decisions).sum(0) / labels.sum(0))

    measured = np.array(
        [
            measure(y, decide(p[1], thresholds))
            - measure(y, decide(run_stages(exits, p).probs, thresholds))
            for y, p in fresh
        ]
    )
    # Where early stages predict more, recall is gained, which the expected loss does not count.
    error = 3 * standard_deviation / np.sqrt(len(fresh))
    assert measured.mean() < loss + error
    if metric == "macro_f1":
        assert measured.mean() > loss - error
        assert 0.7 < measured.std() / standard_deviation < 1.4
    # One in ten samples may lose more; three standard errors of tolerance.
    assert np.mean(measured > max_loss) < 0.1 + 3 * np.sqrt(0.09 / len(fresh))


def test_margins_per_label_lose_less_than_one_shared_margin():
    """For an early stage that is better on frequent labels than on rare ones."""
    noise = np.array([0.1, 0.3, 0.8, 1.5])
    labels, probs = simulate(0, noise)
    thresholds = best_thresholds(probs)
    (early_exit,) = fit_exits(labels, probs, thresholds, make_goal(0.004))
    rate = exit_rate([early_exit], probs)
    centers = logit(thresholds)
    z = logit(apply_calibration(early_exit.calibration, probs[0]).astype(np.float64))
    margin = np.quantile(np.abs(z - centers).min(axis=1), 1 - rate)
    shared = early_exit._replace(uncertain=expit(np.stack([centers - margin, centers + margin], 1)))
    losses = []
    for candidate in (early_exit, shared):
        total = 0.0
        for y, p in (simulate(seed, noise) for seed in range(1, 11)):
            decisions = decide(run_stages([candidate], p).probs, thresholds)
            total += expected_loss(y, p[1], decide(p[1], thresholds), decisions, "macro_f1")[0]
        losses.append(total)
    assert exit_rate([shared], probs) == pytest.approx(rate, abs=0.01)
    assert losses[0] < 0.5 * losses[1]


def test_an_exponential_is_recovered():
    distance, ones = np.linspace(0, 6, 400), np.ones(400)
    for height, decay in ((-9.0, 1.5), (-2.0, 0.3)):
        losses = np.exp(height - decay * distance)
        for weights in (ones, 7 * ones):
            fit = fit_exponential(distance, losses, weights)
            assert fit == pytest.approx((height, decay))
    assert fit_exponential(distance, np.zeros(400), ones) == (-np.inf, 0)
    # Losses that rise with the distance give a constant: no distance is safe.
    height, decay = fit_exponential(distance, distance / distance.sum(), ones)
    assert decay == 0
    assert np.exp(height) * 400 == pytest.approx(1)
    steep = fit_exponential(distance + 12, np.where(distance == 0, 1e-3, 0.0), ones)
    assert np.isfinite(steep).all()


@pytest.mark.parametrize(
    ("height", "decay", "level", "margin"),
    [
        (-np.inf, 0.0, 0.0, 0),
        (-3.0, 2.0, 0.0, np.inf),
        (-3.0, 0.0, np.exp(-4.0), np.inf),
        (-3.0, 2.0, np.exp(-2.0), 0),
        (-3.0, 2.0, np.exp(-4.0), 0.5),
    ],
)
def test_a_margin_is_where_the_exponential_reaches_the_level(height, decay, level, margin):
    assert margin_at(height, decay, level) == pytest.approx(margin)


def test_a_label_without_losses_borrows_from_all_labels():
    distance = np.tile(np.linspace(0, 6, 400)[:, None], 3)
    unit = np.array([1e-3, 1e-2, 0.0])
    losses = np.exp(-1.0 - 1.5 * distance) * unit
    losses[:, 1] = 0
    heights, decays = fit_labels(distance, losses, unit, 200)
    assert decays[:2] == pytest.approx([1.5, 1.5])
    assert heights[0] > np.log(unit[0]) - 1.2
    assert -np.inf < heights[1] < np.log(unit[1]) - 1
    assert heights[2] == -np.inf  # a label that does not count
    assert (fit_labels(distance, np.zeros((400, 3)), unit, 0)[0] == -np.inf).all()


def test_the_conformal_floor_misses_exactly_the_given_share():
    """Each of 100 texts in turn is the new one."""
    rng = np.random.default_rng(4)
    probs = rng.random(100).astype(np.float32)
    for miss_rate, missed in ((0.05, 5), (0.011, 1), (0.0099, 0)):
        floors = [conformal_floor(np.delete(probs, new), miss_rate) for new in range(100)]
        assert sum(p < floor for p, floor in zip(probs, floors, strict=True)) == missed


@pytest.mark.parametrize("num_stages", [2, 3])
def test_only_the_final_stage_predicts_a_final_stage_label(fresh, num_stages):
    def stage_probs(probs):
        return probs if num_stages == 2 else np.stack([probs[0], probs.mean(0), probs[1]])

    labels, probs = simulate(0)
    thresholds, is_final = best_thresholds(probs), np.array([False, False, True, False])
    goal = make_goal(0.02, is_final=is_final, miss_rate=0.05)
    exits = fit_exits(labels, stage_probs(probs), thresholds, goal)
    free = fit_exits(labels, stage_probs(probs), thresholds, make_goal(0.02))
    missed, predicted = 0, 0
    for _, p in fresh[:20]:
        outputs = run_stages(exits, stage_probs(p))
        by_final = p[1][:, 2] >= thresholds[2]
        missed += np.sum(by_final & (outputs.stage < num_stages - 1))
        predicted += by_final.sum()
        decisions = decide(outputs.probs, thresholds)[:, 2]
        assert (outputs.stage[decisions] == num_stages - 1).all()
    assert 0 < missed / predicted < 0.05 + 3 * np.sqrt(0.05 / predicted)
    assert 0 < exit_rate(exits, stage_probs(probs)) < exit_rate(free, stage_probs(probs))
    strict = make_goal(0.02, is_final=is_final, miss_rate=1e-4)
    rare = fit_exits(labels, stage_probs(probs), thresholds, strict)
    assert exit_rate(rare, stage_probs(probs)) == 0


def test_unknown_labels_and_labels_without_positives_are_allowed(fitted):
    labels, probs, thresholds, _ = fitted
    labels = labels.copy()
    labels[np.random.default_rng(5).random(labels.shape) < 0.5] = np.nan
    labels[:, 3] = np.where(np.isnan(labels[:, 3]), np.nan, 0)
    (early_exit,) = fit_exits(labels, probs, thresholds, make_goal())
    assert np.isfinite(early_exit.uncertain).all()
    assert early_exit.uncertain[3, 0] == early_exit.uncertain[3, 1]  # it does not count
    assert 0 < exit_rate([early_exit], probs) < 1
    unreachable = np.array([0.5, 0.5, 0.5, 2.0])
    (early_exit,) = fit_exits(labels, probs, unreachable, make_goal())
    assert np.isfinite(early_exit.uncertain).all()


def test_out_of_fold_outputs_come_from_the_remaining_folds(fitted):
    labels, probs, _, _ = fitted
    labels, probs = labels[:600], probs[:, :600]

    def rule(labels, probs):
        return np.quantile(probs, 0.9, axis=0).astype(np.float64)

    out_of_fold = fit_out_of_fold(labels, probs, rule, make_goal())
    inside = assign_folds(labels, 10) == 3
    thresholds = rule(labels[~inside], probs[1][~inside])
    exits = fit_exits(labels[~inside], probs[:, ~inside], thresholds, make_goal())
    outputs = run_stages(exits, probs[:, inside])
    for expected, actual in (
        (outputs.stage, out_of_fold.outputs.stage),
        (outputs.probs, out_of_fold.outputs.probs),
        (decide(outputs.probs, thresholds), out_of_fold.decisions),
        (decide(probs[1][inside], thresholds), out_of_fold.final),
    ):
        np.testing.assert_array_equal(actual[inside], expected)


def test_missed_labels_are_counted_with_an_exact_bound():
    final = np.array([1, 1, 1, 1, 0, 0], bool)
    decisions = np.array([1, 1, 0, 1, 1, 0], bool)
    truth = np.array([1, 0, 1, np.nan, 1, 0])
    counts = count_missed(truth, decisions, final)
    assert (counts["predicted"], counts["missed"]) == (4, 1)
    assert counts["recall"] == counts["final_stage_recall"] == pytest.approx(2 / 3)
    # At this rate, 5 % of all samples of four texts have at most one miss.
    q = counts["max_miss_rate"]
    assert (1 - q) ** 4 + 4 * q * (1 - q) ** 3 == pytest.approx(0.05)
    assert count_missed(truth, decisions, np.zeros(6, bool))["max_miss_rate"] == 1
    assert count_missed(truth * 0, decisions, final)["recall"] is None


def test_the_cost_counts_the_new_networks_of_each_stage():
    stage, num_tokens = np.array([0, 0, 1, 2]), np.array([10, 10, 20, 40])
    # Three networks of one size, one new at each stage.
    cost = count_cost(stage, num_tokens, np.ones(3), 3.0)
    assert cost == pytest.approx((80 + 60 + 40) / (3 * 80))
    exits_first = np.zeros(4, int)
    assert count_cost(exits_first, num_tokens, np.array([1.0, 2.0]), 3.0) == pytest.approx(1 / 3)
    # Networks that are not shared cost more than the final stage alone.
    exits_last = np.ones(4, int)
    assert count_cost(exits_last, num_tokens, np.array([1.0, 3.0]), 3.0) == pytest.approx(4 / 3)
