"""Which training examples an epoch visits, in which order and with what weight: (labels, rng) ->
EpochOrder.

An option `importance_weighting` is an exponent in [0, 1]: an example's loss is multiplied by the
inverse of its expected visits to that power. At 1 an epoch's losses are expected to sum to
those of one pass over all examples, at 0 every example weighs 1.
"""

from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from jaxclf.types import FRACTION, Bound


class EpochOrder(NamedTuple):
    """An epoch's visits in their order, and the factor, above 0, of each example's loss."""

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
    """As many draws as examples, with replacement, rare labels more often.

    An example is drawn as its rarest label is: (examples / positives) ** power. power 0 draws
    evenly, 1 evens the labels out (Mahajan et al. 2018, arXiv 1805.00932, use 0.5).
    """
    mass = example_weights(labels, power)
    shares = mass / mass.sum()
    order = rng.choice(len(shares), size=len(shares), p=shares)
    expected_visits = len(shares) * shares.astype(np.float64)
    return EpochOrder(order, (expected_visits**-importance_weighting).astype(np.float32))


def example_weights(
    labels: Float32[np.ndarray, "examples classes"], power: float
) -> Float32[np.ndarray, " examples"]:
    """How often `balanced` draws each example, relative to one without labels: as its rarest
    label."""
    rarity = (len(labels) / np.maximum(labels.sum(axis=0), 1)) ** power
    return np.max(labels * rarity, axis=1, initial=1.0)


SAMPLERS = {
    "shuffle": shuffle,
    "balanced": balanced,
}
