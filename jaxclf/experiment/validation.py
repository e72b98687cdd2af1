"""Holding an experiment to its ranges and registries, before any data is read."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxclf.errors import ConfigError
from jaxclf.experiment.config import (
    Experiment,
    Spec,
    did_you_mean,
    hint_of,
    iter_fields,
    matches_type,
    options_of,
    type_name,
)
from jaxclf.types import Bound

Registries = Mapping[str, Mapping[str, Callable]]


BOUNDS = {
    "data.max_length": Bound(4, 2**20),
    "data.max_windows": Bound(1, 2**20),
    "data.window_overlap": Bound(0, 2**20),
    "data.max_train_examples": Bound(0, 2**31),
    "data.folds": Bound(0, 2**10),
    "data.fold": Bound(0, 2**10 - 1),
    "data.soft_label_weight": Bound(0, math.nextafter(1, 2), open=True),  # 1 is allowed
    "encoder.dropout": Bound(0, 1),
    "encoder.attention_dropout": Bound(0, 1),
    "optim.lr": Bound(0, 1, open=True),
    "optim.weight_decay": Bound(0, float("inf")),
    "optim.warmup_ratio": Bound(0, 1),
    "optim.max_grad_norm": Bound(0, float("inf"), open=True),
    "optim.gradient_accumulation_steps": Bound(1, 2**20),
    "optim.layerwise_lr_decay": Bound(0, 2, open=True),
    "optim.head_lr_multiplier": Bound(0, 2**10, open=True),
    "optim.reinit_layers": Bound(0, 2**10),
    "regularization.rdrop": Bound(0, float("inf")),
    "regularization.mixup": Bound(0, float("inf")),
    "regularization.ema_decay": Bound(0, 1),
    "train.epochs": Bound(1, 2**20),
    "train.batch_size": Bound(1, 2**20),
    "train.patience": Bound(0, 2**20),
    "train.checkpoint_every": Bound(1, 2**31),
    "seed": Bound(0, 2**31),
}

CHOICES = {"encoder.dtype": ("float32", "bfloat16")}


def check(experiment: Experiment, registries: Registries) -> Experiment:
    """Hold every value to its range, every Spec to its registry and that function's keyword-only
    options.

    Returns the experiment unchanged; raises ConfigError. Reads no file.
    """
    for key, value in iter_fields(experiment):
        hint = hint_of(experiment, key)
        if not matches_type(value, hint):
            raise ConfigError(f"{key}={value!r}: expected {type_name(hint)}")
        if key in BOUNDS:
            _check_bound(key, value, BOUNDS[key])
        if key in CHOICES and value not in CHOICES[key]:
            raise ConfigError(f"{key}={value!r}" + did_you_mean(value, CHOICES[key]))
        if isinstance(value, Spec) and key in registries:
            check_spec(key, value, registries[key])
    if experiment.train.metric not in registries.get("train.metric", [experiment.train.metric]):
        metric = experiment.train.metric
        raise ConfigError(
            f"train.metric={metric!r}" + did_you_mean(metric, registries["train.metric"])
        )
    length, overlap = experiment.data.max_length, experiment.data.window_overlap
    # Two special tokens stand in each window, and each must bring a token that is new.
    if overlap > min(length // 2, length - 3):
        raise ConfigError("data.window_overlap must be at most half of data.max_length")
    folds, fold = experiment.data.folds, experiment.data.fold
    if folds == 1 or fold >= max(folds, 1):
        raise ConfigError(
            f"data.folds={folds}, data.fold={fold}: give two folds or more, and one of them, from 0"
        )
    return experiment


def check_labels(experiment: Any, names: tuple[str, ...]) -> None:
    """Hold what an experiment says of labels to those there are: a threshold rule's `labels`, and
    options with a number per label. Raises ConfigError."""
    for key, value in iter_fields(experiment):
        if not isinstance(value, Spec):
            continue
        for name, option in value.options.items():
            if name == "labels" and (odd := [one for one in option if one not in names]):
                raise ConfigError(
                    f"{key}.labels: {odd[0]!r} is no label" + did_you_mean(odd[0], names)
                )
            numbers = isinstance(option, tuple) and all(matches_type(one, float) for one in option)
            if numbers and option and len(option) != len(names):
                raise ConfigError(
                    f"{key}.{name} has {len(option)} numbers for {len(names)} labels: "
                    f"{', '.join(names)}"
                )


def _check_bound(key: str, value: float | int, bound: Bound) -> None:
    low, high, open_below = bound
    if not (low < value < high if open_below else low <= value < high):
        brackets = "(" if open_below else "["
        raise ConfigError(f"{key}={value!r} is out of range {brackets}{low}, {high})")


def check_spec(key: str, spec: Spec, registry: Mapping[str, Callable]) -> None:
    """Hold a Spec to a registry and that function's keyword-only options. Raises ConfigError."""
    if spec.name not in registry:
        raise ConfigError(f"{key}={spec.name!r}" + did_you_mean(spec.name, registry))
    options = options_of(registry[spec.name])
    for name, value in spec.options.items():
        if name not in options:
            raise ConfigError(
                f"{key}.{name}: {spec.name!r} has no such option" + did_you_mean(name, options)
            )
        hint = options[name].annotation
        if not matches_type(value, hint):
            raise ConfigError(f"{key}.{name}={value!r}: expected {type_name(hint)}")
        if bound := bound_of(hint):
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float):
                    _check_bound(f"{key}.{name}", number, bound)


def bound_of(hint: Any) -> Bound | None:
    """The Bound of an annotation such as `Annotated[float, Bound(0, 1)]`."""
    metadata = getattr(hint, "__metadata__", ())
    return next((item for item in metadata if isinstance(item, Bound)), None)
