"""Search spaces: the keys of an experiment that a search varies, and their ranges.

    space = {
        "optim.lr": Float(1e-5, 5e-4, log=True),
        "train.epochs": Int(2, 6),
        "pool": Choice("cls", "mean"),
        "loss": Choice("bce", Spec("focal", gamma=Float(0.5, 4.0))),
    }

The keys are those of `override`. The options of a Spec in a Choice may be dimensions too, which are
drawn only with that Spec: `loss.gamma` varies with focal loss alone. A dimension's name is its key,
or for an option `loss.focal.gamma`, since another loss may have a different gamma.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Experiment, Spec
from jaxclf.experiment.overrides import iter_fields, options_of, override
from jaxclf.experiment.registries import load_registry


class Float(NamedTuple):
    """A number in [low, high]; `log` samples its logarithm uniformly."""

    low: float
    high: float
    log: bool = False


class Int(NamedTuple):
    """An integer in [low, high]."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values with different names."""

    values: dict[Any, Any]  # by name: a Spec's name, otherwise the value itself

    def __init__(self, *values: Any):
        named = {value.name if isinstance(value, Spec) else value: value for value in values}
        if len(named) < len(values):
            raise ConfigError(f"Choice{values!r}: duplicate name")
        object.__setattr__(self, "values", named)


Dimension = Float | Int | Choice
Space = dict[str, Dimension]
ParamValues = dict[str, Any]  # name of a dimension -> number, or name of a value

# Keys that a search must not vary, and the reason.
MEASURE = "train val test labels max_train_examples train_share folds fold".split()
NOT_SEARCHABLE = {
    **dict.fromkeys(
        [*(f"data.{name}" for name in MEASURE), "train.metric", "train.init_from"],
        "the scores of trials would not be comparable",
    ),
    **dict.fromkeys(
        ("data.label_descriptions", "encoder.revision", "train.checkpoint_every"),
        "it changes no score",
    ),
    **dict.fromkeys(
        ("calibration", "threshold"),
        "it is fitted after training on the split that scores the trials; see `jaxclf evaluate`",
    ),
    "train.patience": "stopping later never lowers the score of the best epoch",
    "seed": "it would overfit the validation split",
}


def draw(space: Space, suggest: Callable[[str, Dimension], Any]) -> dict[str, Any]:
    """Draw changes for `override`.

    suggest: maps the name of a dimension and the dimension to a number, or to a name of a Choice.
    """
    changes = {}
    for key, dimension in space.items():
        changes[key] = suggest(key, dimension)
        for option, value in _options(dimension, changes[key]).items():
            name = f"{key}.{changes[key]}.{option}"
            is_drawn = isinstance(value, Dimension)
            changes[f"{key}.{option}"] = suggest(name, value) if is_drawn else value
    return changes


def dimensions(space: Space) -> Space:
    """All dimensions by name, those of options after their Choice."""
    by_name = {}
    for key, dimension in space.items():
        by_name[key] = dimension
        for name in dimension.values if isinstance(dimension, Choice) else ():
            for option, value in _options(dimension, name).items():
                if isinstance(value, Dimension):
                    by_name[f"{key}.{name}.{option}"] = value
    return by_name


def check_space(
    space: Space, base: Experiment, check: Callable[[Experiment], object]
) -> ParamValues:
    """Check a space against its experiment before any trial.

    check: raises ConfigError for an invalid experiment; called with every pair of range ends.
    Returns the experiment's own point of the space. Raises ConfigError if a dimension cannot have
    an effect or the experiment is outside the space.
    """
    check(base)
    for key in space:
        parent = key.rpartition(".")[0]
        if reason := NOT_SEARCHABLE.get(key):
            raise ConfigError(f"space: {key} cannot be searched: {reason}")
        if parent in space:
            raise ConfigError(
                f"space: {key} depends on {parent}; make it an option of a Spec there, such as "
                'Choice("bce", Spec("focal", gamma=Float(0.5, 4.0)))'
            )
    for name, dimension in dimensions(space).items():
        _check_dimension(name, dimension)
    # The empty change pairs every end with the unchanged experiment.
    ends = [[{}], *(list(_end_changes(key, dimension)) for key, dimension in space.items())]
    for left_ends, right_ends in itertools.combinations(ends, 2):
        for left, right in itertools.product(left_ends, right_ends):
            changes = {**left, **right}
            try:
                check(override(base, changes))
            except ConfigError as error:
                raise ConfigError(f"space: {format_changes(changes)}: {error}") from None
    return _point_of(space, base)


