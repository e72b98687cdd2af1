"""Bootstrap intervals over examples: how sure a figure is, given the test set's size."""

import numpy as np
from jaxtyping import Bool, Float

from jaxclf.decisions.metrics import ratio

RESAMPLES, SEED, LEVEL = 2000, 0, 0.95


def f1_intervals(
    labels: Float[np.ndarray, "examples classes"],
    decided: Bool[np.ndarray, "examples classes"],
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of macro and micro F1 over resampled examples (Efron 1979),
    thresholds held fixed.

    A resample without positives of a label leaves that label out of its macro mean.
    """
    true, false = labels == 1, labels == 0
    cells = np.concatenate([true & decided, false & decided, true & ~decided], axis=1)
    cells = cells.astype(np.float64)
    rng, count = np.random.default_rng(SEED), len(labels)
    totals = [
        np.bincount(rng.integers(0, count, count), minlength=count) @ cells
        for _ in range(RESAMPLES)
    ]
    tp, fp, fn = np.split(np.array(totals), 3, axis=1)
    there = tp + fn > 0
    each = np.where(there, ratio(2 * tp, 2 * tp + fp + fn), 0)
    macro = ratio(each.sum(axis=1), there.sum(axis=1))
    micro = ratio(2 * tp.sum(axis=1), (2 * tp + fp + fn).sum(axis=1))
    return {"macro_f1": _ends(macro), "micro_f1": _ends(micro)}


def _ends(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
