"""Errors become an exit code and a message on stderr; a traceback is shown only where asked for."""

import signal
import sys

import pytest

from jaxclf.cli import make_parser, run_command
from jaxclf.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    JaxclfError,
    OutOfMemoryError,
    StoppedError,
    StorageError,
    report_errors,
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


def failing(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_an_error_is_an_exit_code_and_a_message(capfd, error, code):
    assert report_errors(failing(error), debug=False) == code
    assert capfd.readouterr() == ("", "error: where: what\n")


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_debug_shows_the_traceback_besides(capfd, error, code):
    assert report_errors(failing(error), debug=True) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):\n")
    assert "in command\n    raise error\n" in err
    assert err.endswith("\nerror: where: what\n")


def test_a_command_that_ends_well_says_nothing(capfd):
    done = []
    assert report_errors(lambda: done.append(1), debug=True) == 0
    assert done == [1]
    assert capfd.readouterr() == ("", "")


def test_a_disk_problem_names_the_file(tmp_path, capfd):
    path = tmp_path / "away" / "report.json"
    assert report_errors(lambda: path.write_text(""), debug=False) == 5
    assert capfd.readouterr() == ("", f"error: {path}: No such file or directory\n")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device"), "disk: No space left on device"),
        (OSError("the pipe is gone"), "disk: the pipe is gone"),
    ],
)
def test_a_disk_problem_without_a_file_is_still_words(capfd, error, says):
    assert report_errors(failing(error), debug=False) == 5
    assert capfd.readouterr() == ("", f"error: {says}\n")


def test_a_keyboard_interrupt_ends_with_130(capfd):
    assert report_errors(failing(KeyboardInterrupt()), debug=False) == 130
    assert capfd.readouterr() == ("", "error: interrupted\n")


@pytest.mark.parametrize("error", [ValueError("x"), AssertionError(), SystemExit(2)])
def test_what_no_user_can_meet_goes_through(error):
    with pytest.raises(type(error)):
        report_errors(failing(error), debug=False)


def test_every_error_of_the_package_can_be_caught_as_one():
    assert all(isinstance(error, JaxclfError) for error, _ in CODES)
    assert {type(error) for error, _ in CODES} == {JaxclfError, *JaxclfError.__subclasses__()}


@pytest.mark.parametrize("debug", [False, True])
def test_a_command_line_asks_for_the_traceback(monkeypatch, capfd, debug):
    monkeypatch.setattr(sys, "argv", ["train", *["--debug"] * debug])

    def command(args):
        raise DataError("where: what")

    assert run_command(make_parser("A command."), command) == 2
    assert ("Traceback" in capfd.readouterr().err) == debug
