"""Signals that ask a process to stop."""

import contextlib
import signal
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def handle_signals(
    handler: Callable[[int], None], numbers: tuple[int, ...] = STOP_SIGNALS
) -> Iterator[None]:
    """Call `handler` with the number of each signal that arrives inside the block.

    A signal that the process was started to ignore stays ignored. The handlers of before are
    restored at the end.
    """
    previous = {
        number: signal.signal(number, lambda number, _: handler(number))
        for number in numbers
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
