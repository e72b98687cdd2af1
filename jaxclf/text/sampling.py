"""Samplers: the order and weights of an epoch's examples: (labels, rng) -> EpochOrder.

The option `importance_weighting` is an exponent in [0, 1]: an example's loss is multiplied by the
inverse of its expected number of draws to that power. At 1 the expected loss of an epoch equals
that of one pass over all examples; at 0 every weight is 1.
"""

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from jaxclf.types import FRACTION, Bound


class EpochOrder(NamedTuple):
    """The examples of an epoch in order, and the positive factor of each example's loss."""

    order: Int[np.ndarray, " draws"]
    weights: Float32[np.ndarray, " examples"]


def shuffle(
    labels: Float32[np.ndarray, "examples classes"], rng: np.random.Generator
) -> EpochOrder:
    """Every example once."""
    return EpochOrder(rng.permutation(len(labels)), np.ones(len(labels), np.float32))


def balanced(
    labels: Float32[np.ndarray, "examples classes"],
    rng: np.random.Generator,
    *,
    power: Annotated[float, Bound(0, 4)] = 0.5,
    importance_weighting: Annotated[float, FRACTION] = 0.0,
) -> EpochOrder:
    """Draw as many examples as the data has, with replacement, those with rare labels more often.

    An example's weight is that of its rarest label: (examples / positives) ** power. Power 0 draws
    uniformly, 1 balances the labels (Mahajan et al. 2018, arXiv 1805.00932, use 0.5).
    """
    weights = example_weights(labels, power)
    probabilities = weights / weights.sum()
    count = len(labels)
    order = rng.choice(count, size=count, p=probabilities)
    expected_draws = count * probabilities.astype(np.float64)
    return EpochOrder(order, (expected_draws**-importance_weighting).astype(np.float32))


def example_weights(
    labels: Float32[np.ndarray, "examples classes"], power: float
) -> Float32[np.ndarray, " examples"]:
    """How often `balanced` draws each example, relative to an example without labels."""
    rarity = (len(labels) / np.maximum(labels.sum(axis=0), 1)) ** power
    return np.max(labels * rarity, axis=1, initial=1.0)


SAMPLERS = {"shuffle": shuffle, "balanced": balanced}
