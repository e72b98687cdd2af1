"""A search space as data: which keys of an experiment may vary, and within what.

    space = {
        "optim.lr": Float(1e-5, 5e-4, log=True),
        "train.epochs": Int(2, 6),
        "pool": Choice("cls", "mean"),
        "loss": Choice("bce", Spec("focal", gamma=Float(0.5, 4.0))),
    }

The keys are those of `override`. A Spec in a Choice may have dimensions for options: they are drawn
where it is drawn, so `loss.gamma` varies with focal loss alone. A dimension's name is its key, that
of an option `loss.focal.gamma`, since another loss may have a gamma of another kind.
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
    """A number in [low, high]; `log` draws its logarithm evenly."""

    low: float
    high: float
    log: bool = False


class Int(NamedTuple):
    """A whole number in [low, high]."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values, each with a name of its own."""

    values: dict[Any, Any]  # by their names: a Spec's name, any other value itself

    def __init__(self, *values: Any):
        named = {value.name if isinstance(value, Spec) else value: value for value in values}
        if len(named) < len(values):
            raise ConfigError(f"Choice{values!r}: two of one name")
        object.__setattr__(self, "values", named)


Dimension = Float | Int | Choice
Space = dict[str, Dimension]
ParamValues = dict[str, Any]  # name of a dimension -> number, or name of a value

# What no search may vary, and why not.
MEASURE = "train val test labels max_train_examples folds fold".split()
NOT_SEARCHABLE = {
    **dict.fromkeys(
        [*(f"data.{name}" for name in MEASURE), "train.metric"],
        "trials would be scored by different measures",
    ),
    **dict.fromkeys(
        ("data.label_descriptions", "encoder.revision", "train.checkpoint_every"),
        "it changes no score",
    ),
    **dict.fromkeys(
        ("calibration", "threshold"),
        "it is fitted after training, on what a search scores; see jaxclf.evaluate",
    ),
    "train.patience": "stopping later never lowers the score of the best epoch",
    "seed": "its luck on validation would be searched for",
}


def draw(space: Space, suggest: Callable[[str, Dimension], Any]) -> dict[str, Any]:
    """Changes for `override`, as `suggest(name, dimension)` answers: a number of a Float or Int, a
    value's name of a Choice."""
    changes = {}
    for key, dimension in space.items():
        changes[key] = suggest(key, dimension)
        for option, value in _options(dimension, changes[key]).items():
            name = f"{key}.{changes[key]}.{option}"
            varies = isinstance(value, Dimension)
            changes[f"{key}.{option}"] = suggest(name, value) if varies else value
    return changes


def dimensions(space: Space) -> Space:
    """All dimensions by their names, those of options after the Choice they hang on."""
    found = {}
    for key, dimension in space.items():
        found[key] = dimension
        for name in dimension.values if isinstance(dimension, Choice) else ():
            for option, value in _options(dimension, name).items():
                if isinstance(value, Dimension):
                    found[f"{key}.{name}.{option}"] = value
    return found


def check_space(
    space: Space, base: Experiment, check: Callable[[Experiment], object]
) -> ParamValues:
    """Hold a space to its experiment, before any trial: what `check` says of every pair of corner
    values, that each dimension can have an effect, and that the experiment lies in it.

    Returns the answers that are the experiment as it stands. Raises ConfigError.
    """
    check(base)
    for key in space:
        parent = key.rpartition(".")[0]
        if reason := NOT_SEARCHABLE.get(key):
            raise ConfigError(f"space: {key} cannot be searched: {reason}")
        if parent in space:
            raise ConfigError(
                f"space: {key} hangs on what {parent} is; make it an option of a Spec there, such "
                'as Choice("bce", Spec("focal", gamma=Float(0.5, 4.0)))'
            )
    for name, dimension in dimensions(space).items():
        _check_dimension(name, dimension)
    # With a corner that changes nothing, the pairs are each corner alone too.
    corners = [[{}], *(list(_corners(key, dimension)) for key, dimension in space.items())]
    for some in itertools.combinations(corners, 2):
        for one, other in itertools.product(*some):
            changes = {**one, **other}
            try:
                check(override(base, changes))
            except ConfigError as error:
                raise ConfigError(f"space: {format_changes(changes)}: {error}") from None
    return _answers_of(space, base)


