"""Compare runs on the same examples: `python -m jaxclf.compare runs/a runs/b`."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxclf.cli import CommandParser, run_command, say
from jaxclf.decisions.compare_runs import (
    System,
    compare_systems,
    read_system,
    record_of,
)
from jaxclf.decisions.comparison import holm
from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override
from jaxclf.experiment.validation import check
from jaxclf.files.json_file import write_json
from jaxclf.reports.tables import comparison_tables, format_p_value, print_tables
from jaxclf.training.ablation import FULL, THRESHOLD, ablations
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train

RESAMPLES, SEED = 10_000, 0
EPILOG = """\
Each DIR is a run's folder; several with commas between them are one system's runs, which differ in
their seed: runs/a-seed0,runs/a-seed1 runs/b-seed0,runs/b-seed1. The first is compared with each of
the others: paired bootstrap (BCa) over examples and seeds, approximate randomization for p.

--ablate trains an experiment and its neighbours, each with one choice put back to the baseline's,
and compares. Stopped, the same command goes on; what is finished is kept:
  python -m jaxclf.compare --ablate focal_attention --seeds 3 --out runs/ablation train.epochs=2
"""


def ablate(name: str, changes: Mapping[str, Any], seeds: int, out: Path) -> dict[str, list[Path]]:
    """Train an experiment and its neighbours, each with so many seeds; their run folders.

    Finished runs are kept and a broken one goes on, so the same command again does what is left.
    """
    full = override(catalog.load(name), changes)
    baseline = override(catalog.load("baseline"), changes)
    todo = ablations(full, baseline)
    for experiment in todo.values():
        check(experiment)
    runs: dict[str, list[Path]] = {label: [] for label in todo}
    # Where one choice differs, putting it back is the baseline: the same experiment trains once.
    name_of = {label: _first(todo, experiment) for label, experiment in todo.items()}
    # Seeds outermost: after the first round every neighbour has a run, whenever it is stopped.
    for seed in range(seeds):
        for label, experiment in todo.items():
            folder = out / f"{name_of[label].replace('=', '-')}-seed{seed}"
            runs[label].append(folder)
            if name_of[label] != label:
                continue
            say(f"\n{label}, seed {seed}: {folder}")
            train(override(experiment, {"seed": seed}), folder)
            jax.clear_caches()  # another network's programs
    return runs


def _first(todo: Mapping[str, Experiment], experiment: Experiment) -> str:
    return next(label for label, one in todo.items() if one == experiment)


def score_ablation(runs: Mapping[str, list[Path]], resamples: int) -> dict[str, Any]:
    """The full experiment against each neighbour on test; p adjusted by Holm over them."""
    full = read_system(FULL, runs[FULL], "test")
    others = [read_system(label, folders, "test") for label, folders in runs.items()][1:]
    others.append(read_system(THRESHOLD, runs[FULL], "test", half=True))
    found = {
        other.name: compare_systems(full, other, resamples, SEED, matched=other.name == THRESHOLD)
        for other in others
    }
    adjusted = holm([one.metrics["macro_f1"].p for one in found.values()])
    record = {label: record_of(one, full.names) for label, one in found.items()}
    for row, p in zip(record.values(), adjusted, strict=True):
        row["metrics"]["macro_f1"]["p_holm"] = float(p)
    return record


def ablation_table(record: Mapping[str, Any]) -> str:
    """Markdown: what each choice is worth."""
    lines = [
        "| put back | macro F1 before | after | worth | 95 % interval | p (Holm) | does it help? |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, rows in record.items():
        row = rows["metrics"]["macro_f1"]
        low, high = row["interval"]
        helps = {"A is better": "yes", "B is better": "no, it harms"}
        sure = row["p_holm"] <= 0.05
        answer = helps.get(row["verdict"], "no evidence") if sure else "no evidence"
        lines.append(
            f"| {label} | {row['a']:.3f} | {row['b']:.3f} | {row['difference']:+.3f} | "
            f"{low:+.3f} to {high:+.3f} | {format_p_value(row['p_holm'])} | {answer} |"
        )
    return "\n".join(lines)


def build_parser() -> CommandParser:
    parser = CommandParser("compare", __doc__, overrides="with --ablate", epilog=EPILOG)
    parser.add_argument("runs", nargs="*", metavar="DIR", help="finished runs")
    parser.add_argument("--split", default="test", choices=("val", "test"), help="default: test")
    parser.add_argument("--ablate", metavar="EXP", help="train an experiment and its neighbours")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--out", type=Path, help="where the runs of --ablate lie")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"default: {RESAMPLES:,}")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), _command, argv)


def _command(args: argparse.Namespace) -> None:
    if args.resamples < 100:
        raise ConfigError(f"--resamples {args.resamples}: at least 100")
    record = _ablate(args) if args.ablate else _compare(args)
    if args.output:
        write_json(args.output, record)


def _ablate(args: argparse.Namespace) -> dict[str, Any]:
    if args.out is None or args.seeds < 1:
        raise ConfigError("--ablate needs --out DIR and at least one of --seeds")
    tune_malloc()
    runs = ablate(args.ablate, args.overrides, args.seeds, args.out)
    record = score_ablation(runs, args.resamples)
    write_json(args.out / "ablation.json", record)
    print(ablation_table(record))
    return record


def _compare(args: argparse.Namespace) -> dict[str, Any]:
    if len(args.runs) < 2:
        raise ConfigError("give two runs or more, or --ablate EXP")
    systems = [_system(word, args.split) for word in args.runs]
    record = {}
    for other in systems[1:]:
        found = record_of(compare_systems(systems[0], other, args.resamples, SEED), other.names)
        record[other.name] = found
        print_tables(*comparison_tables(found, systems[0].name, other.name))
    return record


def _system(word: str, split: str) -> System:
    return read_system(word, [Path(part) for part in word.split(",")], split)


if __name__ == "__main__":
    sys.exit(main())
