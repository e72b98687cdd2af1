"""From the weights at the end of each epoch to those that are handed over.

An average is a function (epochs, load) -> params: `epochs` best on validation first, `load`
reads one's weights.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax

from jaxclf.training.checkpoint import CheckpointInfo
from jaxclf.types import Bound

Params = dict[str, Any]
Load = Callable[[CheckpointInfo], Params]


def best(epochs: Sequence[CheckpointInfo], load: Load) -> Params:
    """The weights of the epoch that validation likes best."""
    return load(epochs[0])


def swa(
    epochs: Sequence[CheckpointInfo],
    load: Load,
    *,
    num_epochs: Annotated[int, Bound(1, 2**20)] = 3,
) -> Params:
    """The mean of the last epochs' weights (Izmailov et al. 2018, arXiv 1803.05407)."""
    latest = sorted(epochs, key=lambda one: one.step)[-num_epochs:]
    return mean([load(one) for one in latest])


def mean(several: Sequence[Params]) -> Params:
    """Of each leaf."""
    return jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]) / len(leaves), *several)


AVERAGES: dict[str, Callable[..., Params]] = {"best": best, "swa": swa}
