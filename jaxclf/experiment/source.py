"""An experiment as a file that reads "this one, but …" and that `train --exp` takes."""

import ast
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment, Spec
from jaxclf.experiment.overrides import iter_fields, override

MARK = "Written by jaxclf.tune"
WIDTH = 100  # columns


def difference(base: Experiment, other: Experiment) -> dict[str, Any]:
    """The changes under dotted keys that make `other` of `base`."""
    before, changes = dict(iter_fields(base)), {}
    for key, value in iter_fields(other):
        if value == before[key]:
            continue
        if isinstance(value, Spec):
            changes[key] = value.name
            changes.update({f"{key}.{option}": of for option, of in value.options.items()})
        else:
            changes[key] = value
    assert override(base, changes) == other
    return changes


def to_python_source(name: str, experiment: Experiment, first: str, notes: Sequence[str]) -> str:
    """Python source of an experiment as changes to the one that `catalog.load(name)` gives.

    first: the docstring's first sentence. notes: its paragraphs after that; one that begins with
        four spaces stays a line of code.
    """
    name = name if name in catalog.names() else str(Path(name).resolve())
    changes = difference(catalog.load(name), experiment)
    docstring = "\n\n".join(_paragraph(text) for text in (first, *notes))
    lines = [f'"""{docstring}', '"""', "", "from jaxclf.experiment import catalog"]
    if changes:
        lines += ["from jaxclf.experiment.overrides import override", ""]
        lines += [f"base = catalog.load({_literal(name)})", ""]
        lines += ["experiment = override(", "    base,", "    {"]
        lines += [_noted(f"        {_literal(k)}: {_literal(v)},") for k, v in changes.items()]
        lines += ["    },", ")"]
    else:
        lines += ["", _noted(f"experiment = catalog.load({_literal(name)})")]
    return "\n".join(lines) + "\n"


def check_writable(path: Path) -> None:
    """ConfigError where there is a file that a search did not write."""
    if path.suffix != ".py":
        raise ConfigError(f"{path}: an experiment is a .py file")
    if path.exists() and not _written_here(path):
        raise ConfigError(
            f"{path} is not from a search and is left alone; give another --save-best"
        )


def _written_here(path: Path) -> bool:
    try:
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (SyntaxError, ValueError):
        return False
    return MARK in (said or "")


def _paragraph(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    code = text.startswith("    ")
    # The first line shares its own with the three quotes.
    wide, after = WIDTH - 3, "        " if code else ""
    kept = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": after}
    return textwrap.fill(text, wide, **kept)


def _literal(value: Any) -> str:
    """As `ruff format` writes it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(k)}: {_literal(v)}' for k, v in value.items())}}}"
    return repr(value)


def _noted(line: str) -> str:
    """A line that cannot be broken, such as one with a long path."""
    return line if len(line) <= WIDTH else f"{line}  # noqa: E501"
