"""F1 from plain counts, independent of scikit-learn, and a list of all metrics."""

import numpy as np

from jaxclf.decisions.metrics import compute_metrics


def count(labels, decided):
    """[4, classes]: true positives, false positives, false negatives, true negatives."""
    positive, negative = labels == 1, labels == 0
    cells = (positive & decided, negative & decided, positive & ~decided, negative & ~decided)
    return np.array([cell.sum(axis=0) for cell in cells], np.float64)


def f1_per_label(labels, decided):
    """NaN for a label without positives."""
    tp, fp, fn, _ = count(labels, decided)
    return np.where(tp + fn > 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1), np.nan)


def macro_f1(labels, decided) -> float:
    f1 = f1_per_label(labels, decided)
    return float(f1[~np.isnan(f1)].mean()) if (~np.isnan(f1)).any() else float("nan")


def all_metrics(labels, probs, decided) -> np.ndarray:
    """METRICS, then the F1 of every label."""
    metrics = compute_metrics(labels, probs, decided).values()
    return np.array([*metrics, *f1_per_label(labels, decided)], np.float64)
