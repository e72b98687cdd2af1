"""Score a finished run, or a labeled file with its model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError

EPILOG = """\
examples:
  jaxclf evaluate --run runs/focal_attention --data more.csv
  jaxclf evaluate --run runs/focal_attention threshold=recall_at threshold.target=0.95
"""


def build_parser() -> CommandParser:
    parser = CommandParser(
        "evaluate",
        __doc__,
        overrides="without --data: calibration, threshold and their options, to try others",
        epilog=EPILOG,
    )
    parser.add_argument("--run", type=Path, required=True, help="the folder of a run")
    parser.add_argument(
        "--data", type=Path, help="a labeled file (default: the run's own predictions)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores as JSON")
    parser.add_argument("--html", action="store_true", help="write report.html and plots/ again")
    parser.add_argument(
        "--include-texts",
        action="store_true",
        help="with --html: show the texts of the hardest test examples",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    if args.include_texts and not args.html:
        raise ConfigError("--include-texts needs --html")
    if args.html and (args.data or args.overrides):
        raise ConfigError("--html shows the run as it is; leave out --data and key=value")
    if args.data and args.overrides:
        word = args.override_words[0]
        raise ConfigError(f"{word}: --data is scored with the model as it is; leave out key=value")
    from jaxclf.files.json_file import write_json
    from jaxclf.reports.evaluate import evaluate_file, evaluate_predictions, rewrite_report
    from jaxclf.reports.tables import print_scores

    if args.html:
        print(rewrite_report(args.run, args.include_texts))
        return
    if args.data:
        scores = evaluate_file(args.run, args.data)
        print_scores(scores, args.data.stem)
    else:
        scores = evaluate_predictions(args.run, args.overrides)
        for split, part in scores.items():
            print_scores(part, split)
    if args.json:
        write_json(args.json, scores)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
