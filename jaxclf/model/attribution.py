"""Slopes of every logit by every token, for all labels at once, on the way from a blank text.

At a point of the way each token's embedding lies at one share between a blank's and its own. A
token's slope is what a logit rises by per share through that token alone: summed over the way,
slopes are integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from jaxclf.experiment.config import Data, Experiment
from jaxclf.model.classifier import network_of
from jaxclf.model.inference import TOKENS_PER_SLOT
from jaxclf.text.packing import fill, plan
from jaxclf.types import Batch, Shape, Tokens

# Tokens times logits in a batch: every logit has a backward pass, all of them at once.
CELLS = 2048
SCORE = ("pool", "score")  # the layer whose softmax is the attention pool's weights

Places = Int32[Any, "rows length"]


class TokenGradients(NamedTuple):
    """Of one batch. A token's slopes are those of its own slot's logits.

    scores: what the attention pool takes the softmax of; None under another pool.
    """

    logits: Float32[Array, "members slots classes"]
    slopes: Float32[Array, "members rows length classes"]
    scores: Float32[Array, "members rows length"] | None


class PathGradients(NamedTuple):
    """One text at some points of its way."""

    logits: Float[np.ndarray, "points members classes"]
    slopes: Float[np.ndarray, "points tokens members classes"]
    scores: Float[np.ndarray, "points tokens members"] | None


SlopesStep = Callable[[dict, Batch, Places, Float32[Any, "rows length"]], TokenGradients]


def slopes_shape(data: Data, columns: int) -> Shape:
    """One shape for all texts, with rows enough for the longest. columns: members times classes."""
    rows = max(CELLS // (data.max_length * columns), data.max_windows)
    return Shape(rows, data.max_length, max(rows * data.max_length // TOKENS_PER_SLOT, 1))


def make_slopes_step(
    experiment: Experiment, hf_config: Mapping[str, Any], classes: int, members: int, shape: Shape
) -> SlopesStep:
    """(params, batch, blanks, shares) -> Slopes, in float32 whatever the encoder's dtype.

    params: of several members with a leading axis. blanks: the ids that the way begins at; a
    token's own gives it slopes of exactly zero. shares: of the way, 0 to 1.
    """
    # The encoder is told of a vocabulary that has a word for each place of the batch. Its table
    # then holds their embeddings, and the gradient by the table is the gradient by each.
    places = shape.rows * shape.length
    exact = replace(experiment, encoder=replace(experiment.encoder, dtype="float32"))
    network = network_of(exact, hf_config, classes, vocabulary=places)

    def step(params: dict, batch: Batch, blanks: Array, shares: Array) -> TokenGradients:
        encoder = params["encoder"]
        word = encoder["embeddings"]["word"]["embedding"]
        start = word[blanks.reshape(-1)]
        way = word[batch.ids.reshape(-1)] - start
        each = batch._replace(ids=jnp.arange(places, dtype=jnp.int32).reshape(batch.ids.shape))

        def logits_of(table: Array) -> Any:
            embeddings = {**encoder["embeddings"], "word": {"embedding": table}}
            changed = {**params, "encoder": {**encoder, "embeddings": embeddings}}
            return network.apply(
                {"params": changed},
                each,
                True,
                capture_intermediates=lambda module, _: module.path == SCORE,
                mutable=["intermediates"],
            )

        logits, pull, seen = jax.vjp(logits_of, start + shares.reshape(-1, 1) * way, has_aux=True)

        def slopes_of(label: Array) -> Array:
            # Of all slots at once: a token has a part in the logits of its own alone.
            (gradient,) = pull(jnp.broadcast_to(label, logits.shape))
            return (gradient * way).sum(axis=-1).reshape(batch.ids.shape)

        slopes = jax.vmap(slopes_of, out_axes=-1)(jnp.eye(classes, dtype=logits.dtype))
        scores = [leaf.reshape(batch.ids.shape) for leaf in jax.tree.leaves(seen)]
        return TokenGradients(logits, slopes, scores[0] if scores else None)

    if members == 1:
        return jax.jit(lambda *given: jax.tree.map(lambda leaf: leaf[None], step(*given)))
    return jax.jit(jax.vmap(step, in_axes=(0, None, None, None)))


def path_gradients(
    step: SlopesStep,
    params: dict,
    tokens: Tokens,
    blanks: Int32[np.ndarray, " tokens"],
    texts: list[int],
    points: Float[np.ndarray, " points"],
    shape: Shape,
) -> list[PathGradients]:
    """These texts, each at all points; a text at a point is an example, packed like any other."""
    lengths = np.diff(tokens.starts)
    each = [np.flatnonzero(tokens.example_index == text) for text in texts for _ in points]
    windows = np.concatenate(each)
    owners = np.repeat(np.arange(len(each)), [len(one) for one in each])
    origin = np.concatenate([np.arange(*tokens.starts[one : one + 2]) for one in windows])
    shares = np.tile(points, len(texts))[np.repeat(owners, lengths[windows])]
    # Numbers in place of ids: a batch then says which token lies where.
    starts = np.cumsum([0, *lengths[windows]])
    numbers = Tokens(*(np.asarray(one, np.int32) for one in (range(starts[-1]), starts, owners)))
    unlabelled = np.zeros((len(each), 0), np.float32)

    examples, places, logits, slopes, scores = [], [], [], [], []
    for placement in plan(numbers, range(len(each)), shape):
        batch = fill(numbers, unlabelled, unlabelled, placement, shape)
        number, here = batch.ids, batch.segments > 0
        found = step(
            params,
            batch._replace(ids=np.where(here, tokens.ids[origin[number]], 0)),
            np.where(here, blanks[origin[number]], 0),
            np.where(here, shares[number], 0).astype(np.float32),
        )
        examples.append(placement.examples)
        places.append(number[here])
        logits.append(np.asarray(found.logits)[:, : len(placement.examples)])
        slopes.append(np.asarray(found.slopes)[:, here])
        if found.scores is not None:
            scores.append(np.asarray(found.scores)[:, here])

    def by_text(
        parts: list[np.ndarray], numbers: list[np.ndarray], sizes: Int[np.ndarray, " texts"]
    ) -> list[np.ndarray]:
        """[members, some, …] of each batch -> [points, size, members, …] of each text."""
        joined = np.concatenate(parts, axis=1).swapaxes(0, 1)[np.argsort(np.concatenate(numbers))]
        each = np.split(joined, np.cumsum(len(points) * sizes)[:-1])
        return [
            one.reshape(len(points), size, *one.shape[1:])
            for one, size in zip(each, sizes, strict=True)
        ]

    sizes = np.bincount(tokens.example_index, lengths).astype(int)[texts]
    ends = by_text(logits, examples, np.ones_like(sizes))
    weighed = by_text(scores, places, sizes) if scores else [None] * len(texts)
    columns = zip(ends, by_text(slopes, places, sizes), weighed, strict=True)
    return [
        PathGradients(of_text[:, 0], of_tokens, scored) for of_text, of_tokens, scored in columns
    ]
