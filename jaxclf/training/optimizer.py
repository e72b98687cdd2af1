"""The optax chain: clipping, AdamW with a mask for weight decay, its learning-rate schedule,
learning rates by layer, frozen parameters, gradient accumulation.

A schedule maps (peak, steps) to an optax schedule from the end of the warm-up on; a step is an
optimizer update.
"""

import itertools
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from jaxclf.experiment.config import Optim
from jaxclf.training.param_groups import freeze, scale_by_layer
from jaxclf.types import Bound

DECAYED = ("kernel", "embedding")  # weight decay leaves out biases and layer norms
EndFactor = Annotated[float, Bound(0, 2)]


def constant(peak: float, steps: int) -> optax.Schedule:
    """The peak until the end."""
    return optax.constant_schedule(peak)


def linear(peak: float, steps: int, *, end_factor: EndFactor = 0.0) -> optax.Schedule:
    """A linear decay to `end_factor` times the peak."""
    return optax.linear_schedule(peak, end_factor * peak, steps)


def cosine(peak: float, steps: int, *, end_factor: EndFactor = 0.0) -> optax.Schedule:
    """A cosine decay to `end_factor` times the peak (Loshchilov and Hutter 2017, arXiv
    1608.03983)."""
    return optax.cosine_decay_schedule(peak, max(steps, 1), alpha=end_factor)


def cosine_restarts(
    peak: float,
    steps: int,
    *,
    cycles: Annotated[int, Bound(1, 2**20)] = 3,
    decay: Annotated[float, Bound(0, 2)] = 1.0,
) -> optax.Schedule:
    """`cycles` cosine decays of equal length (SGDR, Loshchilov and Hutter 2017, arXiv 1608.03983).

    decay: the peak of a cycle as a fraction of the previous one.
    """
    bounds = [steps * cycle // cycles for cycle in range(cycles + 1)]
    schedules = [
        optax.cosine_decay_schedule(peak * decay**cycle, max(end - start, 1))
        for cycle, (start, end) in enumerate(itertools.pairwise(bounds))
    ]
    return optax.join_schedules(schedules, bounds[1:-1])


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
}


def learning_rate(optim: Optim, updates: int) -> optax.Schedule:
    """The experiment's schedule over a number of updates, after a linear warm-up to its peak."""
    warmup = min(round(optim.warmup_ratio * updates), updates - 1)
    # From 1 / (warmup + 1): the learning rate of the first update is above 0.
    rise = optax.linear_schedule(optim.lr / (warmup + 1), optim.lr, warmup)
    schedule = SCHEDULES[optim.schedule.name](optim.lr, updates - warmup, **optim.schedule.options)
    return optax.join_schedules([rise, schedule], [warmup])


def make_optimizer(optim: Optim, updates: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with the experiment's options.

    With gradient accumulation over k micro-batches, every k-th one updates the parameters with the
    mean of k gradients.
    """
    schedule = learning_rate(optim, updates)
    transforms = [
        clip_by_global_norm(optim.max_grad_norm),
        optax.adamw(schedule, weight_decay=optim.weight_decay, mask=decay_mask),
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
