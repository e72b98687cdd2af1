"""The exceptions that a user can meet, each with its exit code."""

import difflib
import importlib
import re
from collections.abc import Iterable
from typing import Any

MAX_CHOICES = 100  # listed in one message
# Controls, ends of line, changes of the direction of writing, and halves of surrogate pairs.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")


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


class StoppedError(KeyboardInterrupt):
    """Stopped by a signal. It is no `Exception`, so that a library's `except Exception` does not
    catch it."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message, signal_number)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def __str__(self) -> str:
        return self.args[0]


def escape_controls(text: str, kept: str = "") -> str:
    """Show control characters, which a terminal obeys, as their escapes. kept: those to leave."""
    return CONTROL.sub(lambda match: match[0] if match[0] in kept else repr(match[0])[1:-1], text)


def printable(text: str, max_length: int = 100) -> str:
    """Shorten a text for a message, and escape its control characters."""
    return escape_controls(text[:max_length]) + "…" * (len(text) > max_length)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a choice is close to the name, else `; choose from: a, b`.

    Only the first thousand choices are compared, and their first hundred characters.
    """
    names = [printable(choice) for choice in choices]
    close = difflib.get_close_matches(printable(name), names[:1000], n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = f" and {len(names) - MAX_CHOICES:,} more" if len(names) > MAX_CHOICES else ""
    return f"; choose from: {', '.join(names[:MAX_CHOICES])}{more}"


def import_extra(name: str, extra: str) -> Any:
    """Import a library of an extra of jaxclf. Raises ConfigError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(f"{name} is not installed: pip install 'jaxclf[{extra}]'") from None
