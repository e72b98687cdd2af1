"""Networks of one architecture and one tokenizer, run as one program."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32
from tokenizers import Tokenizer

from jaxclf.errors import DataError
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import to_dict
from jaxclf.model.attribution import SlopesStep, make_slopes_step, slopes_shape
from jaxclf.model.classifier import build, make_embed
from jaxclf.model.inference import gather, make_predict_step, prediction_shape, score
from jaxclf.model.storage.saved_model import SavedModel
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.types import Batch


class ModelGroup(NamedTuple):
    """Networks of one architecture and one tokenizer, run as one program.

    members: their positions in the ensemble. columns: members * classes.
    params: of one network as they are, of several with a leading axis of members.
    apply: (params, batch) -> logits [slots, columns].
    step: the compiled predict step. slopes: the compiled gradient step of explanations.
    embed: (params, batch) -> pooled vectors [slots, features] of the first network.
    """

    members: tuple[int, ...]
    columns: int
    experiment: Experiment
    tokenizer: Tokenizer
    params: dict[str, Any]
    apply: Callable[..., Array]
    step: Callable[..., Array]
    slopes: SlopesStep
    embed: Callable[..., Array]


def make_groups(
    members: Sequence[SavedModel], tokenizers: Sequence[Tokenizer], indices: Iterable[int]
) -> list[ModelGroup]:
    """Group the networks at some indices that can run as one program, in the order of their first
    members."""
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(_group_key(members[index], tokenizers[index]), []).append(index)
    return [
        make_group([members[index] for index in indices], indices, tokenizers[indices[0]])
        for indices in groups.values()
    ]


def _group_key(member: SavedModel, tokenizer: Tokenizer) -> str:
    """Equal for members whose networks and tokens differ in their parameters alone."""
    experiment = to_dict(member.experiment)
    shape = [experiment["pool"], experiment["head"], experiment["encoder"]["dtype"]]
    shape += [member.experiment.data.windows, member.hf_config]
    return json.dumps(shape, sort_keys=True) + tokenizer.to_str()


def make_group(
    members: Sequence[SavedModel], indices: Sequence[int], tokenizer: Tokenizer
) -> ModelGroup:
    """One program for networks of one architecture."""
    first = members[0]
    _, apply_one = build(first.experiment, first.hf_config, len(first.labels))

    def apply_all(params: dict[str, Any], batch: Batch) -> Array:
        logits = jax.vmap(apply_one, in_axes=(0, None), out_axes=1)(params, batch)
        return logits.reshape(len(logits), -1)

    if len(members) == 1:
        params, apply = jax.tree.map(jnp.asarray, first.params), apply_one
    else:
        trees = [member.params for member in members]
        params, apply = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees), apply_all
    classes, columns = len(first.labels), len(members) * len(first.labels)
    embed_one = make_embed(first.experiment, first.hf_config, classes)

    def embed_first(params: dict[str, Any], batch: Batch) -> Array:
        is_one = len(members) == 1
        return embed_one(params if is_one else jax.tree.map(lambda leaf: leaf[0], params), batch)

    shape = slopes_shape(first.experiment.data, columns)
    return ModelGroup(
        tuple(indices),
        columns,
        first.experiment,
        tokenizer,
        params,
        apply,
        make_predict_step(apply),
        make_slopes_step(first.experiment, first.hf_config, classes, len(members), shape),
        jax.jit(embed_first),
    )


def score_group(
    group: ModelGroup, texts: list[str]
) -> Float32[np.ndarray, "members texts classes"]:
    """Probabilities of the group's networks before calibration. Raises DataError for NaN."""
    windows = group.experiment.data.windows
    tokens = tokenize(group.tokenizer, texts, windows)
    batches = score(group.step, group.params, tokens, prediction_shape(windows), group.columns)
    probs = gather(batches, len(texts), group.columns)
    if not np.isfinite(probs).all():
        raise DataError("the model's probabilities are not numbers; its weights are damaged")
    return probs.reshape(len(texts), len(group.members), -1).swapaxes(0, 1)


def embed(group: ModelGroup, texts: list[str]) -> Float32[np.ndarray, "texts features"]:
    """The pooled vector of each text under the group's first network."""
    windows = group.experiment.data.windows
    tokens = tokenize(group.tokenizer, texts, windows)
    batches = score(group.embed, group.params, tokens, prediction_shape(windows), group.columns)
    scored = list(batches)
    return gather(iter(scored), len(texts), scored[0].probs.shape[1])
