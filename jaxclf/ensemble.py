"""Blend several runs into one model: `python -m jaxclf.ensemble --runs DIR DIR … --out DIR`."""

import argparse
import functools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxclf.cli import CommandParser, run_command, say
from jaxclf.decisions.blending import BLENDERS, blend, blend_out_of_fold
from jaxclf.decisions.evaluation import rule_of, score_run
from jaxclf.decisions.members import (
    MEMBERS,
    Systems,
    describe,
    read_held_out,
    read_members,
)
from jaxclf.decisions.predictions import save_predictions
from jaxclf.decisions.provenance import join_provenances, with_fitted
from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import override, to_dict
from jaxclf.experiment.registries import signatures
from jaxclf.experiment.validation import check_labels, check_spec
from jaxclf.files.json_file import write_json
from jaxclf.inference.load import load
from jaxclf.inference.soft_labels import write_soft_labels
from jaxclf.model.storage.ensemble_folder import Blend, load_ensemble, save_ensemble
from jaxclf.reports.diagnosis import diagnose
from jaxclf.reports.html_report import write_page
from jaxclf.reports.model_card import make_card
from jaxclf.reports.tables import members_table, print_tables, score_tables
from jaxclf.text.reader import read
from jaxclf.text.splits import subsample
from jaxclf.training.data import HELD_OUT
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train

EPILOG = """\
With --runs, finished runs become members as they are:
  python -m jaxclf.ensemble --runs runs/a runs/b runs/c --out runs/blend blend=simplex
With --exp, members are trained first, each experiment with each seed. With --folds K each of those
is trained K times, another fold of the training rows held out, and the weights are fitted on what
was held out instead of on validation. Stopped, the same command goes on:
  python -m jaxclf.ensemble --exp focal_attention baseline --seeds 3 --out runs/blend train.epochs=3

--distill NAME then trains that experiment on the ensemble's probabilities for the training rows:
one network, in OUT/student, that has learned from all.

Keys blend and threshold are the ensemble's own, all others the members' (with --exp) and the
student's.
names that blend may take, with their options: """


OWN = ("blend", "threshold")


@dataclass(frozen=True)
class EnsembleConfig:
    """How members become one."""

    blend: Spec = field(default_factory=lambda: Spec("uniform"))
    threshold: Spec = field(default_factory=lambda: Spec("plug_in"))


def train_members(
    names: Sequence[str], changes: Mapping[str, Any], seeds: int, folds: int, out: Path
) -> dict[str, list[Path]]:
    """Each experiment with each seed: its runs, one or one per fold. Finished ones are kept."""
    systems: dict[str, list[Path]] = {}
    for name in names:
        experiment = override(catalog.load(name), changes)
        for seed in range(seeds):
            label = f"{Path(name).stem}-seed{seed}"
            parts = [{"data.folds": folds, "data.fold": fold} for fold in range(folds)] or [{}]
            systems[label] = []
            for fold, part in enumerate(parts):
                run = out / "members" / (f"{label}-fold{fold}" if folds else label)
                say(f"\n{run}")
                train(override(experiment, {"seed": seed, **part}), run)
                jax.clear_caches()  # another network's programs
                systems[label].append(run)
    return systems


def make_ensemble(
    systems: Systems, recipe: EnsembleConfig, folds: int, out: Path
) -> dict[str, Any]:
    """Fit weights and thresholds, score val and test, write the folder; what report.json holds."""
    members = {split: read_members(systems, split) for split in ("val", "test")}
    names = members["val"].names
    check_labels(recipe, names)
    source = read_held_out(systems, HELD_OUT) if folds else members["val"]
    blender = functools.partial(BLENDERS[recipe.blend.name], **recipe.blend.options)
    weights = blender(source.like.labels, source.probs)
    found = {
        split: part.like._replace(probs=blend(part.probs, weights))
        for split, part in members.items()
    }
    if source is members["val"]:  # then what is said of val is out of fold
        probs = blend_out_of_fold(source.like.labels, source.probs, blender)
        found["val"] = source.like._replace(probs=probs)
    runs = [run for parts in systems.values() for run in parts]
    provenance = join_provenances([_json(run / "provenance.json") for run in runs])
    if recipe.blend.name != "uniform":
        what = f"the weights of the ensemble ({recipe.blend.name})"
        provenance = with_fitted(provenance, what, "train" if folds else "val")
    if recipe.threshold.name != "fixed":
        provenance = with_fitted(provenance, f"the thresholds ({recipe.threshold.name})", "val")
    report, record = score_run(found, recipe.threshold, names, provenance)
    rule = rule_of(recipe.threshold, names)
    about = to_dict(recipe) | describe(systems, source, weights, blender, rule)

    for split, predictions in found.items():
        save_predictions(out / "predictions" / f"{split}.npz", predictions)
    experiments = [catalog.load(str(run / "config.json")) for run in runs]
    if timid := sum(one.calibration.name == "none" for one in experiments):
        say(
            f"note: the probabilities of {timid} of {len(runs)} members are not calibrated "
            "(calibration=platt, when they are trained): the loudest weighs most"
        )
    text = make_card(
        out.name,
        [one.encoder for one in experiments],
        report,
        recipe.threshold.name,
        experiments[0].calibration.name,
        {split: len(part.ids) for split, part in found.items()},
        experiments[0].data.label_descriptions,
        structure=f"{len(runs)} networks whose probabilities are averaged",
    )
    # Runs of one system, its folds, share its weight.
    pairs = zip(weights, systems.values(), strict=True)
    each = np.array([weight / len(parts) for weight, parts in pairs for _ in parts])
    made = Blend(tuple(run.name for run in runs), names, each, record, provenance)
    save_ensemble(out / "model", made, [run / "model" for run in runs], text)
    for name, values in (
        ("labels.json", list(names)), ("provenance.json", provenance), ("thresholds.json", record),
        (MEMBERS, about), ("diagnosis.json", diagnose([], report)), ("report.json", report),
    ):  # fmt: skip
        write_json(out / name, values)
    write_page(out)
    return report


