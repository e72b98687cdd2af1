"""Label texts, or every row of a file."""

import argparse
import sys
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.shard import parse_shard
from jaxclf.terminal import print_text

EPILOG = """\
examples:
  jaxclf predict --run runs/focal_attention "a text"
  jaxclf predict --run runs/focal_attention --input texts.csv --output labeled.csv

The output has the columns of the input and then predicted.NAME and probability.NAME of each label.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("predict", __doc__, epilog=EPILOG)
    parser.add_argument("texts", nargs="*", metavar="text", help="texts to label")
    parser.add_argument("--run", required=True, help="folder of a run, model, ensemble or cascade")
    parser.add_argument("--explain", action="store_true", help="print the evidence, word by word")
    parser.add_argument("--input", type=Path, help="a file of texts, as for train --data")
    parser.add_argument("--output", type=Path, help="a .csv, .tsv, .json, .jsonl or .gz to write")
    text = "the name of the texts' column or key in --input (default: as in the run)"
    parser.add_argument("--text-column", metavar="NAME", default="", help=text)
    parser.add_argument("--shard", metavar="I/N", help="label part I of N, from 0/N to N-1/N")
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        help="continue a stopped command, or start again (default: auto)",
    )
    flags = {
        "--no-model-column": "do not write the model's digest and version into every row",
        "--escape-formulas": "CSV: an apostrophe before your cells that a spreadsheet computes",
    }
    for flag, text in flags.items():
        parser.add_argument(flag, action="store_true", help=text)
    return parser


def run(args: argparse.Namespace) -> None:
    if (args.input is None) != (args.output is None) or bool(args.texts) == bool(args.input):
        raise ConfigError("give texts, or --input FILE with --output FILE")
    options = (args.shard, args.resume, args.text_column, args.no_model_column)
    if args.texts and (any(options) or args.escape_formulas):
        raise ConfigError("--shard, --resume and options of files apply to --input FILE only")
    if args.input and args.explain:
        raise ConfigError("--explain applies to texts on the command line, not to --input FILE")
    if any(not text.strip() for text in args.texts):
        raise DataError("an empty text cannot be labeled")
    shard = parse_shard(args.shard or "0/1")
    # jax is imported only now: help and wrong arguments do not wait for it.
    from jaxclf.inference.load import load
    from jaxclf.inference.output_formats import Layout
    from jaxclf.inference.score_file import predict_file
    from jaxclf.inference.text_output import format_explanations, format_predictions

    classifier = load(args.run)
    if args.texts:
        format_texts = format_explanations if args.explain else format_predictions
        print_text(format_texts(classifier, args.texts, classifier.predict_proba(args.texts)))
        print(f"model {classifier.identifier}", file=sys.stderr)
        return
    column = args.text_column or classifier.experiment.data.text_column
    layout = Layout(not args.no_model_column, args.escape_formulas, column)
    resume = args.resume or "auto"
    counts = predict_file(classifier, args.input, args.output, shard, resume, layout)
    print(f"{args.output}: {counts}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
