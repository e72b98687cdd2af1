"""Experiments as Python source: changes to another experiment, in a file for `train --exp`."""

import ast
import contextlib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment, Spec
from jaxclf.experiment.overrides import iter_fields, override

MARK = "Written by `jaxclf tune`"
WIDTH = 100  # columns


def difference(base: Experiment, experiment: Experiment) -> dict[str, Any]:
    """The changes under dotted keys that turn `base` into `experiment`."""
    base_values, changes = dict(iter_fields(base)), {}
    for key, value in iter_fields(experiment):
        if value == base_values[key]:
            continue
        if isinstance(value, Spec):
            changes[key] = value.name
            changes.update({f"{key}.{option}": of for option, of in value.options.items()})
        else:
            changes[key] = value
    assert override(base, changes) == experiment
    return changes


def to_python_source(name: str, experiment: Experiment, first: str, notes: Sequence[str]) -> str:
    """Python source of an experiment as changes to the one that `catalog.load(name)` returns.

    first: the docstring's first sentence. notes: its further paragraphs; one that starts with four
        spaces stays a line of code.
    """
    name = name if name in catalog.names() else str(Path(name).resolve())
    changes = difference(catalog.load(name), experiment)
    docstring = "\n\n".join(map(_paragraph, (first, *notes)))
    lines = [f'"""{docstring}', '"""', "", "from jaxclf.experiment import catalog"]
    if changes:
        lines += ["from jaxclf.experiment.overrides import override", ""]
        lines += [f"base = catalog.load({_literal(name)})", ""]
        lines += ["experiment = override(", "    base,", "    {"]
        lines += [_with_noqa(f"        {_literal(k)}: {_literal(v)},") for k, v in changes.items()]
        lines += ["    },", ")"]
    else:
        lines += ["", _with_noqa(f"experiment = catalog.load({_literal(name)})")]
    return "\n".join(lines) + "\n"


def check_writable(path: Path) -> None:
    """Raise ConfigError if the file exists and no search wrote it."""
    if path.suffix != ".py":
        raise ConfigError(f"{path}: an experiment is a .py file")
    docstring = None
    if path.exists():
        with contextlib.suppress(SyntaxError, ValueError):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if MARK not in (docstring or ""):
            raise ConfigError(f"{path} exists and is not from a search; give another --save-best")


def _paragraph(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    indent = "        " if text.startswith("    ") else ""
    # The first line shares its own with the three quotes.
    return textwrap.fill(
        text, WIDTH - 3, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
    )


def _literal(value: Any) -> str:
    """A value as `ruff format` writes it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(k)}: {_literal(v)}' for k, v in value.items())}}}"
    return repr(value)


def _with_noqa(line: str) -> str:
    """Mark a line that is too long and cannot be broken, such as one with a long path."""
    return line if len(line) <= WIDTH else f"{line}  # noqa: E501"
