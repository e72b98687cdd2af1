"""What every command does alike: its parser, and its errors as one line and an exit code."""

import argparse
from collections.abc import Callable

from jaxclf.errors import report_errors


def parser_of(description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser with --debug."""
    parser = argparse.ArgumentParser(description=description, epilog=epilog)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def run_command(
    parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], None]
) -> int:
    """Parse the command line, run, and return the exit code."""
    args = parser.parse_args()
    return report_errors(lambda: command(args), args.debug)
