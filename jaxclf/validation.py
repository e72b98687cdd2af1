"""Holding an experiment to its ranges and registries, before any data is read."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxclf.config import Experiment, Spec, did_you_mean, fits, hint_of, in_words, options_of, walk
from jaxclf.errors import ConfigError

Registries = Mapping[str, Mapping[str, Callable]]


class Bound(NamedTuple):
    """A value must lie in [low, high), or in (low, high) if `open`."""

    low: float
    high: float
    open: bool = False


BOUNDS = {
    "data.max_length": Bound(4, 2**20),
    "data.max_windows": Bound(1, 2**20),
    "data.overlap": Bound(0, 2**20),
    "data.train_rows": Bound(0, 2**31),
    "encoder.dropout": Bound(0, 1),
    "encoder.attention_dropout": Bound(0, 1),
    "optim.lr": Bound(0, 1, open=True),
    "optim.decay": Bound(0, float("inf")),
    "optim.warmup": Bound(0, 1),
    "optim.clip": Bound(0, float("inf"), open=True),
    "optim.accumulate": Bound(1, 2**20),
    "optim.layer_decay": Bound(0, 2, open=True),
    "optim.reinit": Bound(0, 2**10),
    "train.epochs": Bound(1, 2**20),
    "train.batch_size": Bound(1, 2**20),
    "train.patience": Bound(0, 2**20),
    "train.checkpoint_every": Bound(1, 2**31),
    "seed": Bound(0, 2**31),
}

# The same for options of registered functions, by their names, wherever they stand.
OPTION_BOUNDS = {
    "alpha": Bound(0, 1),
    "blocks": Bound(0, 2**10),
    "cycles": Bound(1, 2**20),
    "dropout": Bound(0, 1),
    "end": Bound(0, 2),
    "gamma": Bound(0, 2**10),
    "pos_weight": Bound(0, float("inf"), open=True),
    "power": Bound(0, 2**10),
    "prior": Bound(0, float("inf")),
    "shrink": Bound(0, 2),
    "smoothing": Bound(0, 1),
    "target": Bound(0, math.nextafter(1, 2), open=True),  # 1 is allowed
    "value": Bound(0, 2),
    "width": Bound(1, 2**20),
}

CHOICES = {"encoder.dtype": ("float32", "bfloat16")}


def check(experiment: Experiment, registries: Registries) -> Experiment:
    """Hold every value to its range, every Spec to its registry and that function's keyword-only
    options.

    Returns the experiment unchanged; raises ConfigError. Reads no file.
    """
    for key, value in walk(experiment):
        hint = hint_of(experiment, key)
        if not fits(value, hint):
            raise ConfigError(f"{key}={value!r}: expected {in_words(hint)}")
        if key in BOUNDS:
            _check_bound(key, value, BOUNDS[key])
        if key in CHOICES and value not in CHOICES[key]:
            raise ConfigError(f"{key}={value!r}" + did_you_mean(value, CHOICES[key]))
        if isinstance(value, Spec) and key in registries:
            _check_spec(key, value, registries[key])
    if experiment.train.metric not in registries.get("train.metric", [experiment.train.metric]):
        metric = experiment.train.metric
        raise ConfigError(
            f"train.metric={metric!r}" + did_you_mean(metric, registries["train.metric"])
        )
    length, overlap = experiment.data.max_length, experiment.data.overlap
    # Two special tokens stand in each window, and each must bring a token that is new.
    if overlap > min(length // 2, length - 3):
        raise ConfigError("data.overlap must be at most half of data.max_length")
    return experiment


def _check_bound(key: str, value: float | int, bound: Bound) -> None:
    low, high, open_below = bound
    if not (low < value < high if open_below else low <= value < high):
        brackets = "(" if open_below else "["
        raise ConfigError(f"{key}={value!r} is out of range {brackets}{low}, {high})")


def _check_spec(key: str, spec: Spec, registry: Mapping[str, Callable]) -> None:
    if spec.name not in registry:
        raise ConfigError(f"{key}={spec.name!r}" + did_you_mean(spec.name, registry))
    options = options_of(registry[spec.name])
    for name, value in spec.options.items():
        if name not in options:
            raise ConfigError(
                f"{key}.{name}: {spec.name!r} has no such option" + did_you_mean(name, options)
            )
        if not fits(value, options[name].annotation):
            raise ConfigError(
                f"{key}.{name}={value!r}: expected {in_words(options[name].annotation)}"
            )
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int | float):
                _check_bound(f"{key}.{name}", one, OPTION_BOUNDS[name])
