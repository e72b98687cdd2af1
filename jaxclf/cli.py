"""What every command does alike: its parser, what it says beside its result, and its errors as one
line and an exit code."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxclf.errors import report_errors

OVERRIDE = re.compile(r"[a-z][a-z0-9_.]*=")


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


def add_overrides(parser: argparse.ArgumentParser, help: str) -> None:
    """Let key=value stand anywhere on the command line; the words are in `args.override`."""
    parser.add_argument("override", nargs="*", default=[], metavar="key=value", help=help)


def run_command(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, run, and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if parser.get_default("override") is not None:
        overrides = [word for word in words if OVERRIDE.match(word)]
        words = [word for word in words if not OVERRIDE.match(word)]
        words += ["--", *overrides] if overrides else []
    args = parser.parse_args(words)
    return report_errors(lambda: command(args), args.debug)


def say(text: str) -> None:
    """To the terminal, at once, beside a progress bar or a pipe."""
    print(text, file=sys.stderr, flush=True)
