"""Margins of a label: how far from its threshold a probability must be for a text to leave early.

A text that leaves costs what is lost where the early stage decides otherwise than the last one
would. That loss is promised by probabilities of the truth, not counted on the few labels where
stages disagree: its error is an eighth of the counted one's. One law per label says how the promise
falls off with the distance from the threshold, in log odds, and the margin is where it has fallen
far enough.

On GoEmotions (three MiniLM, one before all three, a quarter of the texts going on) such margins
lose 0.0009 macro F1 where one margin for all labels loses 0.0019. Isotonic curves in place of the
law hold less than they promise; sums over a text's labels in place of the largest change nothing.
"""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float32, Float64
from scipy.optimize import brentq
from scipy.special import logsumexp

from jaxclf.decisions.metrics import Decided, Labels

PerLabel = Float64[np.ndarray, " classes"]
Cells = Float64[np.ndarray, "examples classes"]
Worth = Float64[np.ndarray, "2 classes"]
PerStage = Float64[np.ndarray, "stages examples"]

LEVELS = 400  # of risk, that are tried
STEEPEST = 64.0  # fall of a law per unit of log odds
PRIOR = 20.0  # what all labels together count for in each label's law


def _f1(truth: Cells, wanted: Decided) -> tuple[PerLabel, PerLabel]:
    size = np.maximum(wanted.sum(axis=0) + truth.sum(axis=0), 1e-9)
    f1 = 2 * (truth * wanted).sum(axis=0) / size
    return (2 - f1) / size, -f1 / size


def _recall(truth: Cells, wanted: Decided) -> tuple[PerLabel, PerLabel]:
    positives = np.maximum(truth.sum(axis=0), 1e-9)
    return 1 / positives, np.zeros_like(positives)


# What giving one more text a label does to that label's figure where it is right, where it is
# wrong.
WORTH = {"macro_f1": _f1, "macro_recall": _recall}


def marginal_gain(labels: Labels, truth: Cells, wanted: Decided, metric: str) -> Worth:
    """The same for the mean over labels; labels without positives are left out of it."""
    there = (labels == 1).any(axis=0)
    return np.array(WORTH[metric](truth, wanted)) * there / max(there.sum(), 1)


def cost_of(truth: Cells, wanted: Decided, decided: Decided, worth: Worth) -> tuple[Cells, Cells]:
    """Of each cell where two decide differently, the expected loss and its expected square."""
    right, wrong = worth
    change = wanted.astype(np.float64) - decided
    losses = np.maximum(change * (truth * right + (1 - truth) * wrong), 0)
    return losses, np.abs(change) * (truth * right**2 + (1 - truth) * wrong**2)


def laws_of(
    distance: Cells, losses: Cells, unit: PerLabel, different: int
) -> tuple[PerLabel, PerLabel]:
    """(heights, falls) of the labels' laws; a height of minus infinity where nothing is lost.

    unit: how far one decision moves each label's figure. Measured in it, labels are alike: the
        cells of all of them weigh in each one's law as PRIOR cells where stages decide differently,
        of which there are `different`. Without that a rare label which happened to have none would
        have no margin.
    """
    heights, falls = np.full(len(unit), -np.inf), np.zeros(len(unit))
    there = np.flatnonzero(unit > 0)
    x, y = distance[:, there], losses[:, there] / unit[there]
    for column, label in enumerate(there):
        weights = np.full(x.shape, PRIOR / max(different, 1))
        weights[:, column] += 1
        height, falls[label] = fit_exponential(x.ravel(), y.ravel(), weights.ravel())
        heights[label] = height + np.log(unit[label])
    return heights, falls


def evaluate(laws: tuple[PerLabel, PerLabel], distance: Cells) -> Cells:
    """What the labels' laws say at these distances."""
    heights, falls = laws
    return np.exp(heights - falls * distance)


def fit_exponential(
    distance: Float64[np.ndarray, " cells"],
    losses: Float64[np.ndarray, " cells"],
    weights: Float64[np.ndarray, " cells"],
) -> tuple[float, float]:
    """(height, fall) of the law exp(height - fall * distance) of greatest Poisson likelihood: its
    sum is that of the losses, and so is its mean distance."""
    total = weights @ losses
    if total == 0:
        return -np.inf, 0.0
    aim, nearest = float(weights @ (losses * distance) / total), distance.min()

    def excess(fall: float) -> float:
        mass = weights * np.exp(-fall * (distance - nearest))
        return float(mass @ distance / mass.sum()) - aim

    if excess(0.0) <= 0:
        fall = 0.0
    elif excess(STEEPEST) >= 0:
        fall = STEEPEST
    else:
        fall = float(brentq(excess, 0.0, STEEPEST))  # type: ignore[arg-type]  # no full_output
    return float(np.log(total) - logsumexp(-fall * distance, b=weights)), fall


def fit_risk_level(
    risks: PerStage,
    losses: PerStage,
    squares: PerStage,
    loss: float,
    sure: float,
) -> float:
    """The highest risk at which a text may leave its stage, so that what all of them lose stays
    below `loss` with the chance `sure`, where it is measured on as many texts.

    risks: infinite, of a text that never leaves. losses, squares: expected, of a text that leaves
        there.
    """
    width = NormalDist().inv_cdf(sure)
    each = np.arange(risks.shape[1])
    found = 0.0
    there = np.unique(risks[np.isfinite(risks)])
    # Half way to the next text's risk, so that no rounding sends a text the other way.
    levels = np.append((there[:-1] + there[1:]) / 2, there[-1:] * 1.001)
    for level in levels[:: max(len(there) // LEVELS, 1)].tolist() + levels[-1:].tolist():
        leaves = risks < level
        first, left = leaves.argmax(axis=0), leaves.any(axis=0)
        total, spread = (part[first, each][left].sum() for part in (losses, squares))
        if total + width * np.sqrt(spread) > loss:
            break
        found = level
    return found


def margin_of(height: float, fall: float, level: float) -> float:
    """From where on, in log odds, the law stays at that level or below."""
    if np.exp(height) <= level:
        return 0.0
    return float(height - np.log(level)) / fall if level > 0 and fall > 0 else np.inf


def conformal_floor(found: Float32[np.ndarray, " texts"], miss: float) -> float:
    """A probability that no more than the share `miss` of such texts stays below: exactly, on
    average over samples of this size (split conformal, Vovk et al. 2005). 0 where there are too few
    to promise it."""
    rank = int(np.floor(miss * (len(found) + 1) + 1e-9))
    # A hair below that text's own, which rounding must not send the other way.
    return float(np.sort(found)[rank - 1]) * (1 - 1e-5) if rank else 0.0
