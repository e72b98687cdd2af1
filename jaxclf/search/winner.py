"""The best trial of a search, written as an experiment of its own: Python source of changes to
another experiment, in a file for `train --exp`."""

import ast
import contextlib
import json
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxclf.decisions.selection import format_metric
from jaxclf.errors import ConfigError, DivergedError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import difference, override
from jaxclf.experiment.search_space import format_changes
from jaxclf.files.atomic import write_text
from jaxclf.search.study import TrialResult, find_best, initial_score

MARK = "Written by `jaxclf tune`"
WIDTH = 100  # columns


def save_winner(
    path: Path,
    name: str,
    base: Experiment,
    results: Sequence[TrialResult],
    arguments: Sequence[str],
) -> str:
    """Write the best trial as a Python file that `jaxclf train --exp` takes.

    name: of the experiment that was searched. arguments: of the search's command line.
    Returns a message: its score and that of the experiment before, its changes, how to train it.
    Raises DivergedError if no trial is done.
    """
    best = find_best(results, base.train.metric)
    if best is None:
        raise DivergedError(f"none of {len(results)} trials is done: {results[-1].error}")
    winner = override(base, best.changes)
    winner_name = path.stem if path.parent == catalog.folder() else str(path)
    command = f"jaxclf train --exp {shlex.quote(winner_name)}"
    initial = initial_score(results)
    before = "n/a before the search"
    if initial is not None:
        before = f"{initial:.4f} before the search (trial 0)"
    score = format_metric(base.train.metric, best.score or 0.0)
    summary = f"Validation {score} (trial {best.number} of "
    summary += f"{len(results)}), {before}."
    source = to_python_source(
        name,
        winner,
        f"The {catalog.file_of(name).stem} experiment with the best parameters of a search.",
        (
            f"    {command}",
            f"{summary} The best score of many trials is optimistically biased, and the search did "
            "not score the test split: train this experiment to get its test score.",
            f"{MARK}, which may overwrite it:",
            f"    jaxclf tune {shlex.join(arguments)}",
        ),
    )
    write_text(path, source)
    changes = format_changes(difference(base, winner)) or "no change to the experiment is better"
    return f"{summary}\n{changes}\nwritten: {path}; to train it:\n  {command}"


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
