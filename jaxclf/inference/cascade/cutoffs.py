"""Early exits of a cascade: which texts a stage may decide, fitted to a limit on the metric loss.

Each early stage's probabilities are mapped onto the final stage's scale by a beta curve, fitted to
the final stage's probabilities in place of labels. The final stage's thresholds then apply to every
stage. A text continues to the next stage while any label's probability is closer to its threshold
than that label's margin, in log odds. (Cascades of models: Wang et al. 2022, "Wisdom of
Committees", arXiv 2012.01988.)
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.special import expit, logit

from jaxclf.decisions.arrays import Decided, Labels, Probs, Thresholds
from jaxclf.decisions.calibration import (
    EDGE,
    Calibrated,
    Calibration,
    apply_calibration,
    beta,
    platt,
)
from jaxclf.decisions.evaluation import FOLDS, Rule
from jaxclf.decisions.folds import held_out_masks
from jaxclf.decisions.thresholds import decide
from jaxclf.inference.cascade.config import CascadeConfig
from jaxclf.inference.cascade.margins import (
    PerCell,
    conformal_floor,
    expected_cost,
    fit_labels,
    fit_risk_level,
    margin_at,
    marginal_gain,
)

StageProbs = Float[np.ndarray, "stages examples classes"]
Ranges = Float64[np.ndarray, "classes 2"]
Rows = Int[np.ndarray, " rows"]
ScoreStage = Callable[[int, Rows], Calibrated]

NO_LIMIT = 2.0  # an upper end of uncertainty above every probability


class Goal(NamedTuple):
    """What early exits may cost, and which labels only the final stage may predict."""

    config: CascadeConfig
    is_final: Bool[np.ndarray, " classes"]


class EarlyExit(NamedTuple):
    """When a text exits at a stage before the final one.

    calibration: onto the final stage's scale. uncertain: for each label the range [low, high) of
        probabilities in which a text continues to the next stage.
    """

    calibration: Calibration
    uncertain: Ranges


class StageOutputs(NamedTuple):
    """The stage at which each text exits, from 0, and its probabilities at that stage."""

    stage: Int[np.ndarray, " examples"]
    probs: Calibrated


class RuleMatches(NamedTuple):
    """Texts that rules send to the final stage, and labels that rules assign."""

    escalate: Bool[np.ndarray, " examples"]
    forced: Decided


def is_uncertain(probs: Calibrated, uncertain: Ranges) -> Bool[np.ndarray, " examples"]:
    """Texts with at least one uncertain label; they continue to the next stage."""
    return np.any((probs >= uncertain[:, 0]) & (probs < uncertain[:, 1]), axis=1)


def run_stages_lazily(
    exits: Sequence[EarlyExit], score_stage: ScoreStage, matches: RuleMatches
) -> StageOutputs:
    """Run each stage on the texts that the stage before it left uncertain.

    score_stage: (stage, rows) -> calibrated probabilities of these rows. It is called in the order
        of the stages; rows of a stage are a subset of the rows of the stage before.
    A label that a rule assigns has probability 1.
    """
    stage = np.full(len(matches.escalate), len(exits), np.int64)
    outputs = np.zeros(matches.forced.shape, np.float32)
    rows = np.arange(len(stage))
    for index in range(len(exits) + 1):
        if not len(rows):
            break
        probs = score_stage(index, rows)
        if index < len(exits):
            probs = apply_calibration(exits[index].calibration, probs)
        outputs[rows] = np.where(matches.forced[rows], np.float32(1), probs)
        if index < len(exits):
            continues = is_uncertain(outputs[rows], exits[index].uncertain) | matches.escalate[rows]
            stage[rows[~continues]] = index
            rows = rows[continues]
    return StageOutputs(stage, outputs)


def run_stages(
    exits: Sequence[EarlyExit], probs: StageProbs, matches: RuleMatches | None = None
) -> StageOutputs:
    """The outputs of a cascade from stored probabilities of all stages."""
    stored = probs.astype(np.float32)
    return run_stages_lazily(
        exits, lambda stage, rows: stored[stage, rows], matches or no_matches(probs)
    )


def no_matches(probs: StageProbs) -> RuleMatches:
    """Rule matches of texts to which no rule applies."""
    return RuleMatches(np.zeros(probs.shape[1], bool), np.zeros(probs.shape[1:], bool))


def fit_exits(
    labels: Labels, probs: StageProbs, thresholds: Thresholds, goal: Goal
) -> list[EarlyExit]:
    """Fit the exits of the early stages, with margins as narrow as the goal allows.

    probs: of all stages. thresholds: the final stage's.
    """
    config, is_final = goal
    truth, final = _truth(labels, probs[-1]), decide(probs[-1], thresholds)
    gains = marginal_gain(labels, truth, final, config.metric)
    unit = gains[0] - gains[1]
    centers = logit(np.clip(thresholds.astype(np.float64), EDGE, 1 - EDGE))
    miss_rate = config.max_miss_rate / (len(probs) - 1)
    fits, expectations = [], []
    for stage_probs in probs[:-1]:
        curve = beta(probs[-1], stage_probs)
        early = apply_calibration(curve, stage_probs)
        losses, squares = expected_cost(truth, final, decide(early, thresholds), gains)
        distance = np.abs(logit(early.astype(np.float64)) - centers)
        num_different = int(np.sum(squares > 0))
        heights, decays = fit_labels(distance, losses, unit, num_different)
        square_heights, square_decays = fit_labels(distance, squares, unit**2, num_different)
        expected = np.exp(heights - decays * distance)
        variance = np.exp(square_heights - square_decays * distance)
        columns = zip(early.T, final.T, strict=True)
        floors = np.array([conformal_floor(p[predicted], miss_rate) for p, predicted in columns])
        never_exits = (early[:, is_final] >= floors[is_final]).any(axis=1)
        risk = np.where(never_exits, np.inf, expected.max(axis=1))
        fits.append((curve, heights, decays, floors))
        expectations.append((risk, expected.sum(axis=1), variance.sum(axis=1)))
    risks, losses, squares = np.array(expectations).swapaxes(0, 1)
    level = fit_risk_level(risks, losses, squares, config.max_metric_loss, config.confidence)
    exits = []
    for curve, heights, decays, floors in fits:
        pairs = zip(heights, decays, strict=True)
        margins = np.array([margin_at(height, decay, level) for height, decay in pairs])
        uncertain = np.stack([expit(centers - margins), expit(centers + margins)], axis=1)
        uncertain[is_final, 0] = np.minimum(uncertain[is_final, 0], floors[is_final])
        uncertain[is_final, 1] = NO_LIMIT
        exits.append(EarlyExit(curve, uncertain))
    return exits


def expected_loss(
    labels: Labels, final_probs: Probs, final: Decided, decisions: Decided, metric: str
) -> tuple[float, float]:
    """(loss, standard deviation) of the metric if `decisions` replace the final stage's decisions.

    The standard deviation is that of the loss measured on as many texts. Only losses count: gains
    from disagreeing with the final stage do not offset them.
    """
    truth = _truth(labels, final_probs)
    gains = marginal_gain(labels, truth, final, metric)
    losses, squares = expected_cost(truth, final, decisions, gains)
    return float(losses.sum()), float(np.sqrt(squares.sum()))


class OutOfFold(NamedTuple):
    """Outputs, decisions and the final stage's decisions for every text, by thresholds and exits
    that were fitted without its fold."""

    outputs: StageOutputs
    decisions: Decided
    final: Decided


def fit_out_of_fold(
    labels: Labels, probs: StageProbs, rule: Rule, goal: Goal, matches: RuleMatches | None = None
) -> OutOfFold:
    """Fit thresholds by `rule` and exits on all folds but one, and run them on that one."""
    matches = matches or no_matches(probs)
    stage, outputs = np.zeros(len(labels), np.int64), np.zeros(labels.shape, np.float32)
    decisions, final = np.zeros((2, *labels.shape), bool)
    for inside in held_out_masks(labels, FOLDS):
        fit_probs, probs_inside = probs[:, ~inside], probs[:, inside]
        thresholds = rule(labels[~inside], fit_probs[-1].astype(np.float32))
        exits = fit_exits(labels[~inside], fit_probs, thresholds, goal)
        part = RuleMatches(matches.escalate[inside], matches.forced[inside])
        stage[inside], outputs[inside] = run_stages(exits, probs_inside, part)
        decisions[inside] = decide(outputs[inside], thresholds)
        final[inside] = decide(probs_inside[-1], thresholds)
    return OutOfFold(StageOutputs(stage, outputs), decisions, final)


def _truth(labels: Labels, final_probs: Probs) -> PerCell:
    """The probability that each label is true, from the final stage calibrated on the labels."""
    return apply_calibration(platt(labels, final_probs), final_probs).astype(np.float64)
