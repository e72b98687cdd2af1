"""The Classifier: texts -> probabilities, labels and explanations."""

import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64
from tokenizers import Tokenizer

from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, apply_calibration
from jaxclf.decisions.provenance import Provenance
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import to_dict
from jaxclf.inference.explanation import Explanation, Source, explain
from jaxclf.model.attribution import SlopesStep, make_slopes_step, slopes_shape
from jaxclf.model.classifier import build
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
    """

    members: tuple[int, ...]
    columns: int
    experiment: Experiment
    tokenizer: Tokenizer
    params: dict[str, Any]
    apply: Callable[..., Array]
    step: Callable[..., Array]
    slopes: SlopesStep


class Classifier:
    """A trained model or an ensemble. All methods may be called from several threads at once.

    labels: names in the order of the columns. thresholds: float [classes].
    params, apply, tokenizer, experiment: for batched inference of your own,
        `apply(params, batch) -> logits`; of an ensemble those of its first group in `groups`.
    digest: SHA-256 of the model's folder, empty for a model that is not saved.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        thresholds: Mapping[str, Mapping[str, Any]],
        provenance: Provenance,
        groups: list[ModelGroup],
        calibrations: list[Calibration],
        weights: Float64[np.ndarray, "members classes"],
        digest: str = "",
    ):
        self.labels = labels
        self.thresholds = np.array([thresholds[name]["value"] for name in labels])
        self.provenance = provenance
        self.groups = groups
        self.calibrations = calibrations
        self.weights = weights
        self.digest = digest
        self.experiment, self.tokenizer = groups[0].experiment, groups[0].tokenizer
        self.params, self.apply = groups[0].params, groups[0].apply

    @property
    def identifier(self) -> str:
        """What made an answer, for people: the digest's first 12 digits and jaxclf's version."""
        return f"{self.digest[:12]} jaxclf {importlib.metadata.version('jaxclf')}"

    def predict_proba(self, texts: Iterable[str]) -> Float32[np.ndarray, "texts classes"]:
        """Calibrated probabilities, one row a text, in input order. An ensemble blends its
        members' probabilities. Raises DataError for a text that is empty or not Unicode."""
        texts = validate_texts(texts)
        if not texts:
            return np.zeros((0, len(self.labels)), np.float32)
        probs = np.empty((len(self.weights), len(texts), len(self.labels)), np.float32)
        for group in self.groups:
            for member, raw_probs in zip(group.members, score_group(group, texts), strict=True):
                probs[member] = apply_calibration(self.calibrations[member], raw_probs)
        return blend(probs, self.weights)

    def predict(self, texts: Iterable[str]) -> list[list[str]]:
        """The labels of each text whose probability reaches the threshold. The list may be
        empty."""
        decisions = decide(self.predict_proba(texts), self.thresholds)
        return [[self.labels[index] for index in np.flatnonzero(row)] for row in decisions]

    def explain(self, texts: Iterable[str]) -> list[Explanation]:
        """Attribute each label's log odds to the words of each text by integrated gradients.

        Usually costs 17 to 33 forward passes of a text, and as many backward passes for each label.
        A network that computes in bfloat16 is explained in float32.
        """
        groups = [group for group in self.groups if self.weights[list(group.members)].any()]
        members = [member for group in groups for member in group.members]
        sources = [
            Source(
                group.tokenizer,
                group.experiment.data,
                slopes_shape(group.experiment.data, group.columns),
                group.params,
                group.slopes,
            )
            for group in groups
        ]
        calibrations = [self.calibrations[member] for member in members]
        return explain(validate_texts(texts), sources, calibrations, self.weights[members])


def validate_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list. Raises DataError for a text that cannot be classified."""
    if isinstance(texts, str):
        raise DataError("one string in place of a list of texts; give [text]")
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"text {index} is empty or not a string")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"text {index} contains a lone surrogate")
    return texts


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
