"""Cut-offs of a multistage classifier: which texts an early stage may decide, and at what loss.

An early stage's probabilities are put on the last stage's scale, by a beta curve fitted to the last
stage's probabilities in place of labels: the last stage's thresholds then serve every stage. A text
goes on while any label's probability lies within that label's margin of its threshold, in log odds.
(Stages that pass on what they doubt: Wang et al. 2022, "Wisdom of Committees", arXiv 2012.01988.)

Thresholds that are fitted anew on the mixture of stages drift away from the last stage's, by up to
0.09 on GoEmotions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy.special import expit, logit

from jaxclf.decisions.calibration import EDGE, Calibration, beta, calibrated, platt
from jaxclf.decisions.crossfit import FOLDS, Rule
from jaxclf.decisions.folds import folds_of
from jaxclf.decisions.metrics import Decided, Labels
from jaxclf.decisions.thresholds import decide
from jaxclf.inference.cascade.margins import (
    Cells,
    conformal_floor,
    cost_of,
    evaluate,
    fit_risk_level,
    laws_of,
    margin_of,
    marginal_gain,
)

Stages = Float[np.ndarray, "stages examples classes"]
Probs = Float32[np.ndarray, "examples classes"]
Rows = Int[np.ndarray, " rows"]
Score = Callable[[int, Rows], Probs]

ALWAYS = 2.0  # above every probability: a label in doubt whatever its probability


class Goal(NamedTuple):
    """What leaving early may cost.

    metric: a name in WORTH. loss: of it, that is not to be exceeded where it is measured on as many
        texts as there are here, with the chance `sure`.
    last: labels that only the last stage gives; miss: of the texts to which it gives one of these,
        the share that may leave before.
    """

    metric: str
    loss: float
    sure: float
    last: Bool[np.ndarray, " classes"]
    miss: float


class EarlyExit(NamedTuple):
    """A stage before the last: its curve onto the last one's scale, and between which two
    probabilities, the upper one excluded, each label is in doubt."""

    calibration: Calibration
    doubt: Float64[np.ndarray, "classes 2"]


class StageOutputs(NamedTuple):
    """The stage at which each text left, from 0, and the probabilities it left with."""

    stage: Int[np.ndarray, " examples"]
    probs: Probs


def in_doubt(
    probs: Probs, doubt: Float64[np.ndarray, "classes 2"]
) -> Bool[np.ndarray, " examples"]:
    """Texts that go on: those with a label in doubt."""
    return np.any((probs >= doubt[:, 0]) & (probs < doubt[:, 1]), axis=1)


class RuleMatches(NamedTuple):
    """What rules say of texts: which go to the last stage, which labels they have."""

    demanded: Bool[np.ndarray, " examples"]
    given: Decided


def pass_through(early: Sequence[EarlyExit], score: Score, ruled: RuleMatches) -> StageOutputs:
    """Run the stages one after another, each on the texts that the one before left in doubt.

    score: (stage, rows) -> probabilities of these rows, as that stage's own model gives them. Rows
        are asked for in order of stages, and never at a stage without having been at those before.
    A label that a rule gives has probability 1.
    """
    stage = np.full(len(ruled.demanded), len(early), np.int64)
    found = np.zeros(ruled.given.shape, np.float32)
    rest = np.arange(len(stage))
    for index in range(len(early) + 1):
        if not len(rest):
            break
        probs = score(index, rest)
        if index < len(early):
            probs = calibrated(early[index].calibration, probs)
        found[rest] = np.where(ruled.given[rest], np.float32(1), probs)
        if index < len(early):
            stays = in_doubt(found[rest], early[index].doubt) | ruled.demanded[rest]
            stage[rest[~stays]] = index
            rest = rest[stays]
    return StageOutputs(stage, found)


def run_stages(
    early: Sequence[EarlyExit], probs: Stages, ruled: RuleMatches | None = None
) -> StageOutputs:
    """The same from probabilities that all stages' own models gave all texts."""
    given = probs.astype(np.float32)
    return pass_through(early, lambda stage, rows: given[stage, rows], ruled or unruled(probs))


def unruled(probs: Stages) -> RuleMatches:
    """Of these texts rules say nothing."""
    return RuleMatches(np.zeros(probs.shape[1], bool), np.zeros(probs.shape[1:], bool))


