"""Cross-fitting: score thresholds on examples that did not fit them, from one split alone.

Thresholds that are fitted on the split they are scored on are optimistically biased. Here each
example is decided by thresholds fitted on the other folds. The optimism is the naive score minus
the cross-fitted one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxclf.decisions.arrays import Decided, Labels, Probs, Thresholds
from jaxclf.decisions.folds import assign_folds
from jaxclf.decisions.intervals import LEVEL
from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.thresholds import decide

FOLDS, THRESHOLD_RESAMPLES = 10, 200

Rule = Callable[[Labels, Probs], Thresholds]


class Crossfit(NamedTuple):
    """The metrics with thresholds fitted on all examples, and on other folds.

    intervals: [classes, 2], 95 % intervals of the thresholds over resampled examples.
    """

    naive: dict[str, float]
    crossfit: dict[str, float]
    intervals: Float[np.ndarray, "classes 2"]

    def optimism(self, metric: str) -> float:
        return self.naive[metric] - self.crossfit[metric]


def decide_crossfit(
    labels: Labels, probs: Probs, rule: Rule, folds: int = FOLDS, seed: int = 0
) -> Decided:
    """Decide every example by thresholds fitted without its fold."""
    fold_of = assign_folds(labels, folds, seed)
    decided = np.zeros(probs.shape, bool)
    for fold in range(folds):
        held_out = fold_of == fold
        if held_out.any():
            thresholds = rule(labels[~held_out], probs[~held_out])
            decided[held_out] = decide(probs[held_out], thresholds)
    return decided


def crossfit(labels: Labels, probs: Probs, rule: Rule, seed: int = 0) -> Crossfit:
    """Naive and cross-fitted metrics of a rule, and intervals of its thresholds."""
    naive = decide(probs, rule(labels, probs))
    cross_fitted = decide_crossfit(labels, probs, rule, seed=seed)
    rng = np.random.default_rng(seed)
    count = len(labels)
    resampled = []
    for _ in range(THRESHOLD_RESAMPLES):
        rows = rng.integers(0, count, count)
        resampled.append(rule(labels[rows], probs[rows]))
    ends = np.quantile(np.array(resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Crossfit(
        compute_metrics(labels, probs, naive),
        compute_metrics(labels, probs, cross_fitted),
        np.ascontiguousarray(ends.T),
    )
