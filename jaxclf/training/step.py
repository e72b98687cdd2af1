"""The train step: pure, jitted, donated."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt32

from jaxclf.training.losses import Loss
from jaxclf.types import Batch, LabelStats, State

# Counter-based like threefry, and four times as fast on a CPU.
KEY_KIND = "philox4x32"


class StepMetrics(NamedTuple):
    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]


def dropout_key(seed: int) -> UInt32[np.ndarray, " words"]:
    """The raw key of a run."""
    return np.asarray(jax.random.key_data(jax.random.key(seed, impl=KEY_KIND)))


def make_train_step(
    apply: Callable[..., Array],
    loss: Loss,
    tx: optax.GradientTransformation,
    stats: LabelStats,
    batch_size: int,
) -> Callable[[State, Batch], tuple[State, StepMetrics]]:
    """(state, batch) -> (state, metrics); the given state is donated.

    The loss is the sum over the batch's examples divided by the nominal `batch_size`, so that k
    micro-batches give the gradient of one batch of k times the size.
    """

    def step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        key = jax.random.fold_in(
            jax.random.wrap_key_data(jnp.asarray(state.key), impl=KEY_KIND), state.step
        )

        def objective(params: dict) -> Float[Array, ""]:
            logits = apply(params, batch, key)
            each = loss(logits, batch.labels, batch.known, stats)
            return (each * batch.weight).sum() / batch_size

        value, gradient = jax.value_and_grad(objective)(state.params)
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(value, optax.tree.norm(gradient))
        return State(state.step + 1, params, opt_state, state.key), metrics  # type: ignore[arg-type]

    return jax.jit(step, donate_argnums=0)
