"""What every command does alike: its parser, what it says beside its result, and its errors as one
line and an exit code."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from jaxclf.errors import report_errors


def make_parser(description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with --debug."""
    parser = argparse.ArgumentParser(
        prog=f"python -m jaxclf.{Path(sys.argv[0]).stem}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run_command(
    parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], None]
) -> int:
    """Parse the command line, run, and return the exit code."""
    args = parser.parse_args()
    return report_errors(lambda: command(args), args.debug)


def say(text: str) -> None:
    """To the terminal, at once, beside a progress bar or a pipe."""
    print(text, file=sys.stderr, flush=True)
