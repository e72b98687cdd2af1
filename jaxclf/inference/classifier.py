"""load(run, model or ensemble folder) -> Classifier: texts -> labels, probabilities, and why."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64
from tokenizers import Tokenizer

from jaxclf.decisions.blending import blend
from jaxclf.decisions.calibration import Calibration, calibrated, from_json
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.experiment.config import Experiment, to_dict
from jaxclf.files.untrusted import has_entry
from jaxclf.inference.cascade.folder import CASCADE
from jaxclf.inference.explanation import Explanation, Source, explain
from jaxclf.model.attribution import SlopesStep, make_slopes_step, slopes_shape
from jaxclf.model.classifier import build
from jaxclf.model.inference import gather, make_predict_step, prediction_shape, score
from jaxclf.model.storage.ensemble_folder import ENSEMBLE, load_ensemble
from jaxclf.model.storage.saved_model import META, SavedModel, load_model, open_encoder
from jaxclf.text.packing import fill
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.types import Batch, Shape, Tokens


class ModelGroup(NamedTuple):
    """Networks of one architecture that read the same tokens, as one program.

    params: of one network as they are, of several with a leading axis of members.
    apply: (params, batch) -> logits [slots, columns], columns being members * classes.
    slopes: what explanations are made of.
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
    """A trained model, or an ensemble of several, ready to label texts; from any thread, several at
    once too.

    labels: names in the order of the columns. thresholds: float [classes].
    params, apply, tokenizer, experiment: for one's own batched inference, `apply(params, batch) ->
        logits`; of an ensemble those of its first group, all of which are in `groups`.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        thresholds: Mapping[str, Mapping[str, Any]],
        provenance: dict[str, Any],
        groups: list[ModelGroup],
        calibrations: list[Calibration],
        weights: Float64[np.ndarray, "members classes"],
    ):
        self.labels = labels
        self.thresholds = np.array([thresholds[name]["value"] for name in labels])
        self.provenance = provenance
        self.groups = groups
        self.calibrations = calibrations
        self.weights = weights
        self.experiment, self.tokenizer = groups[0].experiment, groups[0].tokenizer
        self.params, self.apply = groups[0].params, groups[0].apply

    def predict_proba(self, texts: Iterable[str]) -> Float32[np.ndarray, "texts classes"]:
        """Calibrated probabilities, one row a text, in input order; of an ensemble, its members'
        blended."""
        texts = validate_texts(texts)
        if not texts:
            return np.zeros((0, len(self.labels)), np.float32)
        probs = np.empty((len(self.weights), len(texts), len(self.labels)), np.float32)
        for group in self.groups:
            for member, raw in zip(group.members, _score(group, texts), strict=True):
                probs[member] = calibrated(self.calibrations[member], raw)
        return blend(probs, self.weights)

    def predict(self, texts: Iterable[str]) -> list[list[str]]:
        """The labels of each text: those whose probability reaches their threshold; none is an
        answer."""
        decided = decide(self.predict_proba(texts), self.thresholds)
        return [
            [name for name, given in zip(self.labels, row, strict=True) if given] for row in decided
        ]

    def explain(self, texts: Iterable[str]) -> list[Explanation]:
        """What each word of each text adds to the log odds of each label, by integrated gradients.

        Costs 17 to 33 forward passes of a text, rarely more, and as many backward ones for each
        label: two seconds of a CPU core for 20 tokens, seven labels and MiniLM. A network that
        computes in bfloat16 is explained in float32.
        """
        groups = [one for one in self.groups if self.weights[list(one.members)].any()]
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
    """The texts as a list; DataError for one that cannot be labelled."""
    texts = list(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"text {index} is empty or no string")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"text {index} holds half of a surrogate pair")
    return texts


def load(path: str | Path) -> Classifier:
    """The classifier of a finished run's, an ensemble's or a cascade's folder, of its model/, or of
    an exported folder."""
    folder = model_folder(Path(path))
    if has_entry(folder, CASCADE):
        from jaxclf.inference.cascade.stages import open_cascade  # which builds on this module

        return open_cascade(folder)
    if not has_entry(folder, ENSEMBLE):
        one = load_model(folder, param_shapes)
        weights = np.ones((1, len(one.labels)))
        return _classifier(one.labels, one.thresholds, one.provenance, [one], [folder], weights)
    found, models = load_ensemble(folder)
    members = [load_model(model, param_shapes) for model in models]
    for model, member in zip(models, members, strict=True):
        if member.labels != found.labels:
            raise DataError(f"{model / META}: its labels are not those of the ensemble")
    return _classifier(
        found.labels, found.thresholds, found.provenance, members, models, found.weights
    )


def _classifier(
    labels: tuple[str, ...],
    thresholds: Mapping[str, Mapping[str, Any]],
    provenance: dict[str, Any],
    members: Sequence[SavedModel],
    models: Sequence[Path],
    weights: Float64[np.ndarray, "members classes"],
) -> Classifier:
    groups: dict[str, list[int]] = {}
    tokenizers = [open_encoder(model)[1] for model in models]
    for index, (member, tokenizer) in enumerate(zip(members, tokenizers, strict=True)):
        groups.setdefault(_kind(member, tokenizer), []).append(index)
    together = [
        _together([members[index] for index in indices], indices, tokenizers[indices[0]])
        for indices in groups.values()
    ]
    calibrations = [from_json(member.calibration) for member in members]
    return Classifier(labels, thresholds, provenance, together, calibrations, weights)


def _kind(member: SavedModel, tokenizer: Tokenizer) -> str:
    """Equal for members whose networks and tokens differ in their numbers alone."""
    plain = to_dict(member.experiment)
    cut = {key: plain["data"][key] for key in ("max_length", "max_windows", "window_overlap")}
    shape = [plain["pool"], plain["head"], plain["encoder"]["dtype"], cut, member.hf_config]
    return json.dumps(shape, sort_keys=True) + tokenizer.to_str()


def _together(members: list[SavedModel], indices: list[int], tokenizer: Tokenizer) -> ModelGroup:
    first = members[0]
    _, apply = build(first.experiment, first.hf_config, len(first.labels))
    if len(members) == 1:
        params = jax.tree.map(jnp.asarray, first.params)
    else:
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[one.params for one in members])
        apply = _side_by_side(apply)
    step = make_predict_step(apply)
    classes, columns = len(first.labels), len(members) * len(first.labels)
    shape = slopes_shape(first.experiment.data, columns)
    slopes = make_slopes_step(first.experiment, first.hf_config, classes, len(members), shape)
    return ModelGroup(
        tuple(indices), columns, first.experiment, tokenizer, params, apply, step, slopes
    )


def _side_by_side(apply: Callable[..., Array]) -> Callable[..., Array]:
    """One program for all members: logits [slots, members * classes]."""

    def all_at_once(params: dict[str, Any], batch: Batch) -> Array:
        logits = jax.vmap(apply, in_axes=(0, None), out_axes=1)(params, batch)
        return logits.reshape(len(logits), -1)

    return all_at_once


def _score(group: ModelGroup, texts: list[str]) -> Float32[np.ndarray, "members texts classes"]:
    """Probabilities as the group's networks give them."""
    data = group.experiment.data
    tokens = tokenize(group.tokenizer, texts, data.windows)
    shape = prediction_shape(data.windows)
    scored = score(group.step, group.params, tokens, shape, group.columns)
    found = gather(scored, len(texts), group.columns)
    return found.reshape(len(texts), len(group.members), -1).swapaxes(0, 1)


def model_folder(path: Path) -> Path:
    """Where the model lies: the folder itself, or a run's model/."""
    here = any(has_entry(path, name) for name in (META, ENSEMBLE, CASCADE))
    return path if here else path / "model"


def param_shapes(experiment: Experiment, hf_config: dict[str, Any], classes: int) -> Any:
    """Shapes of the network's parameters, without making them."""
    init, _ = build(experiment, hf_config, classes)
    nothing = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0, np.int32))
    blank = np.zeros((0, classes), np.float32)
    batch = fill(nothing, blank, blank, None, Shape(1, experiment.data.max_length, 1))
    return jax.eval_shape(init, jax.random.key(0), batch)
