"""The order in which an epoch visits the training examples: (labels, rng) -> order."""

import numpy as np
from jaxtyping import Float32, Int


def shuffle(
    labels: Float32[np.ndarray, "examples classes"], rng: np.random.Generator
) -> Int[np.ndarray, " examples"]:
    """Every example once."""
    return rng.permutation(len(labels))


def balanced(
    labels: Float32[np.ndarray, "examples classes"],
    rng: np.random.Generator,
    *,
    power: float = 0.5,
) -> Int[np.ndarray, " examples"]:
    """As many draws as examples, with replacement, rare labels more often.

    An example weighs as its rarest label does: (examples / positives) ** power. power 0 draws
    evenly, 1 evens the labels out (Mahajan et al. 2018, arXiv 1805.00932, use 0.5).
    """
    weights = example_weights(labels, power)
    return rng.choice(len(labels), size=len(labels), p=weights / weights.sum())


def example_weights(
    labels: Float32[np.ndarray, "examples classes"], power: float
) -> Float32[np.ndarray, " examples"]:
    """The weight of each example's rarest label; 1 for an example without labels."""
    rarity = (len(labels) / np.maximum(labels.sum(axis=0), 1)) ** power
    return np.max(labels * rarity, axis=1, initial=1.0)


SAMPLERS = {"shuffle": shuffle, "balanced": balanced}
