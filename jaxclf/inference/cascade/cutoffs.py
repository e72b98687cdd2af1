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
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy.special import expit, logit

from jaxclf.decisions.arrays import Decided, Labels
from jaxclf.decisions.calibration import EDGE, Calibration, apply_calibration, beta, platt
from jaxclf.decisions.crossfit import FOLDS, Rule
from jaxclf.decisions.folds import assign_folds
from jaxclf.decisions.thresholds import decide
from jaxclf.inference.cascade.margins import (
    Gains,
    PerCell,
    conformal_floor,
    evaluate,
    expected_cost,
    fit_labels,
    fit_risk_level,
    margin_at,
    marginal_gain,
)

StageProbs = Float[np.ndarray, "stages examples classes"]
Probs = Float32[np.ndarray, "examples classes"]
Thresholds = Float[np.ndarray, " classes"]
Rows = Int[np.ndarray, " rows"]
ScoreStage = Callable[[int, Rows], Probs]

NO_LIMIT = 2.0  # an upper end of uncertainty above every probability


class Goal(NamedTuple):
    """What early exits may cost.

    metric: a key of METRICS. max_metric_loss: how much of it may be lost against the final stage
        alone, measured on as many texts as it is fitted on, with this confidence.
    is_final: labels that only the final stage may predict. max_miss_rate: the share of texts with
        such a label that may exit early without it.
    """

    metric: str
    max_metric_loss: float
    confidence: float
    is_final: Bool[np.ndarray, " classes"]
    max_miss_rate: float


class EarlyExit(NamedTuple):
    """When a text exits at a stage before the final one.

    calibration: onto the final stage's scale. uncertain: for each label the range [low, high) of
        probabilities in which a text continues to the next stage.
    """

    calibration: Calibration
    uncertain: Float64[np.ndarray, "classes 2"]


class StageOutputs(NamedTuple):
    """The stage at which each text exits, from 0, and its probabilities at that stage."""

    stage: Int[np.ndarray, " examples"]
    probs: Probs


class RuleMatches(NamedTuple):
    """Texts that rules send to the final stage, and labels that rules assign."""

    escalate: Bool[np.ndarray, " examples"]
    forced: Decided


def is_uncertain(
    probs: Probs, uncertain: Float64[np.ndarray, "classes 2"]
) -> Bool[np.ndarray, " examples"]:
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


class _FinalStage(NamedTuple):
    """The final stage's estimate of the labels, its decisions, and what each decision gains.

    centers: thresholds as log odds.
    """

    truth: PerCell
    decisions: Decided
    gains: Gains
    thresholds: Thresholds
    centers: Float64[np.ndarray, " classes"]


class _StageFit(NamedTuple):
    """A stage's curve, each label's exponential and floor, and expectations for each text."""

    curve: Calibration
    exponentials: tuple[Float64[np.ndarray, " classes"], Float64[np.ndarray, " classes"]]
    floors: Float64[np.ndarray, " classes"]
    risk: Float64[np.ndarray, " examples"]
    loss: Float64[np.ndarray, " examples"]
    square: Float64[np.ndarray, " examples"]


def fit_exits(
    labels: Labels, probs: StageProbs, thresholds: Thresholds, goal: Goal
) -> list[EarlyExit]:
    """Fit the exits of the early stages, with margins as narrow as the goal allows.

    probs: of all stages. thresholds: the final stage's.
    """
    truth, decisions = _truth(labels, probs[-1]), decide(probs[-1], thresholds)
    gains = marginal_gain(labels, truth, decisions, goal.metric)
    centers = logit(np.clip(thresholds.astype(np.float64), EDGE, 1 - EDGE))
    final = _FinalStage(truth, decisions, gains, thresholds, centers)
    miss_rate = goal.max_miss_rate / (len(probs) - 1)
    fits = [_fit_stage(p, beta(probs[-1], p), final, goal.is_final, miss_rate) for p in probs[:-1]]
    risks, losses, squares = np.array([fit[-3:] for fit in fits]).swapaxes(0, 1)
    level = fit_risk_level(risks, losses, squares, goal.max_metric_loss, goal.confidence)
    return [_make_exit(fit, centers, level, goal.is_final) for fit in fits]


def _fit_stage(
    stage_probs: Float[np.ndarray, "examples classes"],
    curve: Calibration,
    final: _FinalStage,
    is_final: Bool[np.ndarray, " classes"],
    max_miss_rate: float,
) -> _StageFit:
    probs = apply_calibration(curve, stage_probs)
    decisions = decide(probs, final.thresholds)
    losses, squares = expected_cost(final.truth, final.decisions, decisions, final.gains)
    distance = np.abs(logit(probs.astype(np.float64)) - final.centers)
    unit, num_different = final.gains[0] - final.gains[1], int(np.sum(squares > 0))
    exponentials = fit_labels(distance, losses, unit, num_different)
    expected = evaluate(exponentials, distance)
    variance = evaluate(fit_labels(distance, squares, unit**2, num_different), distance)
    floors = np.array(
        [
            conformal_floor(probs[is_predicted, label], max_miss_rate)
            for label, is_predicted in enumerate(final.decisions.T)
        ]
    )
    never_exits = (probs[:, is_final] >= floors[is_final]).any(axis=1)
    risk = np.where(never_exits, np.inf, expected.max(axis=1))
    return _StageFit(curve, exponentials, floors, risk, expected.sum(axis=1), variance.sum(axis=1))


def _make_exit(
    fit: _StageFit,
    centers: Float64[np.ndarray, " classes"],
    level: float,
    is_final: Bool[np.ndarray, " classes"],
) -> EarlyExit:
    pairs = zip(*fit.exponentials, strict=True)
    margins = np.array([margin_at(height, decay, level) for height, decay in pairs])
    uncertain = np.stack([expit(centers - margins), expit(centers + margins)], axis=1)
    uncertain[is_final, 0] = np.minimum(uncertain[is_final, 0], fit.floors[is_final])
    uncertain[is_final, 1] = NO_LIMIT
    return EarlyExit(fit.curve, uncertain)


def expected_loss(
    labels: Labels,
    final_probs: Float[np.ndarray, "examples classes"],
    final: Decided,
    decisions: Decided,
    metric: str,
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
    labels: Labels,
    probs: StageProbs,
    rule: Rule,
    goal: Goal,
    matches: RuleMatches | None = None,
) -> OutOfFold:
    """Fit thresholds by `rule` and exits on all folds but one, and run them on that one."""
    matches = matches or no_matches(probs)
    fold = assign_folds(labels, FOLDS)
    stage, outputs = np.zeros(len(labels), np.int64), np.zeros(labels.shape, np.float32)
    decisions, final = np.zeros((2, *labels.shape), bool)
    for index in range(FOLDS):
        inside = fold == index
        if inside.any():
            fit_probs, probs_inside = probs[:, ~inside], probs[:, inside]
            thresholds = rule(labels[~inside], fit_probs[-1].astype(np.float32))
            exits = fit_exits(labels[~inside], fit_probs, thresholds, goal)
            part = RuleMatches(matches.escalate[inside], matches.forced[inside])
            stage[inside], outputs[inside] = run_stages(exits, probs_inside, part)
            decisions[inside] = decide(outputs[inside], thresholds)
            final[inside] = decide(probs_inside[-1], thresholds)
    return OutOfFold(StageOutputs(stage, outputs), decisions, final)


def _truth(labels: Labels, final_probs: Float[np.ndarray, "examples classes"]) -> PerCell:
    """The probability that each label is true, from the final stage calibrated on the labels."""
    return apply_calibration(platt(labels, final_probs), final_probs).astype(np.float64)
