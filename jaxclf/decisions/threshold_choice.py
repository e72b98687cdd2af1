"""The choice of `threshold=auto` between two threshold rules.

Both work on probabilities that Platt's curve calibrates: `plug_in` is half the best expected F1,
`searched` the highest F1 on the examples, moved toward `plug_in` where a label is rare. Both bound
how many examples get a label.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit
from scipy.stats import norm

from jaxclf.decisions.arrays import Decided, Labels, Probs, Thresholds, mean_where_known, ratio
from jaxclf.decisions.calibration import apply_calibration, platt
from jaxclf.decisions.folds import held_out_masks
from jaxclf.decisions.threshold_search import FALLBACK, best_f1_threshold, find_candidates

CHOICE_FOLDS = 5
SEARCH_PRIOR = 50.0  # weight of plug_in's threshold in `searched`, in pseudo-positives
# The expected F1 of a label that is not separated is highest if all examples get it.
BOUND_FACTOR, BOUND_ERRORS, MIN_BOUND = 4, 2, 3
BOUND_MARGIN = 0.2  # in logits


class ThresholdChoice(NamedTuple):
    """What `auto` chose and why.

    macro_f1: of the cross-fitted decisions of each rule. difference: that of the rule that was
        not chosen minus that of the chosen one. error: the standard error of the difference.
    """

    rule: str
    macro_f1: Mapping[str, float]
    difference: float
    error: float


def plug_in(labels: Labels, calibrated: Probs) -> Thresholds:
    """Half the best expected F1 (Lipton et al. 2014, arXiv 1402.1892)."""
    best = best_expected_f1(calibrated) / 2
    return np.where(np.nansum(labels, axis=0) > 0, best, FALLBACK)


def searched(labels: Labels, calibrated: Probs) -> Thresholds:
    """The highest F1; a label with n positives has the weight n / (n + 50), `plug_in` the rest."""
    candidates = find_candidates(labels, calibrated.astype(np.float32))
    best = np.array([best_f1_threshold(label) for label in candidates])
    positives = np.nansum(labels, axis=0)
    weight = positives / (positives + SEARCH_PRIOR)
    return weight * best + (1 - weight) * plug_in(labels, calibrated)


RULES: dict[str, Callable[[Labels, Probs], Thresholds]] = {"plug_in": plug_in, "searched": searched}


def best_expected_f1(calibrated: Probs) -> Thresholds:
    """The highest F1 that the labels are expected to have under calibrated probabilities."""
    expected_tp = np.cumsum(-np.sort(-calibrated, axis=0), axis=0)
    predicted = np.arange(1, len(calibrated) + 1)[:, None]
    expected_f1 = 2 * expected_tp / (predicted + expected_tp[-1:])
    return expected_f1.max(axis=0, initial=0.0)


def fit_rules(
    labels: Labels, probs: Probs, rules: tuple[str, ...] = tuple(RULES)
) -> dict[str, Thresholds]:
    """The thresholds of each rule, on the probabilities as they are."""
    calibration = platt(labels, probs)
    calibrated = apply_calibration(calibration, probs).astype(np.float64)
    lowest = lowest_thresholds(labels, calibrated)
    slope, intercept = (
        np.array([curve[key] for curve in calibration.curves]) for key in ("slope", "intercept")
    )

    def to_probability(thresholds: Thresholds) -> Thresholds:
        return expit((logit(thresholds) - intercept) / slope)

    return {
        name: to_probability(np.maximum(RULES[name](labels, calibrated), lowest)) for name in rules
    }


def lowest_thresholds(labels: Labels, calibrated: Probs) -> Thresholds:
    """The lowest threshold of each label that predicts it for no more examples than a bound.

    With n positives the bound is 4 (n - 2 sqrt(n)), four times a lower confidence limit of their
    expected number, and at least 3. It must hold on other examples too. So the threshold is 0.2
    logits above the first probability beyond the bound, and above the quantile of a normal
    distribution of the logits, which varies less where the bound is small.
    """
    if not len(labels):
        return np.zeros(labels.shape[1])
    logits, known = logit(calibrated), ~np.isnan(labels)
    positives, examples = np.nansum(labels, axis=0), known.sum(axis=0)
    fewest = positives - BOUND_ERRORS * np.sqrt(positives)
    bound = np.maximum(BOUND_FACTOR * fewest, MIN_BOUND).astype(int)
    is_bounded = bound < examples
    descending = -np.sort(np.where(known, -logits, np.inf), axis=0)
    beyond = descending[np.where(is_bounded, bound, 0), np.arange(len(bound))]
    share = np.where(is_bounded, bound, 1) / np.maximum(examples, 2)
    quantile = logits.mean(axis=0) + logits.std(axis=0) * norm.isf(share)
    return np.where(is_bounded, expit(np.maximum(beyond, quantile) + BOUND_MARGIN), 0.0)


def fit_rule(labels: Labels, probs: Probs, rule: str) -> Thresholds:
    """The thresholds of one rule."""
    return fit_rules(labels, probs, (rule,))[rule]


def choose_rule(labels: Labels, probs: Probs) -> ThresholdChoice:
    """Compare the rules by macro F1 of decisions whose thresholds other folds fitted.

    `searched` replaces the simpler `plug_in` only if it is better by more than one standard error
    of the paired difference.
    """
    decided = {name: np.zeros(probs.shape, bool) for name in RULES}
    for held_out in held_out_masks(labels, CHOICE_FOLDS):
        fitted = fit_rules(labels[~held_out], probs[~held_out])
        for name, thresholds in fitted.items():
            decided[name][held_out] = probs[held_out] >= thresholds
    plug_in_f1, plug_in_influence = macro_f1_influence(labels, decided["plug_in"])
    searched_f1, searched_influence = macro_f1_influence(labels, decided["searched"])
    error = float(np.sqrt(np.sum((searched_influence - plug_in_influence) ** 2)))
    gain = searched_f1 - plug_in_f1
    return ThresholdChoice(
        "searched" if gain > error else "plug_in",
        {"plug_in": plug_in_f1, "searched": searched_f1},
        -gain if gain > error else gain,
        error,
    )


def macro_f1_influence(
    labels: Labels, decided: Decided
) -> tuple[float, Float[np.ndarray, " examples"]]:
    """Macro F1 of decisions, and its derivative by the weight of each example.

    The sum of squared derivatives is the variance of the infinitesimal jackknife (Efron 1982, "The
    Jackknife, the Bootstrap and Other Resampling Plans").
    """
    positive, predicted = labels == 1, decided & ~np.isnan(labels)
    hits, sizes = 2 * (positive & predicted), positive * 1 + predicted
    size = np.where(positive.any(axis=0), sizes.sum(axis=0), 0)
    f1 = ratio(hits.sum(axis=0), size)
    counted = ~np.isnan(f1)
    derivative = (hits - np.nan_to_num(f1) * sizes)[:, counted] / size[counted]
    return mean_where_known(f1), derivative.sum(axis=1) / max(counted.sum(), 1)