def teachers_file(systems: Systems, folds: int, out: Path) -> Path:
    """The ensemble's probabilities for the members' training rows: of runs that held each out,
    where there are folds."""
    path = out / "teacher.npz"
    if folds:
        held = read_held_out(systems, HELD_OUT)
        blended = load_ensemble(out / "model")[0].weights
        runs = len(blended) // len(systems)
        probs = blend(held.probs, blended[::runs] * runs)
        save_predictions(path, held.like._replace(probs=probs))
    else:
        run = next(iter(systems.values()))[0]
        data = catalog.load(str(run / "config.json")).data
        write_soft_labels(
            load(out), subsample(read(data.train, data.labels), data.max_train_examples), path
        )
    return path


def last_names(folders: Sequence[str]) -> list[str]:
    """Their last names, where those differ."""
    names = [Path(folder).resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else list(folders)


def _json(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; is it the folder of a finished run?")
    return json.loads(path.read_text(encoding="utf-8"))


def build_parser() -> CommandParser:
    parser = CommandParser(
        "ensemble",
        __doc__,
        overrides="blend=NAME, threshold=NAME, calibration=NAME, and of --exp any key",
        epilog=lambda: EPILOG + ", ".join(signatures("blend")),
    )
    parser.add_argument("--runs", nargs="+", metavar="DIR", help="finished runs")
    parser.add_argument("--exp", nargs="+", metavar="NAME", help="experiments")
    parser.add_argument("--seeds", type=int, default=1, help="with --exp: of each (default: 1)")
    parser.add_argument("--folds", type=int, default=0, help="with --exp (default: none)")
    parser.add_argument("--distill", metavar="NAME", help="an experiment to learn from the whole")
    parser.add_argument("--out", type=Path, required=True, help="the ensemble's folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), _command, argv)


def _command(args: argparse.Namespace) -> None:
    if (args.runs is None) == (args.exp is None):
        raise ConfigError("give --runs DIR DIR …, or --exp NAME …")
    if args.seeds < 1 or args.folds in (1, *range(-9, 0)):
        raise ConfigError("--seeds is at least 1, --folds 0 or at least 2")
    named = args.exp or args.runs
    own = {key: value for key, value in args.overrides.items() if key.split(".")[0] in OWN}
    rest = {key: value for key, value in args.overrides.items() if key not in own}
    recipe = override(EnsembleConfig(), own)
    check_spec("blend", recipe.blend)
    check_spec("threshold", recipe.threshold)
    if args.exp:
        tune_malloc()
        systems = train_members(named, rest, args.seeds, args.folds, args.out)
    else:
        if args.folds or (rest and not args.distill):
            raise ConfigError("finished runs are taken as they are: only blend and threshold apply")
        systems = {name: [Path(word)] for name, word in zip(last_names(named), named, strict=True)}
    if not systems:
        raise ConfigError("an ensemble needs a member")
    report = make_ensemble(systems, recipe, args.folds, args.out)
    print_tables(members_table(_json(args.out / MEMBERS)))
    print_tables(*score_tables(report["test"], "test"))
    print(f"\nreport: {args.out / 'report.html'}")
    if args.distill:
        tune_malloc()
        soft = {"data.soft_labels": str(teachers_file(systems, args.folds, args.out))}
        student = override(catalog.load(args.distill), {**rest, **soft})
        report = train(student, args.out / "student")
        print_tables(*score_tables(report["test"], "test, by the student"))
        print(f"\nreport: {args.out / 'student' / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
