"""The console command: `jaxclf COMMAND …`, and what all commands share."""

import argparse
import importlib
import importlib.metadata
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from jaxclf import terminal
from jaxclf.errors import ConfigError, JaxclfError, StoppedError, StorageError, did_you_mean
from jaxclf.experiment.overrides import parse_overrides
from jaxclf.signals import raise_if_stopped, stop_on_signals

# Every command is a module of the package with `build_parser() -> CommandParser` and
# `main(argv=None) -> int`, and imports nothing heavy at its top.
COMMANDS = {
    "train": "train an experiment",
    "tune": "search an experiment's hyperparameters",
    "ensemble": "average the probabilities of several runs",
    "check": "check a data set before training",
    "evaluate": "score a run, or a labeled file with it",
    "compare": "compare runs, or an experiment with its ablations",
    "audit": "list annotations that are probably wrong",
    "next": "choose the texts to label next",
    "predict": "label texts, or a file of any size",
    "export": "write a model for other libraries and runtimes",
    "serve": "answer over HTTP",
    "cascade": "put cheap models before a strong one",
    "curve": "estimate whether more training data would help",
}

# Options for the data files -> the keys that they stand for.
DATA_FILES = {"--data": "data.train", "--val": "data.val", "--test": "data.test"}
# All options that stand for a key.
KEY_OPTIONS = {**DATA_FILES, "--track": "train.track"}
OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


