"""Changing an experiment under dotted keys, and its way to JSON and back."""

import dataclasses
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from jaxclf.errors import ConfigError, did_you_mean
from jaxclf.experiment.config import Data, Experiment, Spec

OTHER_FILES = {"data.val": "", "data.test": "", "data.split": ""}  # of one training file

# An experiment, or another frozen dataclass of values, Specs and parts.
Values = TypeVar("Values")


def iter_fields(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every field; a Spec is one value."""
    for part in dataclasses.fields(values):
        value = getattr(values, part.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, Spec):
            yield from ((f"{part.name}.{key}", inner) for key, inner in iter_fields(value))
        else:
            yield part.name, value


def hint_of(values: Any, key: str) -> Any:
    """The annotation of a field, with its Bound and description."""
    head, _, tail = key.partition(".")
    if tail:
        return hint_of(getattr(values, head), tail)
    return typing.get_type_hints(type(values), include_extras=True)[head]


def matches_type(value: Any, hint: Any) -> bool:
    """Whether a value from JSON has a type; int passes for float, a list for a tuple."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return matches_type(value, arguments[0])
    if origin in (types.UnionType, typing.Union):
        return any(matches_type(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(
            matches_type(item, arguments[0]) for item in value
        )
    if origin is dict:
        return isinstance(value, dict) and all(
            matches_type(k, arguments[0]) and matches_type(v, arguments[1])
            for k, v in value.items()
        )
    if origin is Literal:
        return value in arguments
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, type(None) if hint is None else hint)


def type_error(key: str, value: Any, hint: Any) -> ConfigError:
    """The error for a value that does not have the annotated type."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is Literal:
        return ConfigError(f"{key}={value!r}{did_you_mean(str(value), typing.get_args(hint))}")
    if typing.get_origin(hint) is tuple:
        return ConfigError(f'{key}={value!r}: expected a list, such as {key}=\'["a", "b"]\'')
    name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return ConfigError(f"{key}={value!r}: expected {name}")


def _coerce(key: str, value: Any, hint: Any) -> Any:
    """The value as the field holds it. Raises ConfigError for another type."""
    plain = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if plain is Spec:
        if isinstance(value, Spec):
            return value
        if isinstance(value, str):
            return Spec(value)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return Spec(value["name"], **{k: v for k, v in value.items() if k != "name"})
    elif typing.get_origin(plain) is tuple and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    elif matches_type(value, plain):
        if typing.get_origin(plain) is tuple:
            return tuple(value)
        if plain is not float:
            return value
        if isinstance(value, float) or abs(value) <= sys.float_info.max:
            return float(value)
    raise type_error(key, value, plain)


def override(values: Values, changes: Mapping[str, Any]) -> Values:
    """Replace values under dotted keys: `{"loss.gamma": 3.0, "pool": "mean_max"}`.

    Naming a Spec (`loss=bce`) drops the options of the previous one; `loss.gamma=3` adds to them.
    Naming `data.train` drops the other files of the previous data.
    Raises ConfigError for an unknown key or a value of another type.
    """
    if "data.train" in changes and isinstance(values, Experiment):
        changes = {**OTHER_FILES, **changes}
    for key, value in changes.items():
        fields = dict(iter_fields(values))
        parent, _, option = key.rpartition(".")
        if isinstance(spec := fields.get(parent), Spec):
            values = _replace(values, parent, Spec(spec.name, **{**spec.options, option: value}))
        elif key in fields:
            values = _replace(values, key, _coerce(key, value, hint_of(values, key)))
        else:
            raise _unknown_key(key, fields)
    return values


def difference(base: Experiment, experiment: Experiment) -> dict[str, Any]:
    """The changes under dotted keys that turn `base` into `experiment`."""
    base_values, changes = dict(iter_fields(base)), {}
    for key, value in iter_fields(experiment):
        if value == base_values[key] and not (key in OTHER_FILES and "data.train" in changes):
            continue
        if isinstance(value, Spec):
            changes[key] = value.name
            changes.update({f"{key}.{option}": of for option, of in value.options.items()})
        else:
            changes[key] = value
    assert override(base, changes) == experiment
    return changes


def _unknown_key(key: str, fields: Mapping[str, Any]) -> ConfigError:
    """Suggest the field with the same last part (`lr` for `optim.lr`), else the nearest key."""
    same_ending = [field for field in fields if field.rpartition(".")[2] == key]
    nearest = f"; did you mean {same_ending[0]!r}?" if same_ending else did_you_mean(key, fields)
    return ConfigError(f"unknown key {key!r}{nearest}")


def _replace(values: Any, key: str, value: Any) -> Any:
    head, _, tail = key.partition(".")
    if tail:
        value = _replace(getattr(values, head), tail, value)
    return dataclasses.replace(values, **{head: value})


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`["loss.gamma=3", "pool=mean_max"]` -> values: parsed where they are JSON, else strings.

    A number is a string under a key that takes strings: a folder may be called 2024.
    """
    changes = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not of the form key=value, such as train.epochs=1")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        is_literal = not isinstance(value, str | list | dict)
        changes[key] = text if is_literal and _takes_strings(key) else value
    return changes


def _takes_strings(key: str) -> bool:
    """Whether a key of an experiment takes a string or a list of strings."""
    blank = Experiment(Data("", "", ""))
    if key not in dict(iter_fields(blank)):
        return False
    hint = hint_of(blank, key)
    return matches_type("", hint) or matches_type([""], hint)


def options_of(function: Callable) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a registered function: its signature is the schema."""
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def to_dict(values: Any) -> dict[str, Any]:
    """Plain JSON values; a Spec becomes `{"name": …, option: …}`."""

    def plain(value: Any) -> Any:
        if isinstance(value, Spec):
            return {"name": value.name, **{k: plain(v) for k, v in value.options.items()}}
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else value

    return plain(values)


def from_dict(values: Mapping[str, Any]) -> Experiment:
    """The inverse of `to_dict`.

    A missing key has its default, so that a run of an earlier 0.x version keeps its meaning when
    keys are added. Raises ConfigError for an unknown key and for a missing data file.
    """
    if "regular" in values:  # every config.json of 0.1 has it
        raise ConfigError(
            "written by jaxclf 0.1, whose keys this version does not read; train again, or rename "
            "the keys as CHANGELOG.md lists them"
        )
    blank = Experiment(Data("", "", ""))
    fields, changes = dict(iter_fields(blank)), {}
    for head, value in values.items():
        part = getattr(blank, head, None)
        is_part = dataclasses.is_dataclass(part) and not isinstance(part, Spec)
        if is_part and not isinstance(value, Mapping):
            raise ConfigError(f"{head}={value!r}: expected an object")
        changes |= {f"{head}.{tail}": v for tail, v in value.items()} if is_part else {head: value}
    for key in changes:
        if key not in fields:
            raise _unknown_key(key, fields)
    for key in ("data.train", "data.val", "data.test"):
        if key not in changes:
            raise ConfigError(f"missing key {key!r}")
    return override(blank, changes)
