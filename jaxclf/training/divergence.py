"""A state that is not finite ends a run before it is evaluated or saved."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxclf.errors import DivergedError
from jaxclf.types import State


def check_loss(state: State, loss: float, grad_norm: float, epoch: int, run: Path) -> None:
    """Raise DivergedError if the loss or the gradient norm of a batch is not finite."""
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise _diverged(state, _first_bad_tensor(state), loss, grad_norm, epoch, run)


def check_state(state: State, loss: float, grad_norm: float, epoch: int, run: Path) -> None:
    """Raise DivergedError if an array of the state is not finite.

    loss, grad_norm: of the last batch; NaN if this process has trained on none.
    """
    if path := _first_bad_tensor(state):
        raise _diverged(state, path, loss, grad_norm, epoch, run)


def _diverged(
    state: State, path: str, loss: float, grad_norm: float, epoch: int, run: Path
) -> DivergedError:
    tensor = f"; {path} is not finite" * bool(path)
    return DivergedError(
        f"the loss is {loss} (gradient norm {grad_norm}) at batch {int(state.step)}, "
        f"epoch {epoch + 1}{tensor}; lower optim.lr or optim.max_grad_norm. "
        f"Earlier checkpoints are kept in {run}"
    )


def _first_bad_tensor(state: State) -> str:
    """The path of the first array that is not finite; empty if there is none."""
    leaves = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    finite = _are_finite([leaf for _, leaf in leaves]).tolist()
    if all(finite):
        return ""
    return jax.tree_util.keystr(leaves[finite.index(False)][0], simple=True, separator="/")


@jax.jit
def _are_finite(leaves: list[Array]) -> Bool[Array, " leaves"]:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])
