"""train, predict and serve without what Windows lacks. It is simulated: the tests run on Linux."""

import signal
import subprocess
import sys

import pytest

# No fcntl, uvloop, SIGHUP, handler of signals in an event loop, and no CDLL of the process itself.
LACKS = """
import asyncio, ctypes, runpy, signal, sys

def missing(*_, **__):
    raise NotImplementedError

def init(library, name, *args, **options):
    if name is None:
        raise TypeError("bad argument type for built-in operation")
    original(library, name, *args, **options)

sys.modules["fcntl"] = sys.modules["uvloop"] = None
asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = missing
asyncio.unix_events._UnixSelectorEventLoop.remove_signal_handler = missing
del signal.SIGHUP
original, ctypes.CDLL.__init__ = ctypes.CDLL.__init__, init
runpy.run_module(f"jaxclf.{sys.argv.pop(1)}", run_name="__main__", alter_sys=True)
"""


def on_windows(*words):
    command = [sys.executable, "-c", LACKS, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_train_and_predict(tiny_overrides, tmp_path):
    words = [f"{key}={value}" for key, value in (tiny_overrides | {"train.epochs": 1}).items()]
    trained = on_windows("train", "--exp", "baseline", "--out", tmp_path / "run", *words)
    assert (trained.returncode, "Traceback" in trained.stderr) == (0, False), trained.stderr
    predicted = on_windows("predict", "--run", tmp_path / "run", "a text")
    assert predicted.returncode == 0, predicted.stderr
    assert "stress" in predicted.stdout


@pytest.mark.slow
def test_serve_answers_and_stops(run_folder):
    command = [sys.executable, "-c", LACKS, "serve", "--run", str(run_folder), "--port", "0"]
    log = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        while "ready after" not in log:
            line = server.stderr.readline()
            assert line, log
            log += line
        server.send_signal(signal.SIGTERM)
        log += server.stderr.read()
    assert (server.returncode, "Traceback" in log) == (143, False), log
