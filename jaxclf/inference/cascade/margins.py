"""Margins: how far from a label's threshold a probability must be for a text to exit early.

An early exit costs metric where the early stage decides otherwise than the final stage would. We
estimate that loss from predicted probabilities instead of counting errors on the few examples where
stages disagree. For each label an exponential describes how the loss falls with the distance from
the threshold in log odds. The margin is the distance at which the loss has fallen far enough.
"""

from statistics import NormalDist

import numpy as np
from jaxtyping import Float32, Float64
from scipy.optimize import brentq
from scipy.special import logsumexp

from jaxclf.decisions.arrays import Decided, Labels

PerLabel = Float64[np.ndarray, " classes"]
PerCell = Float64[np.ndarray, "examples classes"]
Gains = Float64[np.ndarray, "2 classes"]
PerStage = Float64[np.ndarray, "stages examples"]

NUM_LEVELS = 400  # risk levels that are tried
MAX_DECAY = 64.0  # of an exponential, per unit of log odds
PRIOR_STRENGTH = 20.0  # cells of all labels together that count in each label's exponential


def marginal_gain(labels: Labels, truth: PerCell, decisions: Decided, metric: str) -> Gains:
    """Change of the macro metric with one more true positive and one more false positive of each
    label.

    truth: the probability that each label is true. Labels without positives do not count.
    """
    positives, has_positives = truth.sum(axis=0), (labels == 1).any(axis=0)
    if metric == "macro_f1":
        size = np.maximum(decisions.sum(axis=0) + positives, 1e-9)
        f1 = 2 * (truth * decisions).sum(axis=0) / size
        gains = np.array([(2 - f1) / size, -f1 / size])
    else:
        gains = np.array([1 / np.maximum(positives, 1e-9), np.zeros_like(positives)])
    return gains * has_positives / max(has_positives.sum(), 1)


def expected_cost(
    truth: PerCell, final: Decided, decisions: Decided, gains: Gains
) -> tuple[PerCell, PerCell]:
    """The expected loss of each cell, and its expected square, if `decisions` replace those of the
    final stage."""
    if_true, if_false = gains
    change = final.astype(np.float64) - decisions
    losses = np.maximum(change * (truth * if_true + (1 - truth) * if_false), 0)
    return losses, np.abs(change) * (truth * if_true**2 + (1 - truth) * if_false**2)


def fit_labels(
    distance: PerCell, losses: PerCell, unit: PerLabel, num_different: int
) -> tuple[PerLabel, PerLabel]:
    """(heights, decays) of each label's exponential. The height is -inf without losses.

    unit: how far one decision moves each label's metric. Losses in this unit are comparable across
        labels, so the cells of all labels count in each label's fit like PRIOR_STRENGTH cells where
        stages decide differently. A rare label without any such cell thus still has a margin.
    num_different: cells where stages decide differently.
    """
    heights, decays = np.full(len(unit), -np.inf), np.zeros(len(unit))
    columns = np.flatnonzero(unit > 0)
    x, y = distance[:, columns], losses[:, columns] / unit[columns]
    for column, label in enumerate(columns):
        weights = np.full(x.shape, PRIOR_STRENGTH / max(num_different, 1))
        weights[:, column] += 1
        height, decays[label] = fit_exponential(x.ravel(), y.ravel(), weights.ravel())
        heights[label] = height + np.log(unit[label])
    return heights, decays


def fit_exponential(
    distance: Float64[np.ndarray, " cells"],
    losses: Float64[np.ndarray, " cells"],
    weights: Float64[np.ndarray, " cells"],
) -> tuple[float, float]:
    """(height, decay) of exp(height - decay * distance) by Poisson maximum likelihood: it has the
    sum of the losses, and their mean distance."""
    total = weights @ losses
    if total == 0:
        return -np.inf, 0.0
    target, nearest = float(weights @ (losses * distance) / total), distance.min()

    def excess(decay: float) -> float:
        mass = weights * np.exp(-decay * (distance - nearest))
        return float(mass @ distance / mass.sum()) - target

    if excess(0.0) <= 0:
        decay = 0.0
    elif excess(MAX_DECAY) >= 0:
        decay = MAX_DECAY
    else:
        decay = float(brentq(excess, 0.0, MAX_DECAY))  # type: ignore[arg-type]  # no full_output
    return float(np.log(total) - logsumexp(-decay * distance, b=weights)), decay


def fit_risk_level(
    risks: PerStage, losses: PerStage, squares: PerStage, max_loss: float, confidence: float
) -> float:
    """The highest risk at which a text may exit, so that the loss of all exits, measured on as
    many texts, is at most `max_loss` with this confidence.

    risks: inf for a text that never exits. losses, squares: expected values for a text that exits
        at that stage.
    """
    quantile = NormalDist().inv_cdf(confidence)
    rows = np.arange(risks.shape[1])
    best = 0.0
    finite = np.unique(risks[np.isfinite(risks)])
    # Midpoints between risks, so that rounding changes no text's exit.
    levels = np.append((finite[:-1] + finite[1:]) / 2, finite[-1:] * 1.001)
    for level in levels[:: max(len(finite) // NUM_LEVELS, 1)].tolist() + levels[-1:].tolist():
        exits = risks < level
        first_stage, is_early = exits.argmax(axis=0), exits.any(axis=0)
        total, variance = (part[first_stage, rows][is_early].sum() for part in (losses, squares))
        if total + quantile * np.sqrt(variance) > max_loss:
            break
        best = level
    return best


def margin_at(height: float, decay: float, level: float) -> float:
    """The distance, in log odds, from which on the exponential is at most `level`."""
    if np.exp(height) <= level:
        return 0.0
    return float(height - np.log(level)) / decay if level > 0 and decay > 0 else np.inf


def conformal_floor(probs: Float32[np.ndarray, " texts"], max_miss_rate: float) -> float:
    """A probability below which at most this share of such texts fall, exactly, on average over
    samples of this size (split conformal, Vovk et al. 2005). 0 if there are too few texts."""
    rank = int(np.floor(max_miss_rate * (len(probs) + 1) + 1e-9))
    # Slightly below that text's own probability, so that rounding does not exclude it.
    return float(np.sort(probs)[rank - 1]) * (1 - 1e-5) if rank else 0.0
