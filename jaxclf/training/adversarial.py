"""Adversarial training: (params, gradient) -> perturbed params with a higher loss.

The step adds the gradient at the perturbed parameters to its own, which doubles its cost. With
gradient accumulation, each micro-batch has its own perturbation.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from jaxclf.types import POSITIVE

Params = dict[str, Any]

MIN_NORM = 1e-12  # avoids a division by zero


def fgm(params: Params, gradient: Params, *, epsilon: Annotated[float, POSITIVE] = 0.5) -> Params:
    """Move the word embeddings along their gradient by a distance of `epsilon` (Miyato et al. 2017,
    arXiv 1605.07725; here the embedding table is moved, not the embeddings of each text)."""

    def move(path: tuple, leaf: jax.Array, leaf_gradient: jax.Array) -> jax.Array:
        if [part.key for part in path][:3] != ["encoder", "embeddings", "word"]:
            return leaf
        norm = jnp.maximum(optax.tree.norm(leaf_gradient), MIN_NORM)
        return leaf + epsilon * leaf_gradient / norm

    return jax.tree_util.tree_map_with_path(move, params, gradient)


def none(params: Params, gradient: Params) -> Params:
    """No perturbation."""
    return params


ADVERSARIES: dict[str, Callable[..., Params]] = {"none": none, "fgm": fgm}
