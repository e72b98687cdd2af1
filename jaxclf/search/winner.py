"""The best trial of a search, written as an experiment of its own."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from jaxclf.errors import DivergedError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override
from jaxclf.experiment.search_space import format_changes
from jaxclf.experiment.source import MARK, difference, to_python_source
from jaxclf.files.atomic import write_text
from jaxclf.search.study import TrialResult, find_best, initial_score


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
    best = find_best(results)
    if best is None:
        raise DivergedError(f"none of {len(results)} trials is done: {results[-1].error}")
    winner = override(base, best.changes)
    winner_name = path.stem if path.parent == catalog.folder() else str(path)
    command = f"jaxclf train --exp {shlex.quote(winner_name)}"
    initial = initial_score(results)
    before = "n/a before the search"
    if initial is not None:
        before = f"{initial:.4f} before the search (trial 0)"
    summary = f"Validation {base.train.metric} {best.score:.4f} (trial {best.number} of "
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
