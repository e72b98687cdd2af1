"""Which training examples an epoch visits, in which order and with what weight: (labels, rng) ->
Drawn.

An option `importance_weighting` is an exponent in [0, 1]: an example's loss is multiplied by the
inverse of its expected visits to that power. At 1 an epoch's losses are expected to sum to those of one pass
over all examples, at 0 every example weighs 1.
"""

import math
from typing import Annotated, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

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
    return _with_replacement(example_weights(labels, power), rng, importance_weighting)


def effective(
    labels: Float32[np.ndarray, "examples classes"],
    rng: np.random.Generator,
    *,
    beta: float = 0.999,
    importance_weighting: Annotated[float, FRACTION] = 0.0,
) -> EpochOrder:
    """As many draws as examples, with replacement, by the effective number of a label's examples
    (Cui et al. 2019, arXiv 1901.05555).

    An example is drawn as its rarest label is: (1 - beta) / (1 - beta ** positives). Examples
    without labels are a label of their own. beta near 0 draws evenly, near 1 evens the labels out.
    """
    positives = _rarest_positives(labels)
    bare = np.isinf(positives)
    positives = np.where(bare, bare.sum(), positives)
    # 1 - beta stands above every fraction and goes with the division by their sum.
    return _with_replacement(-1 / np.expm1(positives * math.log(beta)), rng, importance_weighting)


def repeat_factor(
    labels: Float32[np.ndarray, "examples classes"],
    rng: np.random.Generator,
    *,
    threshold: float = 0.05,
    importance_weighting: Annotated[float, FRACTION] = 0.0,
) -> EpochOrder:
    """Every example once, and again if it has a label that fewer than a share `threshold` of the
    examples have (Gupta et al. 2019, arXiv 1908.03195): an epoch is longer then.

    It is visited sqrt(threshold / share of its rarest label) times: the whole part always, the
    rest by chance.
    """
    visits = np.maximum(1, np.sqrt(threshold * len(labels) / _rarest_positives(labels)))
    whole = np.floor(visits)
    times = whole + (rng.random(len(labels)) < visits - whole)
    repeated = np.repeat(np.arange(len(labels)), times.astype(int))
    return EpochOrder(rng.permutation(repeated), _corrected(visits, importance_weighting))


def rare_first(
    labels: Float32[np.ndarray, "examples classes"], rng: np.random.Generator
) -> EpochOrder:
    """As many draws as examples, dealt out so that labels come up equally often as far as they do
    not come together: the class-aware sampling of Shen et al. 2016 (arXiv 1512.05830), for several
    labels.

    The label that has come up least, of those the rarest, gives the next example of its own
    shuffled queue, which is shuffled anew when used up. Every label of the example has come up
    then. "No label" is dealt like a label if such examples exist.
    """
    dealt = _with_none(labels)
    positives = dealt.sum(axis=0)
    # Rarest first, since argmin takes the first of equals; a label nobody has gives nothing.
    dealt = dealt[:, np.argsort(positives, kind="stable")[(positives == 0).sum() :]]
    members = [np.flatnonzero(column) for column in dealt.T]
    queues: list[list[int]] = [[] for _ in members]
    seen = np.zeros(len(members), np.int64)
    order = np.zeros(len(labels), np.int64)
    for draw in range(len(labels)):
        label = int(seen.argmin())
        if not queues[label]:
            queues[label] = rng.permutation(members[label]).tolist()
        order[draw] = queues[label].pop()
        seen += dealt[order[draw]]
    return EpochOrder(order, np.ones(len(labels), np.float32))


def example_weights(
    labels: Float32[np.ndarray, "examples classes"], power: float
) -> Float32[np.ndarray, " examples"]:
    """How often `balanced` draws each example, relative to one without labels: as its rarest
    label."""
    rarity = (len(labels) / np.maximum(labels.sum(axis=0), 1)) ** power
    return np.max(labels * rarity, axis=1, initial=1.0)


def _rarest_positives(
    labels: Float32[np.ndarray, "examples classes"],
) -> Float[np.ndarray, " examples"]:
    """Positives of each example's rarest label; infinity for an example without labels."""
    positives = labels.sum(axis=0, dtype=np.float64)
    return np.where(labels > 0, positives, np.inf).min(axis=1, initial=np.inf)


def _with_none(
    labels: Float32[np.ndarray, "examples classes"],
) -> Bool[np.ndarray, "examples classes+1"]:
    """The labels, and as the last one "no label"."""
    return np.concatenate([labels > 0, ~labels.any(axis=1, keepdims=True)], axis=1)


def _with_replacement(
    mass: Float[np.ndarray, " examples"], rng: np.random.Generator, importance_weighting: float
) -> EpochOrder:
    """As many draws as examples, each by its share of the mass."""
    shares = mass / mass.sum()
    order = rng.choice(len(shares), size=len(shares), p=shares)
    return EpochOrder(
        order, _corrected(len(shares) * shares.astype(np.float64), importance_weighting)
    )


def _corrected(
    visits: Float[np.ndarray, " examples"], importance_weighting: float
) -> Float32[np.ndarray, " examples"]:
    """The weights of examples that are visited so often in expectation."""
    return (visits**-importance_weighting).astype(np.float32)


SAMPLERS = {
    "shuffle": shuffle,
    "balanced": balanced,
    "effective": effective,
    "repeat_factor": repeat_factor,
    "rare_first": rare_first,
}
