"""The exceptions that a user can meet, each with its exit code."""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any


class JaxclfError(Exception):
    """Its message says what is wrong, where, and what to do."""

    exit_code = 2


class ConfigError(JaxclfError):
    """An experiment, key or value that does not exist or does not fit."""


class DataError(JaxclfError):
    """A data or model file that cannot be used as it is."""


class DivergedError(JaxclfError):
    """The loss is no longer a finite number."""

    exit_code = 3


class OutOfMemoryError(JaxclfError):
    """A batch that the device has no room for."""


class CheckpointError(JaxclfError):
    """No checkpoint that passes its integrity check."""

    exit_code = 4


class StorageError(JaxclfError):
    """A disk, network or permission problem."""

    exit_code = 5


class StoppedError(JaxclfError):
    """Stopped by a signal after a checkpoint was saved."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a choice is close to the name, else `; choose from: a, b`."""
    choices = list(choices)
    close = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose from: {', '.join(choices)}"


def import_extra(name: str, extra: str) -> Any:
    """Import a library of an extra of jaxclf. Raises ConfigError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(f"{name} is not installed: pip install 'jaxclf[{extra}]'") from None
