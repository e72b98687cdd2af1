"""Checking an experiment against its bounds and registries, before any data is read."""

from collections.abc import Container, Sequence
from typing import Any

from jaxclf.errors import ConfigError, did_you_mean
from jaxclf.experiment.config import Experiment, Spec
from jaxclf.experiment.overrides import hint_of, iter_fields, matches_type, options_of, type_error
from jaxclf.experiment.registries import REGISTRIES, load_registry
from jaxclf.types import Bound


def check(experiment: Experiment, specs: Container[str] = REGISTRIES) -> Experiment:
    """Check every value against its type and Bound, every Spec against its registry.

    specs: keys to check against their registries, whose modules are imported.
    Returns the experiment unchanged; raises ConfigError. Reads no file.
    """
    for key, value in iter_fields(experiment):
        check_value(key, value, hint_of(experiment, key))
        if isinstance(value, Spec) and key in specs:
            check_spec(key, value)
    metric = experiment.train.metric
    if "train.metric" in specs and metric not in (metrics := load_registry("train.metric")):
        raise ConfigError(f"train.metric={metric!r}{did_you_mean(metric, metrics)}")
    max_length, overlap = experiment.data.max_length, experiment.data.window_overlap
    if 0 < max_length < 4:
        raise ConfigError(f"data.max_length={max_length} must be 0 or at least 4")
    # Two tokens of a window are special, and each window must add a token.
    if max_length and overlap > min(max_length // 2, max_length - 3):
        raise ConfigError(
            f"data.window_overlap={overlap} must be at most half of data.max_length={max_length}"
        )
    folds, fold = experiment.data.folds, experiment.data.fold
    if folds == 1 or fold >= max(folds, 1):
        raise ConfigError(
            f"data.folds={folds}, data.fold={fold}: data.folds must be 0 or at least 2, and "
            "data.fold below it"
        )
    return experiment


def check_spec(key: str, spec: Spec) -> None:
    """Check a name against the registry of its key, and its options against the function's
    keyword-only parameters. Raises ConfigError."""
    registry = load_registry(key)
    if spec.name not in registry:
        raise ConfigError(f"{key}={spec.name!r}{did_you_mean(spec.name, registry)}")
    options = options_of(registry[spec.name])
    for name, value in spec.options.items():
        if name not in options:
            nearest = did_you_mean(name, options) if options else "; it has no options"
            raise ConfigError(f"{key}.{name}: unknown option {name!r} of {spec.name!r}{nearest}")
        check_value(f"{key}.{name}", value, options[name].annotation)


def check_labels(values: Any, labels: Sequence[str]) -> None:
    """Check options that name labels, or hold a number per label, against the labels of the data.

    values: an Experiment or another dataclass with Specs. Raises ConfigError.
    """
    for key, spec in iter_fields(values):
        for name, option in spec.options.items() if isinstance(spec, Spec) else ():
            unknown = [label for label in option if label not in labels] if name == "labels" else []
            if unknown:
                raise ConfigError(
                    f"{key}.{name}: unknown label {unknown[0]!r}{did_you_mean(unknown[0], labels)}"
                )
            is_numbers = isinstance(option, tuple) and all(matches_type(n, float) for n in option)
            if is_numbers and option and len(option) != len(labels):
                raise ConfigError(
                    f"{key}.{name} has {len(option)} numbers for {len(labels)} labels: "
                    f"{', '.join(labels)}"
                )


def check_value(key: str, value: Any, hint: Any) -> None:
    """Check a value against its type and Bound. Raises ConfigError."""
    if not matches_type(value, hint):
        raise type_error(key, value, hint)
    for bound in getattr(hint, "__metadata__", ()):
        if isinstance(bound, Bound):
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float) and not bound.contains(number):
                    raise ConfigError(f"{key}={number!r} is out of range {bound}")
