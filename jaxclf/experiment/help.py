"""The keys of an experiment as text: each with its value and description, grouped by part."""

import dataclasses
import json
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.experiment.overrides import hint_of, iter_fields
from jaxclf.experiment.registries import REGISTRIES, signatures

WIDTH = 100  # columns


def format_config(experiment: Any) -> Iterator[str]:
    """Yield `key = value  # description` of every key, as a command line would set it."""
    lines = list(_lines(experiment))
    width = min(max(len(setting) for setting, _ in lines), WIDTH // 2)
    for setting, description in lines:
        yield f"{setting:<{width}}  # {description}" if description else setting


def describe_keys() -> str:
    """Every key with its default and description, and the names that it may take."""
    defaults = Experiment(Data("", "", ""))
    paragraphs = ["keys, with the value they have unless the experiment sets another:"]
    for part in dataclasses.fields(defaults):
        value = getattr(defaults, part.name)
        is_part = dataclasses.is_dataclass(value) and not isinstance(value, Spec)
        prefix = f"{part.name}." if is_part else part.name
        lines = [f"{part.name}: {type(value).__doc__}"] if is_part else []
        for key, default in iter_fields(defaults):
            if key.startswith(prefix) if is_part else key == prefix:
                lines += _describe_key(defaults, key, default)
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _describe_key(defaults: Experiment, key: str, default: Any) -> Iterator[str]:
    yield f"  {_setting(key, default):<48}{description_of(defaults, key)}"
    if key in REGISTRIES:
        names = ", ".join(signatures(key))
        yield textwrap.fill(names, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def description_of(values: Any, key: str) -> str:
    """The description in the annotation of a field."""
    hint = hint_of(values, key)
    metadata = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    return next((item for item in metadata if isinstance(item, str)), "")


def _lines(experiment: Any) -> Iterator[tuple[str, str]]:
    for key, value in iter_fields(experiment):
        yield _setting(key, value), description_of(experiment, key)
        if isinstance(value, Spec):
            for name, option in value.options.items():
                yield f"{key}.{name} = {json.dumps(option)}", ""


def _setting(key: str, value: Any) -> str:
    return f"{key} = {value.name if isinstance(value, Spec) else json.dumps(value)}"
