"""The catalog: experiments by name, from a .py file, or from a run's config.json."""

import runpy
from pathlib import Path
from typing import Any

from jaxclf.errors import ConfigError, did_you_mean
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import from_dict
from jaxclf.experiment.search_space import Dimension, Space
from jaxclf.files.json_file import read_json

DEFAULT = "recommended"  # the experiment of commands that get no --exp

PACKAGE = Path(__file__).parent.parent
# Raised by a mistake in an experiment's file.
MISTAKES = (SyntaxError, ImportError, NameError, TypeError, ValueError, AttributeError, LookupError)


def folder() -> Path:
    """The folder experiments/: inside an installed package, beside the package in a checkout."""
    installed = PACKAGE / "experiments"
    return installed if installed.is_dir() else PACKAGE.parent / "experiments"


def names() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.py"))


def load(name: str) -> Experiment:
    """Load the experiment of a name, a .py path or a config.json. Raises ConfigError, DataError."""
    path = Path(name)
    if path.suffix == ".json":
        values = read_json(path)
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: not a JSON object")
        try:
            return from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    path = file_of(name)
    experiment = _run_file(path).get("experiment")
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{path}: missing `experiment = Experiment(…)`")
    return experiment


def load_space(name: str) -> Space:
    """Load the search space beside the experiment of a name or .py path. Raises ConfigError."""
    if name.endswith(".json"):
        raise ConfigError(f"{name}: a run has no search space; give its experiment")
    path = file_of(name)
    space = _run_file(path).get("space")
    if not isinstance(space, dict) or not space:
        raise ConfigError(
            f"{path}: missing search space, such as "
            'space = {"optim.lr": Float(1e-5, 5e-4, log=True)}'
        )
    for key, dimension in space.items():
        if not isinstance(key, str) or not isinstance(dimension, Dimension):
            raise ConfigError(f"{path}: space: {key!r} is not a Float, Int or Choice")
    return space


def file_of(name: str) -> Path:
    """The path of the experiment of a name or .py path. Raises ConfigError if it is missing."""
    path = Path(name)
    if path.suffix != ".py":
        path = folder() / f"{name}.py"
        if name not in names():
            raise ConfigError(f"unknown experiment {name!r}{did_you_mean(name, names())}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    return path


def _run_file(path: Path) -> dict[str, Any]:
    """The variables that a Python file defines."""
    try:
        return runpy.run_path(str(path), run_name=f"experiment_{path.stem}")
    except MISTAKES as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
