"""Experiments by name: a file of experiments/, any .py file, or a run's config.json."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from jaxclf.errors import ConfigError, did_you_mean
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import from_dict
from jaxclf.experiment.search_space import Dimension, Space

PACKAGE = Path(__file__).parent.parent
# What a slip in an experiment's file raises.
PROGRAMMING = (
    SyntaxError,
    ImportError,
    NameError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
)


def folder() -> Path:
    """The catalogue: experiments/ inside an installed package, beside the package in a checkout."""
    installed = PACKAGE / "experiments"
    return installed if installed.is_dir() else PACKAGE.parent / "experiments"


def names() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.py"))


def load(name: str) -> Experiment:
    """The experiment of a name, a .py path or a config.json; ConfigError where there is none."""
    path = Path(name)
    if path.suffix == ".json":
        return _from_json(path)
    module = _module(name)
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ConfigError(f"{module.__file__}: defines no `experiment = Experiment(…)`")
    return experiment


def load_space(name: str) -> Space:
    """The search space beside the experiment of a name or .py path; ConfigError where there is
    none."""
    if name.endswith(".json"):
        raise ConfigError(f"{name}: a run has no search space; give its experiment")
    module = _module(name)
    space = getattr(module, "space", None)
    if not isinstance(space, dict) or not space:
        raise ConfigError(
            f"{module.__file__}: the experiment has no search space; define one, such as "
            'space = {"optim.lr": Float(1e-5, 5e-4, log=True)}'
        )
    for key, dimension in space.items():
        if not isinstance(key, str) or not isinstance(dimension, Dimension):
            raise ConfigError(f"{module.__file__}: space: {key!r} is no Float, Int or Choice")
    return space


def file_of(name: str) -> Path:
    """Where the experiment of a name, or a .py path, lies; ConfigError where it does not."""
    path = Path(name)
    if path.suffix != ".py":
        path = folder() / f"{name}.py"
        if name not in names():
            raise ConfigError(f"unknown experiment {name!r}" + did_you_mean(name, names()))
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    return path


def _module(name: str) -> ModuleType:
    path = file_of(name)
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ConfigError:
        raise
    except PROGRAMMING as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    return module


def _from_json(path: Path) -> Experiment:
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
