"""Search the space of an experiment for a better one, scored on validation."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.experiment.catalog import DEFAULT

TRIALS = 30
EPILOG = """\
examples:
  jaxclf tune --exp focal_attention --trials 30
  jaxclf tune --exp focal_attention --trials 200 --out runs/big \\
      --storage postgresql://user:password@host/database --worker

The experiment's file holds its `space` (see jaxclf/experiment/search_space.py). A key on the
command line is held fixed and not searched. The first trial is the experiment itself. A trial that
is worse than the median of the others at the same percentage of its epochs is pruned. Trials are
scored by train.metric on validation; the test split is not used.

After a signal or a crash, run the same command again to resume. For several processes on one
machine use --workers; for several machines, give each the same --storage and the same name of the
--out folder, and all but one --worker.

Results: OUT/study.html, and the best trial as an experiment, NAME_tuned.py beside NAME.py.
"""


def build_parser() -> CommandParser:
    parser = CommandParser("tune", __doc__, overrides="held fixed in all trials", epilog=EPILOG)
    text = "a name or a .py file that has a `space` (default: %(default)s)"
    parser.add_argument("--exp", default=DEFAULT, help=text)
    parser.add_argument(
        "--trials",
        type=int,
        default=TRIALS,
        help=f"total number of finished trials, earlier ones included (default: {TRIALS})",
    )
    parser.add_argument("--out", type=Path, help="folder of the search (default: runs/NAME-search)")
    parser.add_argument("--storage", metavar="URL", help="database (default: OUT/study.db)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--worker", action="store_true", help="run trials only; write no page and no experiment"
    )
    parser.add_argument(
        "--save-best", metavar="PATH", type=Path, help="where to write the best trial (a .py file)"
    )
    parser.add_data_files()
    return parser


def run(args: argparse.Namespace) -> None:
    from jaxclf.errors import ConfigError
    from jaxclf.search.run import make_plan, run_search
    from jaxclf.search.winner import save_winner

    for name in ("trials", "workers"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)}: must be at least 1")
    plan = make_plan(args.exp, args.overrides, args.out, args.storage, args.save_best)
    arguments = ["--exp", args.exp, "--trials", str(args.trials), *args.override_words]
    worker = [*arguments, "--worker", "--out", str(plan.out), "--storage", plan.url]
    results = run_search(plan, args.trials, args.workers, worker, args.worker)
    if args.worker:
        return
    message = save_winner(plan.winner, args.exp, plan.base, results, arguments)
    print(f"\n{message}\npage: {plan.out / 'study.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
