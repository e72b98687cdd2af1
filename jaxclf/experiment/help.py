"""The keys of an experiment as text: each with its value and description, grouped by part."""

import itertools
import json
import textwrap
from collections.abc import Iterator
from typing import Any

from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.experiment.overrides import hint_of, iter_fields
from jaxclf.experiment.registries import REGISTRIES, signatures

WIDTH = 100  # columns


def format_config(experiment: Any) -> Iterator[str]:
    """Yield `key = value  # description` of every key, as a command line would set it."""
    lines = []
    for key, value in iter_fields(experiment):
        lines.append((_setting(key, value), description_of(experiment, key)))
        for name, option in value.options.items() if isinstance(value, Spec) else ():
            lines.append((f"{key}.{name} = {json.dumps(option)}", ""))
    width = min(max(len(setting) for setting, _ in lines), WIDTH // 2)
    for setting, description in lines:
        yield f"{setting:<{width}}  # {description}" if description else setting


def describe_keys() -> str:
    """Every key with its default and description, and the names that it may take."""
    defaults = Experiment(Data("", "", ""))
    paragraphs = ["keys, with the value they have unless the experiment sets another:"]
    for name, fields in itertools.groupby(
        iter_fields(defaults), lambda field: field[0].partition(".")[0]
    ):
        lines = []
        for key, default in fields:
            if key != name and not lines:
                lines.append(f"{name}: {getattr(defaults, name).__doc__}")
            lines.append(f"  {_setting(key, default):<48}{description_of(defaults, key)}")
            if key in REGISTRIES:
                names = textwrap.fill(", ".join(signatures(key)), WIDTH - 6)
                lines.append(textwrap.indent(names, " " * 6))
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def description_of(values: Any, key: str) -> str:
    """The description in the annotation of a field."""
    metadata = getattr(hint_of(values, key), "__metadata__", ())
    return next((item for item in metadata if isinstance(item, str)), "")


def _setting(key: str, value: Any) -> str:
    return f"{key} = {value.name if isinstance(value, Spec) else json.dumps(value)}"
