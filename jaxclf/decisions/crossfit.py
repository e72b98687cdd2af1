"""Cross-fitting: score thresholds on examples that did not fit them, from one split alone.

Thresholds that are fitted on the split they are scored on are optimistically biased. Here each
example is decided by thresholds fitted on the other folds. The optimism is the naive score minus
the cross-fitted one.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jaxclf.decisions.arrays import Decided, Labels, Probs, Thresholds
from jaxclf.decisions.folds import held_out_masks
from jaxclf.decisions.intervals import LEVEL
from jaxclf.decisions.metrics import compute_metrics
from jaxclf.decisions.thresholds import decide

FOLDS, THRESHOLD_RESAMPLES = 10, 200

Rule = Callable[[Labels, Probs], Thresholds]


def decide_crossfit(labels: Labels, probs: Probs, rule: Rule, folds: int = FOLDS) -> Decided:
    """Decide every example by thresholds fitted without its fold."""
    decided = np.zeros(probs.shape, bool)
    for held_out in held_out_masks(labels, folds):
        thresholds = rule(labels[~held_out], probs[~held_out])
        decided[held_out] = decide(probs[held_out], thresholds)
    return decided


def crossfit(
    labels: Labels, probs: Probs, rule: Rule
) -> tuple[dict[str, float], Float[np.ndarray, "classes 2"]]:
    """The cross-fitted metrics of a rule, and 95 % intervals of its thresholds over resampled
    examples."""
    rng, count = np.random.default_rng(0), len(labels)
    resampled = []
    for _ in range(THRESHOLD_RESAMPLES):
        rows = rng.integers(0, count, count)
        resampled.append(rule(labels[rows], probs[rows]))
    ends = np.quantile(np.array(resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    scores = compute_metrics(labels, probs, decide_crossfit(labels, probs, rule))
    return scores, np.ascontiguousarray(ends.T)
