"""How well thresholds do where they were not fitted, from one split alone.

Thresholds that are searched on the split they are scored on flatter. Here each example is decided
by thresholds fitted on the other folds: an honest figure. What it is below the naive one is the
optimism.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxclf.decisions.folds import assign_folds
from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.thresholds import decide

FOLDS, RESAMPLES, LEVEL = 10, 200, 0.95

Labels = Float[np.ndarray, "examples classes"]
Probs = Float[np.ndarray, "examples classes"]
Rule = Callable[[Labels, Probs], Float[np.ndarray, " classes"]]


class Crossfit(NamedTuple):
    """naive, crossfit: the headline figures under thresholds fitted on all, and on other folds.
    intervals: [classes, 2] of each threshold over resampled examples."""

    naive: dict[str, float]
    crossfit: dict[str, float]
    intervals: Float[np.ndarray, "classes 2"]

    def optimism(self, metric: str) -> float:
        return self.naive[metric] - self.crossfit[metric]


def decide_crossfit(
    labels: Labels, probs: Probs, rule: Rule, folds: int = FOLDS, seed: int = 0
) -> Bool[np.ndarray, "examples classes"]:
    """Every example decided by thresholds fitted without its fold."""
    fold = assign_folds(labels, folds, seed)
    decided = np.zeros(probs.shape, bool)
    for one in range(folds):
        inside = fold == one
        if inside.any():
            thresholds = rule(labels[~inside], probs[~inside])
            decided[inside] = decide(probs[inside], thresholds)
    return decided


def crossfit(labels: Labels, probs: Probs, rule: Rule, seed: int = 0) -> Crossfit:
    """Naive and cross-fitted figures of a rule, and how sure its thresholds are."""
    naive = decide(probs, rule(labels, probs))
    honest = decide_crossfit(labels, probs, rule, seed=seed)
    rng = np.random.default_rng(seed)
    count = len(labels)
    resampled = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, count, count)
        resampled.append(rule(labels[rows], probs[rows]))
    ends = np.quantile(np.array(resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Crossfit(
        compute_metrics(labels, probs, naive),
        compute_metrics(labels, probs, honest),
        np.ascontiguousarray(ends.T),
    )
