"""Several annotators of one text: their labels merged, and their agreement."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int


def merge_rows(
    values: Float32[np.ndarray, "rows classes"], texts: Int[np.ndarray, " rows"]
) -> Float32[np.ndarray, "texts classes"]:
    """For each text and label, the share of annotators who gave the label, of those whose answer is
    known; NaN where none is.

    values: 0, 1, a share, or NaN. texts: the index of each row's text.
    """
    known, positive = count_answers(values, texts)
    with np.errstate(invalid="ignore"):
        return (positive / known).astype(np.float32)


def count_answers(
    values: Float32[np.ndarray, "rows classes"], texts: Int[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, "texts classes"], Float[np.ndarray, "texts classes"]]:
    """For each text and label, the number of known answers and the sum of their values."""
    known = np.zeros((int(texts.max(initial=-1)) + 1, values.shape[1]))
    positive = known.copy()
    np.add.at(known, texts, ~np.isnan(values))
    np.add.at(positive, texts, np.nan_to_num(values))
    return known, positive


def agreement(
    values: Float32[np.ndarray, "rows classes"], texts: Int[np.ndarray, " rows"]
) -> tuple[float, ...]:
    """Krippendorff's alpha of each label for nominal data, over texts with two answers or more; NaN
    where all answers are equal. A share counts as 1 from 0.5 on.

    Krippendorff 2011, Computing Krippendorff's Alpha-Reliability.
    """
    answers = np.where(np.isnan(values), np.nan, values >= 0.5).astype(np.float32)
    known, positive = count_answers(answers, texts)
    alphas = []
    for n, ones in zip(known.T, positive.T, strict=True):
        n, ones = n[n > 1], ones[n > 1]
        total, total_ones = n.sum(), ones.sum()
        observed = (2 * ones * (n - ones) / (n - 1)).sum()
        expected = 2 * total_ones * (total - total_ones) / max(total - 1, 1)
        alphas.append(1 - observed / expected if expected else np.nan)
    return tuple(map(float, alphas))


def first_rows(ids: Sequence[str]) -> tuple[Int[np.ndarray, " texts"], Int[np.ndarray, " rows"]]:
    """The first row of each id, and for each row the index of its id."""
    index = {}
    texts = np.array([index.setdefault(row_id, len(index)) for row_id in ids], np.int64)
    return np.unique(texts, return_index=True)[1], texts
