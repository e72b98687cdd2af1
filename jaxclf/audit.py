"""List annotations that are probably wrong, for a person to check."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError
from jaxclf.text.annotation_tasks import TOOLS

EPILOG = """\
examples:
  jaxclf audit --run runs/focal_attention --split test
  jaxclf audit --exp focal_attention --folds 5 --out runs/audit train.epochs=3

--run audits a split on which a finished run was not trained. --exp audits the training split: it is
cut into folds, and each fold is scored by a model trained on the others. It resumes.

The CSV has a row for each annotation that the model confidently contradicts, the least probable
first: id, label, given_label, suggested_label, probability. Some are mistakes of the model.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("audit", __doc__, overrides="with --exp: any key", epilog=EPILOG)
    parser.add_argument("--run", type=Path, help="the folder of a finished run")
    splits, text = ("val", "test", "held_out"), "with --run (default: %(default)s)"
    parser.add_argument("--split", default="test", choices=splits, help=text)
    parser.add_argument("--exp", help="a name, a .py file or a run's config.json")
    parser.add_argument("--folds", type=int, default=5, help="with --exp (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="with --exp: the folder of the runs")
    text = "default: audit.csv in the folder of --run or --out"
    parser.add_argument("--csv", type=Path, metavar="FILE", help=text)
    parser.add_argument("--include-texts", action="store_true", help="add the texts to the CSV")
    parser.add_argument("--to", choices=TOOLS, help="write tasks too: audit.tasks.json or .jsonl")
    parser.add_data_files()
    return parser


def run(args: argparse.Namespace) -> None:
    folder = args.run or args.out
    if (args.run is None) == (args.exp is None) or folder is None:
        raise ConfigError("give --run DIR, or --exp NAME with --out DIR")
    if args.run and args.overrides:
        raise ConfigError(
            f"{args.override_words[0]}: key=value needs --exp; a run is audited as is"
        )
    if args.folds < 2:
        raise ConfigError(f"--folds {args.folds}: must be at least 2")
    from jaxclf.decisions.label_issues import label_noise, write_label_issues
    from jaxclf.decisions.provenance import run_warnings
    from jaxclf.reports.audit_tasks import write_audit_tasks
    from jaxclf.reports.tables import label_noise_table, print_tables
    from jaxclf.training.members import load_split, predict_held_out, read_texts

    if args.run:
        predictions, names = load_split(args.run, args.split)
    else:
        predictions, names = predict_held_out(args.exp, args.overrides, args.folds, args.out)
    path, texts = args.csv or folder / "audit.csv", {}
    if args.include_texts or args.to:
        texts = read_texts(args.run or args.out / "fold-0", predictions.split)
    issues = (path, predictions, names)
    count = write_label_issues(*issues, texts if args.include_texts else None)
    if args.to:
        write_audit_tasks(*issues, texts, args.to)
    print_tables(label_noise_table(label_noise(predictions.labels, predictions.probs), names))
    runs = [args.run] if args.run else [args.out / f"fold-{fold}" for fold in range(args.folds)]
    for sentence in run_warnings(runs, predictions.split):
        print(f"- {sentence}")
    print(f"{count:,} annotations to check: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
