"""The train step: pure, jitted, with donated state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt32

from jaxclf.experiment.config import Regularization
from jaxclf.training.losses import Loss
from jaxclf.training.regularization import (
    ADVERSARIES,
    mix_labels,
    sample_mixup,
    symmetric_kl,
    update_ema,
)
from jaxclf.types import Batch, LabelStats, State


class StepMetrics(NamedTuple):
    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]  # before clipping


def key_implementation() -> str:
    """The random number generator of dropout.

    Philox is the fastest on a CPU, but XLA cannot shard it over devices yet.
    """
    return "philox4x32" if jax.device_count() == 1 else "threefry2x32"


def dropout_key(seed: int) -> UInt32[np.ndarray, " words"]:
    """The raw dropout key of a run."""
    return np.asarray(jax.random.key_data(jax.random.key(seed, impl=key_implementation())))


def weights_of(state: State) -> dict[str, Any]:
    """The parameters of the model: their moving average if there is one."""
    return state.ema or state.params


def make_train_step(
    apply: Callable[..., Array],
    loss: Loss,
    tx: optax.GradientTransformation,
    stats: LabelStats,
    batch_size: int,
    regularization: Regularization,
    accumulation_steps: int = 1,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable[[State, Batch], tuple[State, StepMetrics]]:
    """Make the jitted step (state, batch) -> (state, metrics), which donates the state it is called
    with.

    sharding: of the new state and the metrics; None with a single device.
    The loss is the sum over the batch's examples divided by the nominal `batch_size`, so k
    micro-batches give the gradient of one batch that is k times larger.
    """
    perturb = ADVERSARIES[regularization.adversarial.name]

    def train_step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        key = jax.random.fold_in(
            jax.random.wrap_key_data(jnp.asarray(state.key), impl=key_implementation()), state.step
        )
        mix = None
        if regularization.mixup:
            key, mixup_key = jax.random.split(key)
            mix = sample_mixup(mixup_key, batch.weight, regularization.mixup)
            batch = mix_labels(batch, mix)
        keys = list(jax.random.split(key)) if regularization.rdrop else [key]

        def objective(params: dict) -> Float[Array, ""]:
            # Cloned keys: the adversarial pass uses the same dropout masks.
            passes = [apply(params, batch, jax.random.clone(key), mix) for key in keys]
            losses = sum(
                loss(logits, batch.labels, batch.label_mask, stats) for logits in passes
            ) / len(keys)
            if regularization.rdrop:
                divergence = symmetric_kl(passes[0], passes[1], batch.label_mask)
                losses = losses + regularization.rdrop * divergence
            return (losses * batch.weight).sum() / batch_size

        value, gradient = jax.value_and_grad(objective)(state.params)
        if regularization.adversarial.name != "none":
            perturbed = perturb(state.params, gradient, **regularization.adversarial.options)
            gradient = jax.tree.map(jnp.add, gradient, jax.grad(objective)(perturbed))
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(value, optax.tree.norm(gradient))
        ema = state.ema
        if regularization.ema_decay:
            decay = regularization.ema_decay
            ema = update_ema(ema, params, state.step, decay, accumulation_steps)
        return State(state.step + 1, params, opt_state, state.key, ema), metrics  # type: ignore[arg-type]

    return jax.jit(train_step, donate_argnums=0, out_shardings=sharding)
