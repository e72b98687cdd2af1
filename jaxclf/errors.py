"""The few exceptions a user can meet, each with its exit code, and the one place that turns them
into one."""

import sys
import traceback
from collections.abc import Callable


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


def report_errors(command: Callable[[], None], debug: bool) -> int:
    """Run a command and return its exit code; errors become one line on stderr, tracebacks only
    with `debug`."""
    try:
        command()
        return 0
    except (JaxclfError, OSError, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, JaxclfError):
            code, message = error.exit_code, str(error)
        elif isinstance(error, OSError):
            where, what = error.filename or "disk", error.strerror or error
            code, message = StorageError.exit_code, f"{where}: {what}"
        else:
            code, message = 130, "interrupted"
    print(f"error: {message}", file=sys.stderr)
    return code
