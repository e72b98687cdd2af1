"""Choose the texts of a pool that are to be labeled next."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError
from jaxclf.text.annotation_tasks import TOOLS, label_config

EPILOG = """\
examples:
  jaxclf next --run runs/recommended --pool unlabeled.csv -n 100 --to label-studio --out tasks.json
  jaxclf train --data labeled.csv --out runs/second

The most uncertain texts come first, rare labels above all, and texts that differ from each other.
Texts that the run was fitted on are left out, and those of --labeled. The tool's export is a file
for train --data. For Label Studio, the labeling config of the project is printed.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("next", __doc__, epilog=EPILOG)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a run")
    parser.add_argument("--pool", type=Path, required=True, help="a file of unlabeled texts")
    text = "the number of texts (default: %(default)s)"
    parser.add_argument("-n", "--count", type=int, default=100, help=text)
    text = "labeled texts: none is chosen again, and rare labels are those that are rare here"
    parser.add_argument("--labeled", type=Path, metavar="FILE", help=text)
    text = "write tasks with predictions for this tool (default: %(default)s)"
    parser.add_argument("--to", choices=TOOLS, default="label-studio", help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    text = "the name of the texts' column or key (default: as in the run)"
    parser.add_argument("--text-column", metavar="NAME", default="", help=text)
    return parser


def run(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise ConfigError(f"-n {args.count}: must be at least 1")
    if args.out.exists() and args.pool.exists() and args.out.samefile(args.pool):
        raise ConfigError(f"--out {args.out}: is the pool; give another file")
    from jaxclf.files.atomic import write_text
    from jaxclf.inference.label_next import choose_next, make_tasks, read_labeled
    from jaxclf.inference.load import load

    classifier = load(args.run)
    text_column = args.text_column or classifier.experiment.data.text_column
    labeled = read_labeled(classifier, args.run, args.labeled, text_column)
    chosen = choose_next(classifier, args.pool, args.count, labeled, text_column)
    tasks = make_tasks(classifier, chosen, text_column)
    write_text(args.out, TOOLS[args.to].format(tasks))
    if args.to == "label-studio":
        print(label_config(classifier.labels))
    print(f"{len(tasks):,} texts to label: {args.out}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
