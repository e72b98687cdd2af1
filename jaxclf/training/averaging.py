"""Final weights from the checkpoints of the epochs: (epochs, load) -> params.

`epochs` are checkpoints, the highest validation score first; `load` reads a checkpoint's weights.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax

from jaxclf.training.checkpoint import CheckpointInfo
from jaxclf.types import Bound

Params = dict[str, Any]
Load = Callable[[CheckpointInfo], Params]


def best(epochs: Sequence[CheckpointInfo], load: Load) -> Params:
    """The weights with the highest validation score."""
    return load(epochs[0])


def swa(
    epochs: Sequence[CheckpointInfo],
    load: Load,
    *,
    num_epochs: Annotated[int, Bound(1, 2**20)] = 3,
) -> Params:
    """The mean weights of the last `num_epochs` epochs (Izmailov et al. 2018, arXiv 1803.05407)."""
    last_epochs = sorted(epochs, key=lambda checkpoint: checkpoint.step)[-num_epochs:]
    return average_params([load(checkpoint) for checkpoint in last_epochs])


def average_params(params: Sequence[Params]) -> Params:
    """The mean of each leaf over several parameter trees."""
    return jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]) / len(leaves), *params)


AVERAGES: dict[str, Callable[..., Params]] = {"best": best, "swa": swa}
