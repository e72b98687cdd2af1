"""Check a data set before training: duplicates, leaks, rare labels, texts that are cut."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.experiment.catalog import DEFAULT

EPILOG = """\
examples:
  jaxclf check --data mine.csv
  jaxclf check --data a.csv --val b.csv --test c.csv --out check.html

The files are read and divided as `train` does it. Equal texts are those with equal words, in any
case and white space. Nearly equal texts share 80 % of their character 5-grams, within the first
2,000 bytes. Every finding names its lines. The page shows texts only with --include-texts.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("check", __doc__, overrides="such as data.labels=a,b", epilog=EPILOG)
    text = "its encoder and windows are those that texts are measured by (default: %(default)s)"
    parser.add_argument("--exp", default=DEFAULT, help=text)
    parser.add_argument("--out", type=Path, help="write a page: an .html file, or its folder")
    text = "show the texts of the findings on the page"
    parser.add_argument("--include-texts", action="store_true", help=text)
    parser.add_data_files()
    return parser


def run(args: argparse.Namespace) -> None:
    from jaxclf.errors import ConfigError
    from jaxclf.experiment import catalog
    from jaxclf.experiment.overrides import override
    from jaxclf.experiment.validation import check
    from jaxclf.reports.data_check import labels_table, pairs_table, rows_table, write_page
    from jaxclf.reports.tables import print_tables
    from jaxclf.terminal import print_text
    from jaxclf.text.check.findings import KINDS
    from jaxclf.training.check import check_data

    if args.include_texts and not args.out:
        raise ConfigError("--include-texts needs --out")
    checked = check_data(check(override(catalog.load(args.exp), args.overrides)))
    print_tables(rows_table(checked), labels_table(checked.rows), pairs_table(checked.rows))
    for finding in checked.findings:
        print_text(f"- {finding}")
    names = {finding.kind for finding in checked.findings}
    print(f"{len(KINDS)} kinds of faults were looked for, {len(names)} were found")
    if args.out:
        path = args.out if args.out.suffix == ".html" else args.out / "check.html"
        print(f"page: {write_page(path, checked, args.include_texts)}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
