"""A model's inference as one jax function: packed tokens -> calibrated and blended probabilities,
thresholds, decisions.

`Classifier.predict_proba` runs the network in jax and handles its probabilities in numpy; other
runtimes need one program.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int32
from tokenizers import Tokenizer

from jaxclf.decisions.calibration import EDGE, Calibration, calibration_from_json
from jaxclf.decisions.calibration_curves import CURVES, ArrayFunctions
from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Data
from jaxclf.experiment.overrides import override
from jaxclf.files.untrusted import has_entry
from jaxclf.inference.cascade.folder import CASCADE
from jaxclf.inference.members import load_folder, model_folder
from jaxclf.model.classifier import build
from jaxclf.model.storage.saved_model import SavedModel
from jaxclf.types import Batch

Values = Float[Array, " slots"]
Params = tuple[dict[str, Any], ...]  # of each member


class Packed(NamedTuple):
    """The fields of a Batch that inference depends on."""

    ids: Int32[Any, "rows length"]
    positions: Int32[Any, "rows length"]
    segments: Int32[Any, "rows length"]
    examples: Int32[Any, "rows length"]


class Answer(NamedTuple):
    """The output of a program; `decisions` is `probabilities >= thresholds`. Rows of empty slots
    are meaningless."""

    probabilities: Float32[Any, "slots classes"]
    thresholds: Float32[Any, " classes"]
    decisions: Bool[Any, "slots classes"]


class InferenceProgram(NamedTuple):
    """A model or an ensemble as one program."""

    labels: tuple[str, ...]
    data: Data
    model_types: tuple[str, ...]  # the members' encoder families
    dtypes: tuple[str, ...]  # in which the members of the run compute
    tokenizer: Tokenizer
    params: Params
    answer: Callable[[Params, Packed, int], Answer]  # the number of slots is static
    digest: str  # of the model's folder


def load_program(run: Path, dtype: str | None = None) -> InferenceProgram:
    """Load the program of a run's, a model's or an ensemble's folder.

    dtype: that encoders compute in; None: the run's own.
    Raises DataError for a damaged folder, ConfigError for a cascade and for an ensemble whose
    members tokenize differently.
    """
    folder = model_folder(run)
    if has_entry(folder, CASCADE):
        raise ConfigError(
            f"{folder}: a cascade is not one program, because a text does not pass every network; "
            f"export its networks one by one, --run {folder / 'network-0'} and so on"
        )
    models = load_folder(folder)
    windows = {member.experiment.data.windows for member in models.members}
    if len(windows) > 1 or len({tokenizer.to_str() for tokenizer in models.tokenizers}) > 1:
        raise ConfigError(
            f"{folder}: members tokenize differently, and one program has one input; export them "
            f"one by one, --run {models.folders[0]} and so on"
        )
    values = np.array([models.thresholds[name]["value"] for name in models.labels], np.float64)
    changes = {} if dtype is None else {"encoder.dtype": dtype}
    members = [
        member._replace(experiment=override(member.experiment, changes))
        for member in models.members
    ]
    return InferenceProgram(
        models.labels,
        members[0].experiment.data,
        tuple(member.hf_config["model_type"] for member in models.members),
        tuple(member.experiment.encoder.dtype for member in models.members),
        models.tokenizers[0],
        tuple(member.params for member in models.members),
        _make_answer(members, models.weights, round_up(values)),
        models.digest,
    )


def round_up(thresholds: Float64[np.ndarray, " classes"]) -> Float32[np.ndarray, " classes"]:
    """The smallest float32 not below each threshold, so that every float32 probability is decided
    as by the float64 threshold."""
    nearest = thresholds.astype(np.float32)
    return np.where(nearest < thresholds, np.nextafter(nearest, np.float32(np.inf)), nearest)


def named_params(params: Params) -> dict[str, Any]:
    """The parameters of all members by their paths."""
    leaves = jax.tree.leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _make_answer(
    members: Sequence[SavedModel],
    weights: Float64[np.ndarray, "members classes"],
    thresholds: Float32[np.ndarray, " classes"],
) -> Callable[[Params, Packed, int], Answer]:
    classes = len(thresholds)
    applies = [build(member.experiment, member.hf_config, classes)[1] for member in members]
    calibrations = [calibration_from_json(member.calibration) for member in members]

    def answer(params: Params, packed: Packed, slots: int) -> Answer:
        blank = jnp.zeros((slots, classes), jnp.float32)
        batch = Batch(*packed, blank, blank, jnp.ones(slots, jnp.float32))
        member_probs = [
            apply_calibration(calibration, jax.nn.sigmoid(apply(member_params, batch)))
            for apply, calibration, member_params in zip(applies, calibrations, params, strict=True)
        ]
        if len(member_probs) == 1:
            probs = member_probs[0]
        else:
            rows = jnp.asarray(weights, jnp.float32)[:, None]
            probs = sum(row * values for row, values in zip(rows, member_probs, strict=True))
        limits = jnp.asarray(thresholds)
        return Answer(probs, limits, probs >= limits[None])

    return answer


def apply_calibration(
    calibration: Calibration, probs: Float32[Array, "slots classes"]
) -> Float32[Array, "slots classes"]:
    """`decisions.calibration.apply_calibration` in float32 and in jax."""
    if calibration.kind == "none":
        return probs
    clipped = jnp.clip(probs, EDGE, 1 - EDGE)
    logits = jnp.log(clipped) - jnp.log(1 - clipped)
    curve = functools.partial(CURVES[calibration.kind], JAX)
    columns = [
        curve(logits[:, index], **parameters)[:, None]
        for index, parameters in enumerate(calibration.curves)
    ]
    calibrated = jax.nn.sigmoid(jnp.concatenate(columns, axis=1))
    return jnp.clip(calibrated, jnp.finfo(jnp.float32).tiny, 1 - EDGE)


def _log_expit(z: Values) -> Values:
    return jnp.minimum(z, 0) - jnp.log(1 + jnp.exp(-jnp.abs(z)))


def _interp(z: Values, knots: tuple[float, ...], values: tuple[float, ...]) -> Values:
    """Linear interpolation between knots that enclose z, by operations that ONNX has."""
    x, y = np.array(knots, np.float64), np.array(values, np.float64)
    slopes = np.diff(y) / np.diff(x)
    left, base, slope = (jnp.asarray(part, jnp.float32) for part in (x[:-1], y[:-1], slopes))
    piece = jnp.sum((z[:, None] >= left[None, 1:]).astype(jnp.int32), axis=1)
    return base[piece] + slope[piece] * (z - left[piece])


JAX = ArrayFunctions(_log_expit, _interp)
