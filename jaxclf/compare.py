"""Compare runs on the same examples, or an experiment with its ablations."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError

RESAMPLES, SEED = 10_000, 0
EPILOG = """\
examples:
  jaxclf compare runs/focal_attention runs/baseline
  jaxclf compare runs/a-0,runs/a-1,runs/a-2 runs/b-0,runs/b-1,runs/b-2
  jaxclf compare --ablate focal_attention --seeds 3 --out runs/short_ablation train.epochs=2

Runs that differ only in their seed are one system; separate them by commas. The first system is
compared with each of the others: a paired bootstrap (BCa) over examples and seeds gives intervals,
approximate randomization gives p.

--ablate trains an experiment and variants that each revert one choice to the baseline's, and
compares them. Run the same command again to resume; finished runs are kept.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("compare", __doc__, overrides="with --ablate: any key", epilog=EPILOG)
    parser.add_argument("runs", nargs="*", metavar="DIR", help="finished runs")
    parser.add_argument("--split", default="test", choices=("val", "test"), help="default: test")
    parser.add_argument("--ablate", metavar="EXP", help="an experiment to train with its ablations")
    parser.add_argument("--seeds", type=int, default=3, help="with --ablate: of each (default: 3)")
    parser.add_argument("--out", type=Path, help="with --ablate: the folder of the runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparisons as JSON")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"default: {RESAMPLES:,}")
    parser.add_data_files()
    return parser


def run(args: argparse.Namespace) -> None:
    if args.resamples < 100:
        raise ConfigError(f"--resamples {args.resamples}: must be at least 100")
    if args.ablate and (args.out is None or args.seeds < 1 or args.runs):
        raise ConfigError("--ablate needs --out DIR and --seeds of at least 1, and takes no runs")
    if not args.ablate and (len(args.runs) < 2 or args.overrides):
        raise ConfigError("give two runs or more, or --ablate EXP; only --ablate takes key=value")
    from jaxclf.decisions.compare_runs import compare_folders
    from jaxclf.decisions.provenance import run_warnings
    from jaxclf.files.json_file import write_json
    from jaxclf.reports.tables import ablation_table, comparison_tables, print_tables

    if args.ablate:
        from jaxclf.training.ablation import score_ablations, train_ablations

        folders = train_ablations(args.ablate, args.overrides, args.seeds, args.out)
        record = score_ablations(folders, args.resamples, SEED)
        write_json(args.out / "ablation.json", record)
        print_tables(ablation_table(record))
    else:
        record = compare_folders(args.runs, args.split, args.resamples, SEED)
        for name, comparison in record.items():
            print_tables(*comparison_tables(comparison, args.runs[0], name))
        folders = {name: [Path(run) for run in name.split(",")] for name in args.runs}
    split = "test" if args.ablate else args.split
    for sentence in run_warnings([run for runs in folders.values() for run in runs], split):
        print(f"- {sentence}")
    if args.json:
        write_json(args.json, record)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