def format_changes(changes: Mapping[str, Any]) -> str:
    """`optim.lr=0.00031 loss=focal loss.gamma=2.5`: as a command line has it, numbers rounded."""
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
            raise ConfigError(f"space: {name} has no two values to choose from")
        for value in dimension.values:
            if not isinstance(value, str | int | float | None):
                raise ConfigError(f"space: {name}: {value!r} is no string, number or Spec")
        return
    low, high, log = dimension
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    if not numbers or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"space: {name}: {dimension} is no range from low to high")
    if log and low <= 0:
        raise ConfigError(f"space: {name}: {dimension}: a logarithm wants low above 0")


def _corners(key: str, dimension: Dimension) -> Iterator[dict[str, Any]]:
    """Changes of one key at the ends of its ranges."""
    for answer in _ends(dimension):
        inner = {
            f"{key}.{answer}.{option}": _ends(value)
            for option, value in _options(dimension, answer).items()
            if isinstance(value, Dimension)
        }
        for ends in itertools.product(*inner.values()):
            answers = {key: answer, **dict(zip(inner, ends, strict=True))}
            yield draw({key: dimension}, lambda name, _, answers=answers: answers[name])


def _ends(dimension: Dimension) -> list[Any]:
    return list(dimension.values) if isinstance(dimension, Choice) else [*dimension[:2]]


def _answers_of(space: Space, base: Experiment) -> ParamValues:
    answers = {}
    for key, dimension in space.items():
        value = _value_at(base, key)
        if isinstance(dimension, Choice):
            answers[key] = _name_of(key, dimension, value, base)
        else:
            answers[key] = _inside(key, dimension, value)
        if not isinstance(value, Spec):
            continue
        has = _whole(value, key)
        wants = _whole(Spec(value.name), key) | _options(dimension, value.name)
        for option, wanted in wants.items():
            if isinstance(wanted, Dimension):
                name = f"{key}.{value.name}.{option}"
                answers[name] = _inside(f"{key}.{option}", wanted, has[option])
            elif has[option] != wanted:
                raise _outside(f"{key}.{option}", has[option])
    return answers


def _name_of(key: str, choice: Choice, value: Any, base: Experiment) -> Any:
    """Of the value that the experiment has."""
    for name in choice.values:
        same = (
            name == value.name if isinstance(value, Spec) else override(base, {key: name}) == base
        )
        if same:
            return name
    raise _outside(key, value.name if isinstance(value, Spec) else value)


def _inside(key: str, dimension: Dimension, value: Any) -> Any:
    if isinstance(dimension, Choice):
        within = value in dimension.values
    else:
        within = isinstance(value, int | float) and dimension.low <= value <= dimension.high
    if not within:
        raise _outside(key, value)
    return value


def _outside(key: str, value: Any) -> ConfigError:
    return ConfigError(
        f"space: {key}={value!r} of the experiment is not in it; a search begins with what stands"
    )


def _value_at(base: Experiment, key: str) -> Any:
    """The value of a key, an option of a Spec among them."""
    values, (parent, _, option) = dict(iter_fields(base)), key.rpartition(".")
    if isinstance(values.get(parent), Spec):
        return _whole(values[parent], parent)[option]
    return values[key]


def _whole(spec: Spec, key: str) -> dict[str, Any]:
    """A Spec's options and the defaults of those it does not give."""
    parameters = options_of(load_registry(key)[spec.name])
    return {name: spec.options.get(name, of.default) for name, of in parameters.items()}
