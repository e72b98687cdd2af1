"""Signals stop a block once, wherever they arrive and whatever a library makes of the error."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxclf import cli
from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError, StoppedError
from jaxclf.files import atomic
from jaxclf.signals import (
    STOP_SIGNALS,
    interruptible,
    raise_if_stopped,
    received_signal,
    shielded,
    stop_on_signals,
)


def stopped(function):
    """Call a function that gets a signal. Returns the StoppedError."""
    with pytest.raises(StoppedError) as caught, stop_on_signals():
        function()
    return caught.value


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_raises_at_once_and_the_handlers_of_before_are_restored(number):
    before, hook = [signal.getsignal(number) for number in STOP_SIGNALS], sys.unraisablehook

    def interrupted():
        signal.raise_signal(number)
        pytest.fail("not raised")

    assert stopped(interrupted).exit_code == 128 + number
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    assert sys.unraisablehook is hook
    assert not received_signal()


def test_a_signal_waits_for_the_end_of_a_shield_and_the_first_one_decides():
    def interrupted():
        with stop_on_signals(), shielded():
            with shielded():
                signal.raise_signal(signal.SIGTERM)
                steps.append("first")
            signal.raise_signal(signal.SIGINT)
            steps.append("second")
        steps.append("after")

    steps = []
    assert stopped(interrupted).exit_code == 128 + signal.SIGTERM
    assert steps == ["first", "second"]


def test_an_interruptible_block_in_a_shield_raises_at_once():
    def interrupted():
        with shielded():
            signal.raise_signal(signal.SIGTERM)
            steps.append("shielded")
            with interruptible():
                steps.append("interruptible")

    steps = []
    stopped(interrupted)
    assert steps == ["shielded"]


def test_a_later_signal_does_not_tear_what_the_first_one_ends():
    def interrupted():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            steps.append("cleaned")

    steps = []
    stopped(interrupted)
    assert steps == ["cleaned"]


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_other_than_the_main_one_handles_no_signals(tmp_path):
    errors = []

    def work():
        try:
            with stop_on_signals(), shielded(), atomic.lock(tmp_path / "run"):
                raise_if_stopped()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors


def test_a_signal_in_a_callback_of_the_garbage_collector_is_repeated(capfd):
    """The interpreter drops what such a callback raises, and prints a traceback."""

    def interrupted(phase, info):
        if not calls:
            calls.append(phase)
            os.kill(os.getpid(), signal.SIGTERM)

    def collect():
        gc.collect()
        for _ in range(10_000):
            time.sleep(0.001)

    calls = []
    gc.callbacks.append(interrupted)
    try:
        assert stopped(collect).exit_code == 128 + signal.SIGTERM
    finally:
        gc.callbacks.remove(interrupted)
    assert calls
    assert capfd.readouterr().err == ""


def run_interrupted(command, capfd):
    """Run a command in this process. Returns its exit code and what it printed."""
    code = run_command(CommandParser("train", "A command."), command, [])
    return code, capfd.readouterr().err


def raise_another_error(args):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("INTERNAL: callback failed") from None


def raise_no_error(args):
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def raise_twice(args):
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("command", [raise_another_error, raise_no_error, raise_twice])
def test_a_command_ends_with_one_line_and_the_code_of_the_first_signal(capfd, command):
    code, output = run_interrupted(command, capfd)
    assert code == 130
    assert output == "stopped by SIGINT; run the same command again\n"


def test_a_named_command_prints_the_line_once(capfd, monkeypatch):
    def interrupted(args):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("jaxclf.train.run", interrupted)
    assert cli.main(["train", "--exp", "baseline"]) == 143
    assert capfd.readouterr().err == "stopped by SIGTERM; run the same command again\n"


def test_an_error_of_the_library_is_caught_where_its_message_is_interrupted(capfd, monkeypatch):
    def interrupted_print(text):
        if text.startswith("error"):
            signal.raise_signal(signal.SIGTERM)
        print(text, file=sys.stderr)

    def fail(args):
        raise ConfigError("where: what")

    monkeypatch.setattr("jaxclf.terminal.print_message", interrupted_print)
    assert run_interrupted(fail, capfd) == (143, "stopped by SIGTERM; run the same command again\n")


# Locks.

HOLD = """
import sys, time
from pathlib import Path
from jaxclf.files.atomic import lock

with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def holder(path):
    """Another process that holds a lock, until it is killed at the end of the block."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def test_a_lock_names_its_holder_and_that_of_a_killed_process_is_taken_over(tmp_path):
    path = tmp_path / "runs" / "x"
    with holder(path) as process:
        with pytest.raises(
            ConfigError, match=rf"another process \(pid {process.pid} on .* since 2"
        ):
            atomic.lock(path).__enter__()
        assert len(list(path.parent.iterdir())) == 2
    assert len(list(path.parent.iterdir())) == 2  # the kill leaves both files
    with atomic.lock(path):
        assert f'"pid": {os.getpid()},' in path.with_name("x.lock.json").read_text()
    assert not list(path.parent.iterdir())


def test_a_lock_leaves_no_folder_that_it_made(tmp_path):
    with pytest.raises(ConfigError), atomic.lock(tmp_path / "a" / "b" / "run"):
        raise ConfigError("no such experiment")
    assert not list(tmp_path.iterdir())
    with atomic.lock(tmp_path / "a" / "b" / "run"):
        (tmp_path / "a" / "b" / "run").mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "run"]


def test_a_lock_whose_record_is_damaged_is_still_a_lock(tmp_path):
    with atomic.lock(tmp_path / "x"):
        (tmp_path / "x.lock.json").write_text("{")
        with pytest.raises(ConfigError, match="another process is writing"):
            atomic.lock(tmp_path / "x").__enter__()
