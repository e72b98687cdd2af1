"""Every error has an exit code, and `run_command` turns it into one line on stderr."""

import signal

import pytest

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    JaxclfError,
    OutOfMemoryError,
    StoppedError,
    StorageError,
    did_you_mean,
)

CODES = [
    (JaxclfError("where: what"), 2),
    (ConfigError("where: what"), 2),
    (DataError("where: what"), 2),
    (DivergedError("where: what"), 3),
    (OutOfMemoryError("where: what"), 2),
    (CheckpointError("where: what"), 4),
    (StorageError("where: what"), 5),
    (StoppedError("where: what", signal.SIGINT), 130),
    (StoppedError("where: what", signal.SIGTERM), 143),
]


def run_failing(error, *argv):
    def command(args):
        raise error

    return run_command(CommandParser("train", "A command."), command, argv)


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_an_error_is_an_exit_code_and_one_line_after_a_traceback_with_debug(capfd, error, code):
    assert run_failing(error) == code
    line = f"{'' if isinstance(error, StoppedError) else 'error: '}where: what\n"
    assert capfd.readouterr() == ("", line)
    assert run_failing(error, "--debug") == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):\n")
    assert "in command\n    raise error\n" in err
    assert err.endswith("where: what\n")


def test_a_successful_command_prints_nothing(capfd):
    calls = []
    assert run_command(CommandParser("train", "A command."), calls.append, []) == 0
    assert len(calls) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file or directory", "a/b"), "a/b: No such file"),
        (OSError(28, "No space left on device"), "disk: No space left on device"),
        (OSError("the pipe is gone"), "disk: the pipe is gone"),
    ],
)
def test_an_operating_system_error_names_the_file_if_there_is_one(capfd, error, message):
    assert run_failing(error) == 5
    assert capfd.readouterr().err.startswith(f"error: {message}")


def test_a_keyboard_interrupt_ends_with_130(capfd):
    assert run_failing(KeyboardInterrupt()) == 130
    assert capfd.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize("error", [ValueError("x"), AssertionError(), SystemExit(2)])
def test_a_programming_error_is_not_caught(error):
    with pytest.raises(type(error)):
        run_failing(error)


def test_every_error_of_the_package_can_be_caught_as_one():
    kinds = {type(error) for error, _ in CODES}
    assert kinds == {StoppedError, JaxclfError, *JaxclfError.__subclasses__()}


def test_a_signal_is_no_error_of_a_library():
    assert issubclass(StoppedError, KeyboardInterrupt)
    assert not issubclass(StoppedError, Exception)


def test_the_nearest_name_is_suggested_and_else_all_are_listed():
    assert did_you_mean("gama", ["gamma", "alpha"]) == "; did you mean 'gamma'?"
    assert did_you_mean("qqq", iter(["gamma", "alpha"])) == "; choose from: gamma, alpha"
