"""How certain predictions are, by probabilities against thresholds."""

import numpy as np
from jaxtyping import Float

from jaxclf.decisions.arrays import Probs, Thresholds

EDGE = 1e-6  # a threshold may be 0, or 1 or more


def uncertainty(probs: Probs, thresholds: Thresholds) -> Float[np.ndarray, "texts classes"]:
    """1 at the threshold, falling linearly to 0 at probabilities of 0 and 1."""
    t = np.clip(thresholds, EDGE, 1 - EDGE)
    return np.where(probs < t, probs / t, (1 - probs) / (1 - t))


def confidence(probs: Probs, thresholds: Thresholds) -> Float[np.ndarray, " texts"]:
    """The certainty, 0 to 1, of the label that is least certain."""
    return 1 - uncertainty(probs, thresholds).max(axis=1)
