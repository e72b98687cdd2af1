"""Perturbed parameters that a step is also taken against: (params, gradient) -> params where the
loss is higher.

The step adds the gradient found there to its own, at twice the cost. With accumulation each
micro-batch has its own perturbation.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from jaxclf.types import POSITIVE

Params = dict[str, Any]

# Below this a gradient has no direction worth following.
TINY = 1e-12


def fgm(params: Params, gradient: Params, *, epsilon: Annotated[float, POSITIVE] = 0.5) -> Params:
    """The word embeddings moved along their gradient by a distance (Miyato et al. 2017, arXiv
    1605.07725; the table itself, not each text's copy)."""

    def move(path: tuple, leaf: jax.Array, slope: jax.Array) -> jax.Array:
        if [part.key for part in path][:3] != ["encoder", "embeddings", "word"]:
            return leaf
        return leaf + epsilon * slope / jnp.maximum(optax.tree.norm(slope), TINY)

    return jax.tree_util.tree_map_with_path(move, params, gradient)


def none(params: Params, gradient: Params) -> Params:
    """No perturbation: the step is taken once."""
    return params


ADVERSARIES: dict[str, Callable[..., Params]] = {"none": none, "fgm": fgm}