class CommandParser(argparse.ArgumentParser):
    """An argument parser that takes `key=value` words anywhere and writes its epilog on demand.

    overrides: help for the `key=value` words; without it the command takes none.
    epilog: text, or a function that makes it where it must read the catalog or the source.
    """

    def __init__(
        self,
        command: str,
        description: str | None,
        *,
        overrides: str = "",
        epilog: str | Callable[[], str] = "",
    ):
        super().__init__(
            prog=f"jaxclf {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.takes_overrides, self.overrides_help = bool(overrides), overrides
        self.lazy_epilog = epilog
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        self.add_argument("--quiet", action="store_true", help="print only results and warnings")
        self.add_argument("--verbose", action="store_true", help="print details of the work")

    def add_data_files(self) -> None:
        """Add --data, --val and --test, which stand for `data.train=`, `data.val=`, `data.test=`.
        They become `key=value` words."""
        files = self.add_argument_group("your data (default: the files of the experiment)")
        parts = ("one labeled file; without --val or --test it is divided", "validation", "test")
        for (option, key), text in zip(DATA_FILES.items(), parts, strict=True):
            files.add_argument(option, dest=key, metavar="FILE", help=f"{text} ({key})")

    def format_help(self) -> str:
        self._declare_overrides()
        lazy = self.lazy_epilog
        self.epilog = lazy if isinstance(lazy, str) else lazy()
        return super().format_help()

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the command; `overrides` holds the values of the `key=value` words.

        Raises ConfigError for a word that is neither an argument nor of the form key=value.
        """
        if not self.takes_overrides:
            return self.parse_intermixed_args(argv)
        self._declare_overrides()
        overrides, words = self._split_overrides(argv)
        args = self.parse_intermixed_args(words)
        args.override_words = [*overrides, *args.overrides, *_option_words(args, overrides)]
        args.overrides = parse_overrides(args.override_words)
        return args

    def _declare_overrides(self) -> None:
        """Add the `key=value` words as the last positional argument, so that others come first."""
        if self.takes_overrides and self.get_default("overrides") is None:
            self.add_argument(
                "overrides", nargs="*", default=[], metavar="key=value", help=self.overrides_help
            )

    def _split_overrides(self, argv: Sequence[str]) -> tuple[list[str], list[str]]:
        """The `key=value` words and all others. A word after an option that takes one value is
        that value: `--out a=b`."""
        takes_value = {
            option
            for action in self._actions
            if action.nargs is None
            for option in action.option_strings
        }
        overrides, words = [], []
        for before, word in zip(["", *argv], argv, strict=False):
            is_override = OVERRIDE.match(word) and before not in takes_value
            (overrides if is_override else words).append(word)
        return overrides, words


def _option_words(args: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """The `key=value` words of KEY_OPTIONS. Raises ConfigError for a second value."""
    words = []
    for option, key in KEY_OPTIONS.items():
        if (value := getattr(args, key, None)) is not None:
            if any(word.startswith(f"{key}=") for word in overrides):
                raise ConfigError(f"{option} and {key}= are the same; give one of them")
            words.append(f"{key}={json.dumps(value)}")  # a name such as 2024 is no number
    return words


def run_command(
    parser: CommandParser,
    run: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse a command line, run the command and return its exit code.

    An error becomes one line on stderr; a traceback is shown only with --debug.
    """

    def parse_and_run(words: Sequence[str]) -> int:
        terminal.replace_unencodable()
        args = parser.parse(words)
        if not args.verbose:  # XLA reports slow compilations as errors
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        level = logging.WARNING if args.quiet else logging.INFO
        with terminal.show_log(logging.DEBUG if args.verbose else level):
            run(args)
        return 0

    return _exit_code(parse_and_run, argv)


def _exit_code(function: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Call `function` with the words of a command line; an error or a signal that ends it becomes
    one line and an exit code."""
    words = sys.argv[1:] if argv is None else argv
    try:
        with stop_on_signals(is_program=argv is None):
            try:
                return _call(function, words)
            except BrokenPipeError:  # the reader of stdout is gone, as with `| head`
                descriptor = os.open(os.devnull, os.O_WRONLY)  # for the flush at exit
                os.dup2(descriptor, sys.stdout.fileno())
                return 141  # 128 + SIGPIPE, a name that Windows lacks
            except (JaxclfError, OSError, KeyboardInterrupt) as error:
                if "--debug" in words:
                    traceback.print_exc()
                return _print_error(error)
    except KeyboardInterrupt as error:  # a signal during the lines above
        return _print_error(error)


def _call(function: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """Call `function`; raise StoppedError where a library hid it or raised another in its place."""
    try:
        code = function(words)
    except Exception:
        raise_if_stopped()
        raise
    if not code:
        raise_if_stopped()
    return code


def _print_error(error: BaseException) -> int:
    """Print one line about an error that a user can meet. Returns its exit code."""
    code, message = _describe_error(error)
    terminal.print_message(message)
    return code


def _describe_error(error: BaseException) -> tuple[int, str]:
    """(exit code, line for stderr) of an error that a user can meet."""
    if isinstance(error, JaxclfError):
        return error.exit_code, f"error: {error}"
    if isinstance(error, StoppedError):
        return error.exit_code, str(error)
    if isinstance(error, OSError):
        file = error.filename or "disk"
        return StorageError.exit_code, f"error: {file}: {error.strerror or error}"
    return 130, "interrupted"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `jaxclf COMMAND …` and return the exit code."""
    return _exit_code(_run_named_command, argv)


def _run_named_command(argv: Sequence[str]) -> int:
    if argv and argv[0] in COMMANDS:
        return importlib.import_module(f"jaxclf.{argv[0]}").main(argv[1:])
    parser = argparse.ArgumentParser(
        prog="jaxclf",
        usage="jaxclf COMMAND …",
        description="Multi-label text classification with BERT encoders in JAX and Flax.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
        + "\n\njaxclf COMMAND --help describes one command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"jaxclf {importlib.metadata.version('jaxclf')}"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument(
        "--print-completion", choices=("bash", "zsh"), help="print a completion script"
    )
    args, words = parser.parse_known_args(argv)
    if args.print_completion:
        print(completion_script(args.print_completion))
        return 0
    if not words:
        parser.print_help()
        return 0
    parser.error(f"unknown command {words[0]!r}{did_you_mean(words[0], COMMANDS)}")


def load_parser(command: str) -> CommandParser:
    """The parser of one command."""
    return importlib.import_module(f"jaxclf.{command}").build_parser()


def completion_script(shell: str) -> str:
    """A script for `source <(jaxclf --print-completion bash)`: commands, then their options."""
    cases = []
    for command in COMMANDS:
        actions = load_parser(command)._actions
        options = " ".join(option for action in actions for option in action.option_strings)
        cases.append(f'    {command}) words="{options}" ;;')
    lines = [
        "_jaxclf() {",
        '  local words="" word="${COMP_WORDS[COMP_CWORD]}"',
        '  case "${COMP_WORDS[1]}" in',
        *cases,
        "  esac",
        f'  [ "$COMP_CWORD" = 1 ] && words="{" ".join(COMMANDS)} --help --version"',
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "}",
        "complete -o default -F _jaxclf jaxclf",
    ]
    zsh = ["autoload -U +X compinit bashcompinit && compinit && bashcompinit"]
    return "\n".join(zsh + lines if shell == "zsh" else lines)
