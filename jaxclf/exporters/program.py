"""A model's whole answer as one jax function: packed tokens -> calibrated and blended
probabilities, thresholds, decisions.

What `Classifier.predict_proba` does in parts, the network in jax and its probabilities in numpy,
is one program here, so that it can be handed to other runtimes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int32
from tokenizers import Tokenizer

from jaxclf.decisions.calibration import EDGE, Calibration, from_json
from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Data, Encoder
from jaxclf.files.untrusted import has_entry
from jaxclf.inference.cascade.folder import CASCADE
from jaxclf.inference.members import model_folder, param_shapes
from jaxclf.model.classifier import build
from jaxclf.model.storage.ensemble_folder import ENSEMBLE, load_ensemble
from jaxclf.model.storage.saved_model import META, SavedModel, load_model, open_encoder
from jaxclf.types import Batch

Values = Float[Array, " slots"]
Curve = Callable[[Values], Values]


class Packed(NamedTuple):
    """What of a Batch an answer depends on."""

    ids: Int32[Any, "rows length"]
    positions: Int32[Any, "rows length"]
    segments: Int32[Any, "rows length"]
    examples: Int32[Any, "rows length"]


class Answer(NamedTuple):
    """decisions: `probabilities >= thresholds`. A slot that no example fills holds nothing of
    meaning."""

    probabilities: Float32[Any, "slots classes"]
    thresholds: Float32[Any, " classes"]
    decisions: Bool[Any, "slots classes"]


class InferenceProgram(NamedTuple):
    """A model or an ensemble as one program.

    params: of each member. answer: (params, packed, slots) -> Answer; slots is static.
    kinds: the members' encoders, by their `model_type`. dtypes: what those compute in where the
        run itself is asked.
    """

    labels: tuple[str, ...]
    data: Data
    kinds: tuple[str, ...]
    dtypes: tuple[str, ...]
    tokenizer: Tokenizer
    params: tuple[dict[str, Any], ...]
    answer: Callable[[tuple[dict[str, Any], ...], Packed, int], Answer]


def load_program(run: Path, dtype: str | None = None) -> InferenceProgram:
    """The program of a run's, a model's or an ensemble's folder.

    dtype: what encoders are to compute in; None: as the run says.
    Raises DataError for a damaged folder, ConfigError for a cascade and for an ensemble whose
    members cut texts into tokens differently.
    """
    folder = model_folder(run)
    if has_entry(folder, CASCADE):
        raise ConfigError(
            f"{folder}: a cascade, in which not every text is read by every network, is not one "
            f"program; export its networks alone, --run {folder / 'network-0'} and so on"
        )
    if has_entry(folder, ENSEMBLE):
        found, models = load_ensemble(folder)
        members = [load_model(model, param_shapes) for model in models]
        labels, record, weights = found.labels, found.thresholds, found.weights
    else:
        models, members = [folder], [load_model(folder, param_shapes)]
        labels, record = members[0].labels, members[0].thresholds
        weights = np.ones((1, len(labels)))
    tokenizers = [open_encoder(model)[1] for model in models]
    for model, member, tokenizer in zip(models, members, tokenizers, strict=True):
        if member.labels != labels:
            raise DataError(f"{model / META}: its labels are not those of the ensemble")
        if _cut(member, tokenizer) != _cut(members[0], tokenizers[0]):
            raise ConfigError(
                f"{folder}: its members cut texts into tokens differently, and one program has one "
                f"input; export each alone, --run {models[0]} and so on"
            )
    thresholds = rounded_up(np.array([record[name]["value"] for name in labels], np.float64))
    return InferenceProgram(
        labels,
        members[0].experiment.data,
        tuple(member.hf_config["model_type"] for member in members),
        tuple(member.experiment.encoder.dtype for member in members),
        tokenizers[0],
        tuple(member.params for member in members),
        _answer([_in_dtype(member, dtype) for member in members], weights, thresholds),
    )


def rounded_up(thresholds: Float64[np.ndarray, " classes"]) -> Float32[np.ndarray, " classes"]:
    """The least float32 not below: every float32 is decided as by the float64."""
    near = thresholds.astype(np.float32)
    return np.where(near < thresholds, np.nextafter(near, np.float32(np.inf)), near)


def _cut(member: SavedModel, tokenizer: Tokenizer) -> tuple[Any, ...]:
    """Equal where texts become equal tokens."""
    data = member.experiment.data
    return data.windows, tokenizer.to_str()


def _in_dtype(member: SavedModel, dtype: str | None) -> SavedModel:
    if dtype is None:
        return member
    encoder: Encoder = dataclasses.replace(member.experiment.encoder, dtype=dtype)
    return member._replace(experiment=dataclasses.replace(member.experiment, encoder=encoder))


def _answer(
    members: list[SavedModel],
    weights: Float64[np.ndarray, "members classes"],
    thresholds: Float32[np.ndarray, " classes"],
) -> Callable[[tuple[dict[str, Any], ...], Packed, int], Answer]:
    classes = len(thresholds)
    applies = [build(one.experiment, one.hf_config, classes)[1] for one in members]
    calibrations = [from_json(one.calibration) for one in members]

    def answer(params: tuple[dict[str, Any], ...], packed: Packed, slots: int) -> Answer:
        blank = jnp.zeros((slots, classes), jnp.float32)
        batch = Batch(*packed, blank, blank, jnp.ones(slots, jnp.float32))
        found = [
            calibrated(calibration, jax.nn.sigmoid(apply(own, batch)))
            for apply, calibration, own in zip(applies, calibrations, params, strict=True)
        ]
        if len(found) == 1:
            probs = found[0]
        else:
            shares = jnp.asarray(weights, jnp.float32)[:, None]
            probs = sum(share * one for share, one in zip(shares, found, strict=True))
        cuts = jnp.asarray(thresholds)
        return Answer(probs, cuts, probs >= cuts[None])

    return answer


def calibrated(
    calibration: Calibration, probs: Float32[Array, "slots classes"]
) -> Float32[Array, "slots classes"]:
    """As `decisions.calibration` has it, in float32 and in jax."""
    if calibration.kind == "none":
        return probs
    kept = jnp.clip(probs, EDGE, 1 - EDGE)
    logits = jnp.log(kept) - jnp.log(1 - kept)
    curves = [functools.partial(CURVES[calibration.kind], **one) for one in calibration.curves]
    columns = [curve(logits[:, index])[:, None] for index, curve in enumerate(curves)]
    found = jax.nn.sigmoid(jnp.concatenate(columns, axis=1))
    return jnp.clip(found, jnp.finfo(jnp.float32).tiny, 1 - EDGE)


def _log_expit(z: Values) -> Values:
    return jnp.minimum(z, 0) - jnp.log(1 + jnp.exp(-jnp.abs(z)))


def _isotonic(z: Values, *, knots: tuple[float, ...], values: tuple[float, ...]) -> Values:
    """The line through the two knots around each value; the outer ones lie beyond all logits."""
    x, y = np.array(knots, np.float64), np.array(values, np.float64)
    slopes = np.diff(y) / np.diff(x)
    left, base, slope = (jnp.asarray(part, jnp.float32) for part in (x[:-1], y[:-1], slopes))
    piece = jnp.sum((z[:, None] >= left[None, 1:]).astype(jnp.int32), axis=1)
    return base[piece] + slope[piece] * (z - left[piece])


# As `decisions.calibration.CURVES`, which has the reasons.
CURVES: Mapping[str, Callable[..., Values]] = {
    "none": lambda z: z,
    "temperature": lambda z, *, temperature: z / temperature,
    "platt": lambda z, *, slope, intercept: slope * z + intercept,
    "isotonic": _isotonic,
    "beta": lambda z, *, a, b, c: a * _log_expit(z) - b * _log_expit(-z) + c,
}
