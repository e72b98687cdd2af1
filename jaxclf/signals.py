"""Signals that ask a process to stop: one handler for a whole command.

The first signal raises StoppedError in the main thread: at once, or at the end of a block that must
not be torn. Later ones change nothing, so that they do not tear what the first one ends.
"""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from jaxclf.errors import StoppedError

# Windows has no SIGHUP, which a closed terminal sends.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
RETRY_DELAY = 0.2  # seconds until a callback that cannot raise is left

_received: list[int] = []  # inside `stop_on_signals`; the first one decides


class _Shields(threading.local):
    count = 0


_shields = _Shields()


@contextlib.contextmanager
def stop_on_signals(is_program: bool = False) -> Iterator[None]:
    """Raise StoppedError after a signal inside the block.

    A signal that the process was started to ignore stays ignored. Inside another such block, and in
    a thread other than the main one, which cannot handle signals, this one does nothing.
    is_program: the interpreter shuts down after the block. Then a first signal has its default
        action, which prints no traceback, and a later one none; otherwise the handlers of before
        are restored.
    """
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or _handle in previous.values():
        yield
        return
    hook = sys.unraisablehook
    numbers = [number for number in STOP_SIGNALS if previous[number] not in (signal.SIG_IGN, None)]
    try:
        sys.unraisablehook = partial(_send_again, hook)
        for number in numbers:
            signal.signal(number, _handle)
        yield
    finally:
        at_exit = signal.SIG_IGN if _received else signal.SIG_DFL
        for number in numbers:
            signal.signal(number, at_exit if is_program else previous[number])
        sys.unraisablehook = hook
        _received.clear()


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Hold a signal back until the end of the block."""
    _shields.count += 1
    try:
        yield
    finally:
        _shields.count -= 1
    if not _shields.count:
        raise_if_stopped()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside of `shielded`, raise StoppedError at once."""
    count, _shields.count = _shields.count, 0
    try:
        raise_if_stopped()
        yield
    finally:
        _shields.count = count


def received_signal() -> int:
    """The number of the signal that has arrived; 0 if none has."""
    return _received[0] if _received else 0


def raise_if_stopped() -> None:
    """Raise StoppedError if a signal has arrived, wherever an earlier one was caught."""
    if _received:
        name = signal.Signals(_received[0]).name
        raise StoppedError(f"stopped by {name}; run the same command again", _received[0])


def _handle(number: int, frame: object) -> None:
    _received.append(number)
    if len(_received) == 1 and not _shields.count:
        raise_if_stopped()


def _send_again(hook: Callable[[Any], Any], unraisable: Any) -> None:
    """Repeat a signal whose error was lost: a callback of the garbage collector cannot raise."""
    if not isinstance(unraisable.exc_value, StoppedError):
        hook(unraisable)
    elif _received:
        number = _received[0]
        _received.clear()
        threading.Timer(RETRY_DELAY, _thread.interrupt_main, [number]).start()


@contextlib.contextmanager
def handle_signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of a signal that arrives inside the block.

    After the block a signal has its default action: it ends the process at once.
    """
    numbers = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, lambda number, _: handler(number))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