def format_changes(changes: Mapping[str, Any]) -> str:
    """`optim.lr=0.00031 loss=focal loss.gamma=2.5`: as on a command line, numbers rounded."""
    return " ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in changes.items()
    )


def _options(dimension: Dimension, name: Any) -> dict[str, Any]:
    value = dimension.values[name] if isinstance(dimension, Choice) else None
    return value.options if isinstance(value, Spec) else {}


def _check_dimension(name: str, dimension: Dimension) -> None:
    if isinstance(dimension, Choice):
        if len(dimension.values) < 2:
            raise ConfigError(f"space: {name}: a Choice needs at least two values")
        for value in dimension.values:
            if not isinstance(value, str | int | float | None):
                raise ConfigError(f"space: {name}: {value!r} is not a string, number or Spec")
        return
    low, high, log = dimension
    is_numeric = isinstance(low, int | float) and isinstance(high, int | float)
    if not is_numeric or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"space: {name}: {dimension} is not a range: low must be below high")
    if log and low <= 0:
        raise ConfigError(f"space: {name}: {dimension}: a log scale needs low > 0")


def _end_changes(key: str, dimension: Dimension) -> Iterator[dict[str, Any]]:
    """Yield changes of one key at the ends of its ranges."""
    for value in _ends(dimension):
        inner = {
            f"{key}.{value}.{option}": _ends(inner_dimension)
            for option, inner_dimension in _options(dimension, value).items()
            if isinstance(inner_dimension, Dimension)
        }
        for ends in itertools.product(*inner.values()):
            point = {key: value, **dict(zip(inner, ends, strict=True))}
            yield draw({key: dimension}, lambda name, _, point=point: point[name])


def _ends(dimension: Dimension) -> list[Any]:
    return list(dimension.values) if isinstance(dimension, Choice) else [*dimension[:2]]


def _point_of(space: Space, base: Experiment) -> ParamValues:
    """The values of the experiment itself, by name of the dimension."""
    point, values = {}, dict(iter_fields(base))
    for key, value in iter_fields(base):
        for option, inner in _all_options(value, key).items() if isinstance(value, Spec) else ():
            values[f"{key}.{option}"] = inner
    for key, dimension in space.items():
        value = values[key]
        name = value.name if isinstance(value, Spec) else value
        if isinstance(dimension, Choice) and not isinstance(value, Spec):
            # A Choice may hold the same value in another form: "a, b" for ("a", "b").
            equal = (name for name in dimension.values if override(base, {key: name}) == base)
            name = next(equal, value)
        point[key] = _require_inside(key, dimension, name)
        if isinstance(value, Spec):
            options = _all_options(value, key)
            expected = _all_options(Spec(value.name), key) | _options(dimension, value.name)
            for option, inner in expected.items():
                _require_inside(f"{key}.{option}", inner, options[option])
                if isinstance(inner, Dimension):
                    point[f"{key}.{value.name}.{option}"] = options[option]
    return point


def _require_inside(key: str, dimension: Any, value: Any) -> Any:
    """Return the value if a dimension, or else a fixed value, includes it. Raises ConfigError."""
    if isinstance(dimension, Choice):
        is_inside = value in dimension.values
    elif isinstance(dimension, Float | Int):
        is_inside = isinstance(value, int | float) and dimension.low <= value <= dimension.high
    else:
        is_inside = value == dimension
    if not is_inside:
        raise ConfigError(
            f"space: {key}={value!r} of the experiment is outside the space; the first trial is "
            "the experiment itself"
        )
    return value


def _all_options(spec: Spec, key: str) -> dict[str, Any]:
    """The options of a Spec, defaults included."""
    parameters = options_of(load_registry(key)[spec.name])
    return {name: spec.options.get(name, of.default) for name, of in parameters.items()}
