"""The train step: pure, jitted, donated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt32

from jaxclf.experiment.config import Regularization
from jaxclf.training.adversarial import ADVERSARIES
from jaxclf.training.losses import Loss
from jaxclf.training.mixup import mix_labels, sample_mixup
from jaxclf.types import Batch, LabelStats, State


class StepMetrics(NamedTuple):
    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]


def key_kind() -> str:
    """Philox is counter-based like threefry and four times as fast on a CPU, but XLA cannot yet
    split its product of high words among devices."""
    return "philox4x32" if jax.device_count() == 1 else "threefry2x32"


def dropout_key(seed: int) -> UInt32[np.ndarray, " words"]:
    """The raw key of a run."""
    return np.asarray(jax.random.key_data(jax.random.key(seed, impl=key_kind())))


def weights_of(state: State) -> dict[str, Any]:
    """What the model is: the running mean of the parameters where one is kept."""
    return state.ema or state.params


def make_train_step(
    apply: Callable[..., Array],
    loss: Loss,
    tx: optax.GradientTransformation,
    stats: LabelStats,
    batch_size: int,
    regularization: Regularization,
    accumulate: int = 1,
    placed: jax.sharding.Sharding | None = None,
) -> Callable[[State, Batch], tuple[State, StepMetrics]]:
    """(state, batch) -> (state, metrics); the given state is donated.

    placed: where both lie, if not on one device.

    The loss is the sum over the batch's examples divided by the nominal `batch_size`, so that k
    micro-batches give the gradient of one batch of k times the size.
    """
    adversary = ADVERSARIES[regularization.adversarial.name]

    def step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        key = jax.random.fold_in(
            jax.random.wrap_key_data(jnp.asarray(state.key), impl=key_kind()), state.step
        )
        mix = None
        if regularization.mixup:
            key, own = jax.random.split(key)
            mix = sample_mixup(own, batch.weight, regularization.mixup)
            batch = mix_labels(batch, mix)
        keys = list(jax.random.split(key)) if regularization.rdrop else [key]

        def objective(params: dict) -> Float[Array, ""]:
            # Clones, since an adversary is met with the same dropout.
            logits = [apply(params, batch, jax.random.clone(one), mix) for one in keys]
            each = sum(loss(one, batch.labels, batch.label_mask, stats) for one in logits) / len(
                keys
            )
            if regularization.rdrop:
                each = each + regularization.rdrop * disagreement(
                    logits[0], logits[1], batch.label_mask
                )
            return (each * batch.weight).sum() / batch_size

        value, gradient = jax.value_and_grad(objective)(state.params)
        if regularization.adversarial.name != "none":
            worse = adversary(state.params, gradient, **regularization.adversarial.options)
            gradient = jax.tree.map(jnp.add, gradient, jax.grad(objective)(worse))
        updates, opt_state = tx.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = StepMetrics(value, optax.tree.norm(gradient))
        ema = state.ema
        if regularization.ema_decay:
            ema = running_mean(ema, params, state.step, regularization.ema_decay, accumulate)
        return State(state.step + 1, params, opt_state, state.key, ema), metrics  # type: ignore[arg-type]

    return jax.jit(step, donate_argnums=0, out_shardings=placed)


def disagreement(
    one: Float[Array, "slots classes"],
    other: Float[Array, "slots classes"],
    known: Float[Array, "slots classes"],
) -> Float[Array, " slots"]:
    """Of two passes' probabilities: the mean of both Kullback-Leibler divergences, over an
    example's known labels (R-Drop, Liang et al. 2021, arXiv 2106.14448)."""
    divergence = (jax.nn.sigmoid(one) - jax.nn.sigmoid(other)) * (one - other) / 2
    return (divergence * known).sum(axis=1) / jnp.maximum(known.sum(axis=1), 1)


def running_mean(mean: Any, params: Any, step: Array, decay: float, accumulate: int) -> Any:
    """The mean moved by one update; between updates as it was.

    A young mean forgets faster, (1 + updates) / (10 + updates), lest it be of the start for long.
    """
    updates = (step + 1) // accumulate
    rate = jnp.minimum(decay, (1 + updates) / (10 + updates))
    kept = jnp.where((step + 1) % accumulate == 0, rate, 1)
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, mean, params)
