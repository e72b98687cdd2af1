"""Average the probabilities of several runs into one model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxclf.cli import CommandParser, run_command
from jaxclf.errors import ConfigError
from jaxclf.experiment.registries import signatures

EPILOG = """\
examples:
  jaxclf ensemble --runs runs/a runs/b runs/c --out runs/blend blend=simplex
  jaxclf ensemble --exp focal_attention baseline --seeds 3 --out runs/blend train.epochs=3

--runs blends finished runs. --exp trains the members first, each experiment with each seed; with
--folds K each is trained K times with another fold held out, and the weights are fitted on those
folds instead of on validation. --distill NAME then trains that experiment on the probabilities of
the ensemble: a single network, in OUT/student. Run the same command again to resume.

The keys blend and threshold belong to the ensemble, all others to the networks that are trained.
choices of blend: """


def build_parser() -> CommandParser:
    parser = CommandParser(
        "ensemble",
        __doc__,
        overrides="blend, threshold and, for networks that are trained, any key",
        epilog=lambda: EPILOG + ", ".join(signatures("blend")),
    )
    parser.add_argument("--runs", nargs="+", default=[], metavar="DIR", help="finished runs")
    parser.add_argument("--exp", nargs="+", default=[], metavar="NAME", help="experiments to train")
    parser.add_argument("--seeds", type=int, default=1, help="with --exp: of each (default: 1)")
    parser.add_argument("--folds", type=int, default=0, help="with --exp (default: none)")
    parser.add_argument("--distill", metavar="NAME", help="an experiment, trained as the student")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the ensemble")
    parser.add_data_files()
    return parser


def run(args: argparse.Namespace) -> None:
    if bool(args.runs) == bool(args.exp):
        raise ConfigError("give --runs DIR DIR …, or --exp NAME …")
    if args.seeds < 1 or args.folds < 0 or args.folds == 1:
        raise ConfigError("--seeds must be at least 1, --folds 0 or at least 2")
    from jaxclf.decisions.members import MEMBERS
    from jaxclf.files.json_file import read_json
    from jaxclf.reports.ensemble import make_config, make_ensemble, systems_from_runs, write_teacher
    from jaxclf.reports.tables import members_table, print_scores, print_tables
    from jaxclf.training.members import train_members, train_student

    config, changes = make_config(args.overrides)
    if args.runs and (args.folds or (changes and not args.distill)):
        raise ConfigError("--runs takes finished runs as they are: only blend and threshold apply")
    if args.exp:
        systems = train_members(args.exp, changes, args.seeds, args.folds, args.out)
    else:
        systems = systems_from_runs(args.runs)
    report = make_ensemble(systems, config, args.folds, args.out)
    print_tables(members_table(read_json(args.out / MEMBERS)))
    print_scores(report["test"], "test")
    print(f"report: {args.out / 'report.html'}")
    if args.distill:
        teacher, student = write_teacher(systems, args.folds, args.out), args.out / "student"
        report = train_student(args.distill, changes, teacher, student)
        print_scores(report["test"], "test, by the student")
        print(f"report: {student / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
