"""The one optax chain: clipping, AdamW with a decay mask, the schedule, rates by layer, frozen
parameters, gradient accumulation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxclf.experiment.config import Optim
from jaxclf.training.param_groups import freeze, scale_by_depth
from jaxclf.training.schedules import SCHEDULES

# Biases and layer norms are not decayed.
DECAYED = ("kernel", "embedding")


def learning_rate(optim: Optim, updates: int) -> optax.Schedule:
    """The experiment's schedule over so many updates."""
    warmup = min(round(optim.warmup_ratio * updates), updates - 1)
    return SCHEDULES[optim.schedule.name](optim.lr, warmup, updates, **optim.schedule.options)


def make_optimizer(optim: Optim, updates: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) as the experiment has it.

    With `accumulate` k, every k-th micro-batch makes an update from the mean of k gradients.
    """
    links = [
        clip_by_global_norm(optim.max_grad_norm),
        optax.adamw(
            learning_rate(optim, updates), weight_decay=optim.weight_decay, mask=decay_mask
        ),
    ]
    if (optim.layerwise_lr_decay, optim.head_lr_multiplier) != (1, 1):
        links.append(scale_by_depth(optim.layerwise_lr_decay, optim.head_lr_multiplier))
    chain = freeze(optax.chain(*links), optim.freeze)
    if optim.gradient_accumulation_steps == 1:
        return chain
    return optax.MultiSteps(chain, optim.gradient_accumulation_steps).gradient_transformation()


def decay_mask(params: Any) -> Any:
    """True for the leaves that weight decay applies to."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in DECAYED, params)


def clip_by_global_norm(largest: float) -> optax.GradientTransformation:
    """Scale a gradient down to a norm. One factor, which XLA folds into Adam's own pass over the
    gradient: `optax.clip_by_global_norm` selects and divides leaf by leaf, which costs a third more
    per update on a CPU."""

    def update(updates, state, params=None):
        factor = jnp.minimum(1, largest / jnp.maximum(optax.tree.norm(updates), 1e-12))
        return jax.tree.map(lambda leaf: leaf * factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
