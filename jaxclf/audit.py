"""Find labels worth a second look: `python -m jaxclf.audit --run DIR | --exp NAME --out DIR`."""

import argparse
import json
import sys
from pathlib import Path

from jaxclf.cli import CommandParser, run_command, say
from jaxclf.decisions.label_issues import label_noise, write_suspects
from jaxclf.decisions.predictions import load_predictions, merge_predictions, save_predictions
from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override
from jaxclf.reports.tables import label_noise_table, print_tables
from jaxclf.text.reader import read
from jaxclf.training.data import HELD_OUT, split_file
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train
from jaxclf.types import Predictions

EPILOG = """\
With --run, a finished run's own predictions of a split that it did not learn from, at no cost:
  python -m jaxclf.audit --run runs/focal_attention --split test

With --exp, the training split: it is cut into folds, and each is scored by a model trained on the
others. Stopped, the same command goes on:
  python -m jaxclf.audit --exp focal_attention --folds 5 --out runs/audit train.epochs=3

The CSV has a row for each label of a text that the model is confident is otherwise, the least
believed first: id, label, given, suggested, probability. A person decides; some of them are the
model's mistakes.
"""


def read_run(run: Path, split: str) -> tuple[Predictions, tuple[str, ...]]:
    """A finished run's predictions of a split, and the labels' names."""
    found = load_predictions(run / "predictions" / f"{split}.npz")
    return found, tuple(json.loads((run / "labels.json").read_text(encoding="utf-8")))


def score_folds(
    experiment: Experiment, folds: int, out: Path
) -> tuple[Predictions, tuple[str, ...]]:
    """Every training example's probabilities from a model that did not learn from it, kept in
    `out/predictions/held_out.npz`; and the labels' names.

    Finished folds are kept and a broken one goes on.
    """
    runs = [out / f"fold-{fold}" for fold in range(folds)]
    for fold, run in enumerate(runs):
        say(f"\nfold {fold + 1} of {folds}: {run}")
        train(override(experiment, {"data.folds": folds, "data.fold": fold}), run)
    parts = [read_run(run, HELD_OUT) for run in runs]
    merged = merge_predictions([part for part, _ in parts])
    save_predictions(out / "predictions" / f"{HELD_OUT}.npz", merged)
    return merged, parts[0][1]


def build_parser() -> CommandParser:
    parser = CommandParser("audit", __doc__, overrides="with --exp", epilog=EPILOG)
    parser.add_argument("--run", type=Path, help="a finished run's folder")
    parser.add_argument(
        "--split", default="test", choices=("val", "test", HELD_OUT), help="with --run; test"
    )
    parser.add_argument("--exp", help="a name, a .py file or a run's config.json")
    parser.add_argument("--folds", type=int, default=5, help="with --exp (default: 5)")
    parser.add_argument("--out", type=Path, help="with --exp: where the folds' runs lie")
    parser.add_argument("--output", type=Path, help="the CSV (default: audit.csv in the folder)")
    parser.add_argument("--show-text", action="store_true", help="add the texts to the CSV")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), _command, argv)


def _command(args: argparse.Namespace) -> None:
    folder = args.run or args.out
    if (args.run is None) == (args.exp is None) or folder is None:
        raise ConfigError("give --run DIR, or --exp NAME with --out DIR")
    if args.run and args.overrides:
        raise ConfigError(f"{args.override_words[0]}: a finished run is audited as it is")
    if args.run:
        found, names = read_run(args.run, args.split)
    else:
        if args.folds < 2:
            raise ConfigError(f"--folds {args.folds}: at least 2")
        tune_malloc()
        experiment = override(catalog.load(args.exp), args.overrides)
        found, names = score_folds(experiment, args.folds, args.out)
    texts = None
    if args.show_text:
        run = args.run or args.out / "fold-0"
        file = split_file(catalog.load(str(run / "config.json")).data, found.split)
        examples = read(file, labelled=False)
        texts = dict(zip(examples.ids, examples.texts, strict=True))
    path = args.output or folder / "audit.csv"
    count = write_suspects(path, found, names, texts)
    noise = label_noise(found.labels, found.probs)
    print_tables(label_noise_table(noise, names))
    print(f"{count:,} given values to look at again, the least believed first: {path}")


if __name__ == "__main__":
    sys.exit(main())