def fit_cascade(
    labels: Labels, probs: Stages, thresholds: Float[np.ndarray, " classes"], goal: Goal
) -> list[EarlyExit]:
    """The stages before the last, with margins as narrow as the goal allows.

    probs: of all stages. thresholds: the last stage's.
    """
    last = probs[-1]
    truth, wanted = _truth(labels, last), decide(last, thresholds)
    worth = marginal_gain(labels, truth, wanted, goal.metric)
    centre = logit(np.clip(thresholds.astype(np.float64), EDGE, 1 - EDGE))
    unit = worth[0] - worth[1]
    curves, laws, lows, tables = [], [], [], []
    for one in probs[:-1]:
        curves.append(beta(last, one))
        p = calibrated(curves[-1], one)
        losses, squares = cost_of(truth, wanted, decide(p, thresholds), worth)
        distance, different = np.abs(logit(p.astype(np.float64)) - centre), int(np.sum(squares > 0))
        laws.append(laws_of(distance, losses, unit, different))
        expected = evaluate(laws[-1], distance)
        scatter = evaluate(laws_of(distance, squares, unit**2, different), distance)
        lows.append(
            [
                conformal_floor(p[given, c], goal.miss / (len(probs) - 1))
                for c, given in enumerate(wanted.T)
            ]
        )
        never = (p[:, goal.last] >= np.array(lows[-1])[goal.last]).any(axis=1)
        risk = np.where(never, np.inf, expected.max(axis=1))
        tables.append((risk, expected.sum(axis=1), scatter.sum(axis=1)))
    risks, losses, squares = np.array(tables).swapaxes(0, 1)
    level = fit_risk_level(risks, losses, squares, goal.loss, goal.sure)
    found = []
    for curve, law, low in zip(curves, laws, lows, strict=True):
        margins = np.array(
            [margin_of(height, fall, level) for height, fall in zip(*law, strict=True)]
        )
        doubt = np.stack([expit(centre - margins), expit(centre + margins)], axis=1)
        doubt[goal.last, 0] = np.minimum(doubt[goal.last, 0], np.array(low)[goal.last])
        doubt[goal.last, 1] = ALWAYS
        found.append(EarlyExit(curve, doubt))
    return found


def expected_loss(
    labels: Labels,
    last: Float[np.ndarray, "examples classes"],
    wanted: Decided,
    decided: Decided,
    metric: str,
) -> tuple[float, float]:
    """(loss, standard deviation): what deciding otherwise than the last stage is expected to cost,
    and how far the loss that is measured on as many texts scatters around it.

    Only losses count: where the last stage's own thresholds are not the best for the metric,
    disagreeing may gain, and what is gained pays for nothing.
    """
    truth = _truth(labels, last)
    losses, squares = cost_of(truth, wanted, decided, marginal_gain(labels, truth, wanted, metric))
    return float(losses.sum()), float(np.sqrt(squares.sum()))


class OutOfFold(NamedTuple):
    """Every text by thresholds and cut-offs that were fitted without its fold: what the stages give
    and decide, and what the last one alone decides."""

    mixed: StageOutputs
    decided: Decided
    last: Decided


def fit_out_of_fold(
    labels: Labels, probs: Stages, rule: Rule, goal: Goal, ruled: RuleMatches | None = None
) -> OutOfFold:
    """rule: of the last stage's thresholds. On nine tenths of the texts a loss scatters more, so
    these margins are a little wider than those of all."""
    ruled = ruled or unruled(probs)
    fold = folds_of(labels, FOLDS)
    stage, found = np.zeros(len(labels), np.int64), np.zeros(labels.shape, np.float32)
    decided, last = np.zeros((2, *labels.shape), bool)
    for one in range(FOLDS):
        inside = fold == one
        if inside.any():
            rest, here = probs[:, ~inside], probs[:, inside]
            thresholds = rule(labels[~inside], rest[-1].astype(np.float32))
            early = fit_cascade(labels[~inside], rest, thresholds, goal)
            made = run_stages(early, here, RuleMatches(ruled.demanded[inside], ruled.given[inside]))
            stage[inside], found[inside] = made.stage, made.probs
            decided[inside] = decide(made.probs, thresholds)
            last[inside] = decide(here[-1], thresholds)
    return OutOfFold(StageOutputs(stage, found), decided, last)


def _truth(labels: Labels, last: Float[np.ndarray, "examples classes"]) -> Cells:
    """How likely each label is, by the last stage and validation's labels."""
    return calibrated(platt(labels, last), last).astype(np.float64)
