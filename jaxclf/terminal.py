"""Terminal output: tables, progress bars, log lines; plain text in a pipe.

rich is imported where it is used: `--help` does not wait for it.
"""

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from jaxclf.errors import escape_controls

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60  # of progress, where the output is not a terminal

LAYOUT = "\n\t"  # the control characters that a text may have

WIDTH_IN_PIPES = 10_000  # columns: rich must not cut off a cell where nobody sees the table

# Called with the number of finished units and a short text to show beside the bar.
Advance = Callable[[int, str], None]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table to stdout; the first column is aligned left, the others right."""
    import rich.box
    from rich.table import Table

    console = _console()
    if title:
        console.print(escape_controls(title), style="bold", soft_wrap=True)
    table = Table(box=rich.box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(
            escape_controls(column), justify="right" if index else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*map(escape_controls, row))
    if not console.is_terminal:
        console.width = WIDTH_IN_PIPES
    console.print(table)


@contextlib.contextmanager
def show_progress(description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show progress on stderr: a bar on a terminal, else a log line a minute.

    The block gets a function `advance(count, text)`.
    """
    console = _console(stderr=True)
    if not console.is_terminal:
        yield _log_progress(description, total, unit, done)
        return
    import rich.progress

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[text]}"),
    )
    with rich.progress.Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total, completed=done, text="")
        yield lambda count, text="": progress.update(task, advance=count, text=text)


def _log_progress(description: str, total: int, unit: str, done: int) -> Advance:
    last = time.monotonic()

    def advance(count: int, text: str = "") -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            log.info("%s: %s of %s %s %s", description, f"{done:,}", f"{total:,}", unit, text)

    return advance


def print_text(text: str) -> None:
    """Print lines to stdout, with control characters shown and not obeyed."""
    print(escape_controls(text, kept=LAYOUT), flush=True)


def replace_unencodable() -> None:
    """Show characters that stdout cannot encode, as in cp1252, as their escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_message(text: str) -> None:
    """Print a line to stderr; a leading `error:` or `warning:` is colored on a terminal."""
    from rich.text import Text

    line = Text(escape_controls(text, kept=LAYOUT))
    line.highlight_regex("^error:", "bold red")
    line.highlight_regex("^warning:", "yellow")
    _console(stderr=True).print(line, soft_wrap=True)


@contextlib.contextmanager
def show_log(level: int) -> Iterator[None]:
    """Show the package's log on stderr inside the block."""
    logger, handler = logging.getLogger("jaxclf"), LogHandler()
    level_before, propagate_before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False  # libraries install a handler of their own on the root logger
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level_before)
        logger.propagate = propagate_before


class LogHandler(logging.Handler):
    """Prints log records to stderr above a progress bar, each warning or note once."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        is_warning = record.levelno >= logging.WARNING
        text = f"{record.levelname.lower()}: " * is_warning + record.getMessage()
        if text in self.printed:
            return
        if is_warning or text.startswith("note:"):
            self.printed.add(text)
        print_message(text)


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False)
