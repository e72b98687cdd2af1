"""Regularization: mixup, R-Drop, adversarial training, averages of the weights."""

import logging
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxclf.training.losses import Matrix, PerExample, mean_over_known
from jaxclf.training.manifest import CheckpointInfo
from jaxclf.types import POSITIVE, Batch, Bound, Mix

log = logging.getLogger(__name__)

Params = dict[str, Any]
Load = Callable[[CheckpointInfo], Params]  # reads a checkpoint's weights

MIN_NORM = 1e-12  # avoids a division by zero


def sample_mixup(key: Array, weight: Float[Array, " slots"], alpha: float) -> Mix:
    """Draw a partner for each example, and the fraction of at least 0.5 that it keeps of itself
    (Zhang et al. 2018, arXiv 1710.09412; of hidden representations, Verma et al. 2019, arXiv
    1806.05236).

    The examples are put in a random cyclic order and mixed with their successors. An empty slot is
    its own partner.
    """
    order_key, lam_key = jax.random.split(key)
    is_used = weight > 0
    # The empty slots come last.
    order = jnp.argsort(jax.random.uniform(order_key, weight.shape) + jnp.where(is_used, 0, 2))
    rank = jnp.argsort(order)
    next_rank = jnp.where(rank + 1 < is_used.sum(), rank + 1, 0)
    index = jnp.where(is_used, order[next_rank], jnp.arange(len(weight)))
    lam = jax.random.beta(lam_key, alpha, alpha, weight.shape)
    return Mix(index, jnp.maximum(lam, 1 - lam)[:, None])


def mix_labels(batch: Batch, mix: Mix) -> Batch:
    """Mix the labels to soft labels; a label is known if both examples have it known."""
    label_mask = batch.label_mask * batch.label_mask[mix.index]
    labels = mix.lam * batch.labels + (1 - mix.lam) * batch.labels[mix.index]
    return batch._replace(labels=labels * label_mask, label_mask=label_mask)


def symmetric_kl(logits_a: Matrix, logits_b: Matrix, label_mask: Matrix) -> PerExample:
    """The mean of both Kullback-Leibler divergences between two passes, averaged over an example's
    known labels (R-Drop, Liang et al. 2021, arXiv 2106.14448)."""
    divergence = (jax.nn.sigmoid(logits_a) - jax.nn.sigmoid(logits_b)) * (logits_a - logits_b) / 2
    return mean_over_known(divergence, label_mask)


# Adversarial training: (params, gradient) -> perturbed params with a higher loss. The step adds the
# gradient at the perturbed parameters to its own, which doubles its cost. With gradient
# accumulation, each micro-batch has its own perturbation.


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


def update_ema(ema: Any, params: Any, step: Array, decay: float, accumulation_steps: int) -> Any:
    """The exponential moving average of the parameters after one update; unchanged after the other
    micro-batches.

    The decay is ramped up, (1 + updates) / (10 + updates), so early weights do not dominate the
    average.
    """
    updates = (step + 1) // accumulation_steps
    ramped = jnp.minimum(decay, (1 + updates) / (10 + updates))
    kept = jnp.where((step + 1) % accumulation_steps == 0, ramped, 1)
    return jax.tree.map(lambda average, new: kept * average + (1 - kept) * new, ema, params)


# Final weights from the checkpoints of the epochs, the best validation score first:
# (epochs, load) -> params.


def best(epochs: Sequence[CheckpointInfo], load: Load) -> Params:
    """The weights with the best validation score."""
    log.info(
        "kept: the weights of epoch %d, by train.metric on validation",
        len(epochs[0].progress.history),
    )
    return load(epochs[0])


def swa(
    epochs: Sequence[CheckpointInfo], load: Load, *, num_epochs: Annotated[int, Bound(1, 2**20)] = 3
) -> Params:
    """The mean weights of the last `num_epochs` epochs (Izmailov et al. 2018, arXiv 1803.05407)."""
    last_epochs = sorted(epochs, key=lambda checkpoint: checkpoint.step)[-num_epochs:]
    params = [load(checkpoint) for checkpoint in last_epochs]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]) / len(leaves), *params)


AVERAGES: dict[str, Callable[..., Params]] = {"best": best, "swa": swa}
