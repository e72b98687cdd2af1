"""Label texts: `python -m jaxclf.predict --run runs/focal_attention "a text"`, or a file of any
size with --input and --output."""

import argparse
import signal
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxclf.cli import CommandParser, run_command
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError, StoppedError
from jaxclf.inference import explanation
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.load import load
from jaxclf.inference.score_file import WHOLE, Shard, predict_file

Probs = Float[np.ndarray, "texts classes"]


def in_words(classifier: Classifier, texts: list[str], probs: Probs) -> str:
    """For a reader at a terminal: every label with its probability and threshold, given ones
    marked."""
    width = max(len(name) for name in classifier.labels)
    blocks = []
    for text, row in zip(texts, probs, strict=True):
        given = decide(row[None], classifier.thresholds)[0]
        lines = [text, ""]
        for index in np.argsort(-row, kind="stable"):
            name, threshold = classifier.labels[index], classifier.thresholds[index]
            mark = "*" if given[index] else " "
            lines.append(f"  {mark} {name:<{width}}  {row[index]:.3f}  (threshold {threshold:.3f})")
        if not given.any():
            lines.append("  no label reaches its threshold")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def explained(classifier: Classifier, texts: list[str], probs: Probs) -> str:
    """The same, each text followed by the words for and against the labels given; where none is,
    the most probable one."""
    blocks = []
    for text, row, found in zip(texts, probs, classifier.explain(texts), strict=True):
        given = np.flatnonzero(decide(row[None], classifier.thresholds)[0])
        shown = [classifier.labels[one] for one in (given if len(given) else [row.argmax()])]
        words = explanation.in_words(found, classifier.labels, shown)
        blocks.append(f"{in_words(classifier, [text], row[None])}\n\n{words}")
    return "\n\n".join(blocks)


def parse_shard(text: str) -> Shard:
    """ "0/4" -> the first of four. Raises ConfigError."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard {text}: give I/N, from 0/N to N-1/N; of four, 0/4 to 3/4")
    return Shard(int(index), int(count))


def build_parser() -> CommandParser:
    parser = CommandParser("predict", __doc__)
    parser.add_argument("--run", required=True, help="a finished run's folder or its model/")
    parser.add_argument("--input", type=Path, help="a JSON, JSONL, CSV, TSV or Parquet file")
    parser.add_argument("--output", type=Path, help="a .jsonl or .csv file to write")
    parser.add_argument(
        "--shard", metavar="I/N", help="only this part of the input; of four, 0/4 to 3/4"
    )
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        help="auto (default) goes on where the same command was stopped, never begins anew",
    )
    parser.add_argument(
        "--explain", action="store_true", help="of texts given here: the words that carried labels"
    )
    parser.add_argument("texts", nargs="*", metavar="text", help="texts to label at once")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), _command, argv)


def _command(args: argparse.Namespace) -> None:
    if (args.input is None) != (args.output is None) or bool(args.texts) == bool(args.input):
        raise ConfigError("give texts, or --input FILE with --output FILE")
    if args.texts and (args.shard or args.resume):
        raise ConfigError("--shard and --resume are for --input FILE")
    if args.input and args.explain:
        raise ConfigError("--explain is for texts given here, not for --input FILE")
    if any(not text.strip() for text in args.texts):
        raise DataError("an empty text cannot be labelled")
    shard = parse_shard(args.shard) if args.shard else WHOLE
    classifier = load(args.run)
    if args.input:
        _label_file(classifier, args, shard)
    else:
        shown = explained if args.explain else in_words
        print(shown(classifier, args.texts, classifier.predict_proba(args.texts)))


def _label_file(classifier: Classifier, args: argparse.Namespace, shard: Shard) -> None:
    def stop(number: int, _: object) -> None:
        raise StoppedError("stopped", number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        count = predict_file(classifier, args.input, args.output, shard, args.resume or "auto")
    except StoppedError as error:
        raise StoppedError("stopped; the same command goes on", error.exit_code - 128) from None
    print(f"{count:,} rows -> {args.output}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
