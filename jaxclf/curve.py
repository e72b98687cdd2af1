"""Estimate whether more training data would help."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError
from jaxclf.experiment.catalog import DEFAULT

SHARES = (0.25, 0.5, 1.0)
EPILOG = """\
examples:
  jaxclf curve --exp focal_attention --out runs/curve
  jaxclf curve --exp focal_attention --out runs/curve --shares 0.125 0.25 0.5 1 train.epochs=8

Trains the experiment on each share of its training rows, fits a learning curve to the scores on
validation and extrapolates it to twice and four times the rows. A smaller share lies in a larger
one, and every label keeps its share. Run the same command again to resume; finished runs are kept.

Results: OUT/curve.html, OUT/curve.json, and a run folder for each share.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("curve", __doc__, overrides="any key, for all runs", epilog=EPILOG)
    text = "a name, a .py file or a run's config.json (default: %(default)s)"
    parser.add_argument("--exp", default=DEFAULT, help=text)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=SHARES,
        metavar="SHARE",
        help="shares of the training rows, 1 among them (default: 0.25 0.5 1)",
    )
    parser.add_data_files()
    return parser


def run(args: argparse.Namespace) -> None:
    shares = set(args.shares)
    if len(shares) < 2 or 1 not in shares or not all(0 < share <= 1 for share in shares):
        raise ConfigError(
            f"--shares {' '.join(f'{share:g}' for share in args.shares)}: give two or more "
            "different numbers above 0 and up to 1, with 1 among them"
        )
    from jaxclf.files.json_file import write_json
    from jaxclf.reports.learning_curve import curve_table, describe, write_page
    from jaxclf.reports.tables import print_tables
    from jaxclf.terminal import print_text
    from jaxclf.training.learning_curve import score_shares, train_shares

    record = score_shares(train_shares(args.exp, args.overrides, shares, args.out))
    write_json(args.out / "curve.json", record)
    page = write_page(args.out / "curve.html", Path(args.exp).stem, record)
    print_tables(curve_table(record))
    for sentence in describe(record):
        print_text(f"- {sentence}")
    print(f"page: {page}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
