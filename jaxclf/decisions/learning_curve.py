"""The learning curves of runs on nested parts of the training rows, scored on the same examples."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxclf.decisions.arrays import Decided, Labels, Probs, ratio
from jaxclf.decisions.extrapolation import extrapolate
from jaxclf.decisions.intervals import RESAMPLES, SEED, resample_weights
from jaxclf.decisions.weighted_counts import (
    ExampleCounts,
    Weights,
    apply_weights,
    count_examples,
    mean_over_labels,
)

MIN_SUPPORT = 20  # positives; with fewer, the curve of a label is chance


class Scores(NamedTuple):
    """Scores of runs under weightings of the examples; NaN where undefined."""

    macro_f1: Float64[np.ndarray, "runs resamples"]
    log_loss: Float64[np.ndarray, "runs resamples"]
    f1: Float64[np.ndarray, "runs classes resamples"]


def make_record(
    labels: Labels,
    runs: Sequence[tuple[Probs, Decided]],
    rows: Sequence[int],
    names: Sequence[str],
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The learning curves of macro F1, log loss and the F1 of each label, as plain JSON values.

    runs: probabilities and decisions of each run on the same examples. rows: their numbers of
    training rows, ascending. A label with fewer than 20 positives has no curve of its own.
    """
    examples = [count_examples(labels, *run) for run in runs]
    every = _score_runs(examples, np.ones((len(labels), 1), np.float32))
    drawn = [
        _score_runs(examples, weights) for weights in resample_weights(len(labels), resamples, SEED)
    ]
    replicates = Scores(*(np.concatenate(parts, axis=-1) for parts in zip(*drawn, strict=True)))
    support = np.nansum(labels, axis=0)

    def curve(scores: np.ndarray, draws: np.ndarray, highest: float) -> dict[str, Any]:
        fitted = extrapolate(rows, scores, draws, highest)
        return fitted._asdict() | {"forecasts": [part._asdict() for part in fitted.forecasts]}

    return {
        "rows": list(rows),
        "examples": len(labels),
        "scored_labels": int((support > 0).sum()),
        "macro_f1": curve(every.macro_f1[:, 0], replicates.macro_f1, 1.0),
        "log_loss": curve(every.log_loss[:, 0], replicates.log_loss, np.inf),
        "labels": {
            name: {"support": int(support[label])}
            | curve(every.f1[:, label, 0], replicates.f1[:, label], 1.0)
            for label, name in enumerate(names)
            if support[label] >= MIN_SUPPORT
        },
    }


def _score_runs(runs: Sequence[ExampleCounts], weights: Weights) -> Scores:
    counts = [apply_weights(run, weights) for run in runs]
    return Scores(
        np.stack([mean_over_labels(count.f1) for count in counts]),
        np.stack([ratio(count.log_loss, count.known_cells) for count in counts]),
        np.stack([count.f1 for count in counts]),
    )
