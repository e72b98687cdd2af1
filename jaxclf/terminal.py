"""What a person sees in a terminal: tables, progress bars, log lines. Plain text in a pipe."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence

import rich.box
import rich.progress
from rich.console import Console
from rich.table import Table

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60  # of progress, where the output is not a terminal

WIDTH_IN_PIPES = 10_000  # columns: rich must not cut off a cell where nobody sees the table

# Called with the number of finished units and a short text to show beside the bar.
Advance = Callable[[int, str], None]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table to stdout; the first column is aligned left, the others right."""
    console = Console(markup=False, highlight=False)
    table = Table(
        title=title or None,
        title_justify="left",
        box=rich.box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
    )
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:
        console.width = WIDTH_IN_PIPES
    console.print(table)


@contextlib.contextmanager
def show_progress(description: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show progress on stderr: a bar on a terminal, else a log line a minute.

    The block gets a function `advance(count, text)`.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _log_progress(description, total, unit, done)
        return
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


class LogHandler(logging.Handler):
    """Writes log records to stderr above a progress bar; warnings and errors say so."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        Console(stderr=True, soft_wrap=True).print(
            prefix + record.getMessage(), markup=False, highlight=False
        )
