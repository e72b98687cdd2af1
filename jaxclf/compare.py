"""Compare runs, or an experiment with its neighbours: `python -m jaxclf.compare DIR DIR …`."""

import argparse
import sys
from pathlib import Path

import jax

from jaxclf import catalogue
from jaxclf.command import parser_of, run_command
from jaxclf.config import override, parse_overrides
from jaxclf.train import REGISTRIES, say, train
from jaxclf.training.ablation import neighbours
from jaxclf.training.memory import keep_freed_memory
from jaxclf.validation import check


def ablate(name: str, changes: dict, seeds: int, out: Path) -> dict[str, list[Path]]:
    """Train an experiment and its neighbours, each with so many seeds; their run folders.

    Finished runs are kept and a broken one goes on, so the same command again does what is left.
    """
    full = override(catalogue.load(name), changes)
    baseline = override(catalogue.load("baseline"), changes)
    runs: dict[str, list[Path]] = {}
    todo = neighbours(full, baseline)
    for experiment in todo.values():
        check(experiment, REGISTRIES)
    # Seeds outermost: after the first round every neighbour has a run, whenever it is stopped.
    for seed in range(seeds):
        for label, experiment in todo.items():
            folder = out / f"{label.replace('=', '-')}-seed{seed}"
            say(f"\n{label}, seed {seed}: {folder}")
            train(override(experiment, {"seed": seed}), folder)
            runs.setdefault(label, []).append(folder)
            jax.clear_caches()  # another network's programs
    return runs


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="DIR", help="folders of runs")
    parser.add_argument("--ablate", metavar="EXP", help="train an experiment and its neighbours")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--out", type=Path, help="where the runs of --ablate lie")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="for all of them")
    return run_command(parser, _command)


def _command(args: argparse.Namespace) -> None:
    keep_freed_memory()
    ablate(args.ablate, parse_overrides(args.set), args.seeds, args.out)


if __name__ == "__main__":
    sys.exit(main())
