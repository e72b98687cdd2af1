"""Which texts to label next: uncertain ones, of rare labels first, that differ from each other."""

import numpy as np
from jaxtyping import Float, Int

from jaxclf.decisions.arrays import Probs, Thresholds

EDGE = 1e-6  # a threshold may be 0, or 1 or more
SHORTLIST = 3  # texts of the highest score among which each chosen one is found

Scores = Float[np.ndarray, " texts"]


def uncertainty(probs: Probs, thresholds: Thresholds) -> Float[np.ndarray, "texts classes"]:
    """1 at the threshold, falling linearly to 0 at probabilities of 0 and 1."""
    t = np.clip(thresholds, EDGE, 1 - EDGE)
    return np.where(probs < t, probs / t, (1 - probs) / (1 - t))


def confidence(probs: Probs, thresholds: Thresholds) -> Scores:
    """The certainty, 0 to 1, of the label that is least certain."""
    return 1 - uncertainty(probs, thresholds).max(axis=1)


def informativeness(
    probs: Probs, thresholds: Thresholds, positives: Float[np.ndarray, " classes"]
) -> Scores:
    """The sum of the uncertainties, where a label weighs the more the rarer it is.

    positives: of each label, among the labeled texts. The weight is 1 / (positives + 1).
    """
    return uncertainty(probs, thresholds) @ (1 / (positives + 1))


def choose_batch(
    scores: Scores, vectors: Float[np.ndarray, "texts features"], count: int
) -> Int[np.ndarray, " chosen"]:
    """Choose texts one by one: that of the highest score times the root of the distance to the
    nearest one chosen before.

    The distance is one minus the cosine between centered vectors, at most 1. So a text is not
    chosen twice, and like texts only with high scores.
    """
    directions = vectors - vectors.mean(axis=0)
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), EDGE)
    distance, chosen = np.ones(len(scores)), []
    is_free = np.ones(len(scores), bool)
    for _ in range(min(count, len(scores))):
        index = int(np.where(is_free, scores * np.sqrt(distance), -1).argmax())
        chosen.append(index)
        is_free[index] = False
        distance = np.clip(1 - directions @ directions[index], 0, distance)
    return np.array(chosen, int)
