"""Per-token gradients of every logit along the integrated-gradients path from a masked baseline.

At a point of the path every token's embedding is interpolated between the baseline's and its own. A
token's gradient is the derivative of a logit by its interpolation factor; summed over the path,
these are integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from jaxclf.experiment.config import Data, Experiment
from jaxclf.model.classifier import make_network
from jaxclf.model.inference import prediction_shape
from jaxclf.text.packing import fill, plan
from jaxclf.types import Batch, Shape, Tokens

# Tokens times logits in a batch: all logits have their backward passes at once.
CELLS = 2048
SCORE = ("pool", "score")  # the layer whose softmax is the attention pool's weights

TokenIds = Int32[Any, "rows length"]


class TokenGradients(NamedTuple):
    """Gradients of one batch. A token has those of its own slot's logits.

    scores: inputs of the attention pool's softmax; None under another pool.
    """

    logits: Float32[Array, "members slots classes"]
    slopes: Float32[Array, "members rows length classes"]
    scores: Float32[Array, "members rows length"] | None


class PathGradients(NamedTuple):
    """Gradients of one text at some points of its path."""

    logits: Float[np.ndarray, "points members classes"]
    slopes: Float[np.ndarray, "points tokens members classes"]
    scores: Float[np.ndarray, "points tokens members"] | None


SlopesStep = Callable[[dict, Batch, TokenIds, Float32[Any, "rows length"]], TokenGradients]


def slopes_shape(data: Data, columns: int) -> Shape:
    """The shape of all batches. columns: members times classes."""
    return prediction_shape(data.windows, CELLS // columns)


def make_slopes_step(
    experiment: Experiment, hf_config: Mapping[str, Any], classes: int, members: int, shape: Shape
) -> SlopesStep:
    """Compile (params, batch, baselines, factors) -> TokenGradients, computed in float32.

    params: of several members with a leading axis. baselines: token ids at the start of the path; a
    token that is its own baseline has gradients of exactly zero. factors: of interpolation, 0 to 1.
    """
    # Build the encoder with one embedding row per batch position, so that the gradient with respect
    # to the table is per token.
    count = shape.rows * shape.length
    exact = replace(experiment, encoder=replace(experiment.encoder, dtype="float32"))
    network = make_network(exact, hf_config, classes, vocabulary=count)

    def step(params: dict, batch: Batch, baselines: Array, factors: Array) -> TokenGradients:
        encoder = params["encoder"]
        word = encoder["embeddings"]["word"]["embedding"]
        start = word[baselines.reshape(-1)]
        direction = word[batch.ids.reshape(-1)] - start
        by_position = batch._replace(
            ids=jnp.arange(count, dtype=jnp.int32).reshape(batch.ids.shape)
        )

        def logits_of(table: Array) -> Any:
            embeddings = {**encoder["embeddings"], "word": {"embedding": table}}
            changed = {**params, "encoder": {**encoder, "embeddings": embeddings}}
            return network.apply(
                {"params": changed},
                by_position,
                True,
                capture_intermediates=lambda module, _: module.path == SCORE,
                mutable=["intermediates"],
            )

        table = start + factors.reshape(-1, 1) * direction
        logits, backward, captured = jax.vjp(logits_of, table, has_aux=True)

        def slopes_of(label: Array) -> Array:
            # All slots at once, since a token affects the logits of its own slot only.
            (gradient,) = backward(jnp.broadcast_to(label, logits.shape))
            return (gradient * direction).sum(axis=-1).reshape(batch.ids.shape)

        slopes = jax.vmap(slopes_of, out_axes=-1)(jnp.eye(classes, dtype=logits.dtype))
        scores = [leaf.reshape(batch.ids.shape) for leaf in jax.tree.leaves(captured)]
        return TokenGradients(logits, slopes, scores[0] if scores else None)

    if members == 1:
        return jax.jit(lambda *inputs: jax.tree.map(lambda leaf: leaf[None], step(*inputs)))
    return jax.jit(jax.vmap(step, in_axes=(0, None, None, None)))


def path_gradients(
    step: SlopesStep,
    params: dict,
    tokens: Tokens,
    baselines: Int32[np.ndarray, " tokens"],
    texts: list[int],
    points: Float[np.ndarray, " points"],
    shape: Shape,
) -> list[PathGradients]:
    """The gradients of texts, each at all points. A text at a point is packed as an example."""
    lengths = np.diff(tokens.starts)
    windows_of = [np.flatnonzero(tokens.example_index == text) for text in texts for _ in points]
    windows = np.concatenate(windows_of)
    example_index = np.repeat(np.arange(len(windows_of)), [len(part) for part in windows_of])
    source = np.concatenate([np.arange(*tokens.starts[w : w + 2]) for w in windows])
    factors = np.tile(points, len(texts))[np.repeat(example_index, lengths[windows])]
    # Ids number the tokens, so that a packed batch tells where each token went.
    starts = np.cumsum([0, *lengths[windows]])
    columns = (range(starts[-1]), starts, example_index)
    numbered = Tokens(*(np.asarray(column, np.int32) for column in columns))
    unlabelled = np.zeros((len(windows_of), 0), np.float32)

    examples, positions, logits, slopes, scores = [], [], [], [], []
    for placement in plan(numbered, range(len(windows_of)), shape):
        batch = fill(numbered, unlabelled, unlabelled, placement, shape)
        number, is_token = batch.ids, batch.segments > 0
        gradients = step(
            params,
            batch._replace(ids=np.where(is_token, tokens.ids[source[number]], 0)),
            np.where(is_token, baselines[source[number]], 0),
            np.where(is_token, factors[number], 0).astype(np.float32),
        )
        examples.append(placement.examples)
        positions.append(number[is_token])
        logits.append(np.asarray(gradients.logits)[:, : len(placement.examples)])
        slopes.append(np.asarray(gradients.slopes)[:, is_token])
        if gradients.scores is not None:
            scores.append(np.asarray(gradients.scores)[:, is_token])

    count, sizes = len(points), np.bincount(tokens.example_index, lengths).astype(int)[texts]
    columns = (
        [values[:, 0] for values in _by_text(logits, examples, np.ones_like(sizes), count)],
        _by_text(slopes, positions, sizes, count),
        _by_text(scores, positions, sizes, count) if scores else [None] * len(texts),
    )
    return [PathGradients(*row) for row in zip(*columns, strict=True)]


def _by_text(
    batches: Sequence[np.ndarray],
    numbers: Sequence[np.ndarray],
    sizes: Int[np.ndarray, " texts"],
    points: int,
) -> list[np.ndarray]:
    """[members, items, …] of each batch -> [points, size, members, …] of each text.

    numbers: of the items of each batch, in the order of texts and points.
    """
    order = np.argsort(np.concatenate(numbers))
    joined = np.concatenate(batches, axis=1).swapaxes(0, 1)[order]
    parts = np.split(joined, np.cumsum(points * sizes)[:-1])
    return [
        part.reshape(points, size, *part.shape[1:]) for part, size in zip(parts, sizes, strict=True)
    ]
