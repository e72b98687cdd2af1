"""The optax chain: clipping, AdamW with a mask for weight decay, learning rates by layer, frozen
parameters, gradient accumulation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxclf.experiment.config import Optim
from jaxclf.training.param_groups import freeze, scale_by_layer
from jaxclf.training.schedules import SCHEDULES

DECAYED = ("kernel", "embedding")  # weight decay leaves out biases and layer norms


def learning_rate(optim: Optim, updates: int) -> optax.Schedule:
    """The experiment's schedule over a number of updates."""
    warmup = min(round(optim.warmup_ratio * updates), updates - 1)
    return SCHEDULES[optim.schedule.name](optim.lr, warmup, updates, **optim.schedule.options)


def make_optimizer(optim: Optim, updates: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with the experiment's options.

    With gradient accumulation over k micro-batches, every k-th one updates the parameters with the
    mean of k gradients.
    """
    transforms = [
        clip_by_global_norm(optim.max_grad_norm),
        optax.adamw(
            learning_rate(optim, updates), weight_decay=optim.weight_decay, mask=decay_mask
        ),
    ]
    if (optim.layerwise_lr_decay, optim.head_lr_multiplier) != (1, 1):
        transforms.append(scale_by_layer(optim.layerwise_lr_decay, optim.head_lr_multiplier))
    chain = freeze(optax.chain(*transforms), optim.freeze)
    if optim.gradient_accumulation_steps == 1:
        return chain
    return optax.MultiSteps(chain, optim.gradient_accumulation_steps).gradient_transformation()


def decay_mask(params: Any) -> Any:
    """True for the leaves that weight decay applies to."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in DECAYED, params)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale gradients down to a maximal norm.

    `optax.clip_by_global_norm` selects and divides leaf by leaf. One common factor is faster on a
    CPU, since XLA fuses it into Adam's pass over the gradient.
    """

    def update(updates, state, params=None):
        factor = jnp.minimum(1, max_norm / jnp.maximum(optax.tree.norm(updates), 1e-12))
        return jax.tree.map(lambda leaf: leaf * factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
