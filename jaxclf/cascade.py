"""Run a cheap model before a strong one: `python -m jaxclf.cascade --runs A B --out DIR`."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.cli import make_parser, run_command, say
from jaxclf.decisions.calibration import calibrated, platt
from jaxclf.decisions.evaluation import evaluate_split, rule_of
from jaxclf.decisions.members import Members, read_members
from jaxclf.decisions.metrics import aggregate, log_loss
from jaxclf.decisions.predictions import save_predictions
from jaxclf.decisions.provenance import fitted_by, join_provenances, with_fitted
from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Spec, did_you_mean, override, parse_overrides, to_dict
from jaxclf.files.json_file import write_json
from jaxclf.files.untrusted import parse_json
from jaxclf.inference.cascade.cutoffs import (
    Goal,
    RuleMatches,
    fit_cascade,
    fit_out_of_fold,
    run_stages,
    unruled,
)
from jaxclf.inference.cascade.folder import Chain, Rule, pool_networks, read_rules, save_cascade
from jaxclf.inference.cascade.margins import WORTH
from jaxclf.inference.cascade.stages import apply_rules, assemble, measure
from jaxclf.inference.cascade.summary import STAGES, describe, format_stages
from jaxclf.inference.load import load
from jaxclf.inference.members import model_folder
from jaxclf.model.storage.saved_model import META
from jaxclf.reports.diagnosis import diagnose
from jaxclf.reports.html_report import write_page
from jaxclf.reports.model_card import card
from jaxclf.reports.tables import print_tables, score_tables
from jaxclf.text.reader import read

EPILOG = f"""\
SMALL and LARGE are finished runs or ensembles, from cheap to strong. What they share is computed
once, so LARGE may be an ensemble that has SMALL for a member:
  python -m jaxclf.ensemble --runs runs/a runs/b runs/c --out runs/blend
  python -m jaxclf.cascade --runs runs/a runs/blend --out runs/fast
An ensemble of two between the two, runs/a and runs/b, saves some more.

Each text leaves at the first stage that leaves no label of it in doubt. Fitted on validation:
  metric  what leaving early may cost some of: {", ".join(WORTH)}
  loss    how much of it, against the last stage alone (0.002)
  sure    the chance that no more is lost where it is measured on as many texts (0.8)
  last    labels that only the last stage decides: last=self_harm_high,self_harm_low
  miss    of the texts to which it gives one of those, the share that may leave before (0.02)

--rules FILE: {{"rules": [{{"phrases": ["want to die", "suicid*"]}}, …]}}. A text with one of the
phrases goes to the last stage; where the rule has a "label", the text has that label instead.
"""


@dataclass(frozen=True)
class CascadeConfig:
    """What leaving early may cost."""

    metric: str = "macro_f1"
    loss: float = 0.002
    sure: float = 0.8
    last: tuple[str, ...] = ()
    miss: float = 0.02


def goal_of(recipe: CascadeConfig, names: tuple[str, ...]) -> Goal:
    """Raises ConfigError for values out of range and for labels that there are not."""
    if recipe.metric not in WORTH:
        raise ConfigError(f"metric={recipe.metric!r}" + did_you_mean(recipe.metric, WORTH))
    for key, value, fine, span in (
        ("loss", recipe.loss, 0 <= recipe.loss <= 1, "[0, 1]"),
        ("sure", recipe.sure, 0.5 <= recipe.sure < 1, "[0.5, 1)"),
        ("miss", recipe.miss, 0 < recipe.miss < 1, "(0, 1)"),
    ):
        if not fine:
            raise ConfigError(f"{key}={value!r} is out of range {span}")
    if odd := [name for name in recipe.last if name not in names]:
        raise ConfigError(f"last: {odd[0]!r} is no label" + did_you_mean(odd[0], names))
    last = np.array([name in recipe.last for name in names])
    return Goal(recipe.metric, recipe.loss, recipe.sure, last, recipe.miss)


def make_cascade(
    runs: Sequence[Path], recipe: CascadeConfig, out: Path, rules_file: Path | None = None
) -> dict[str, Any]:
    """Fit the cut-offs on val, score val and test, write the folder; what report.json holds.

    runs: folders of finished runs or ensembles, from cheap to strong.
    Raises ConfigError and DataError, before anything is written.
    """
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise ConfigError("--runs: a cascade needs two different runs or more, the strongest last")
    if out.resolve() in [run.resolve() for run in runs]:
        raise ConfigError(f"--out {out} is one of the runs; give another folder")
    systems = {str(run): [run] for run in runs}
    members = {split: read_members(systems, split) for split in ("val", "test")}
    val, names = members["val"], members["val"].names
    goal = goal_of(recipe, names)
    models, weights = pool_networks([model_folder(run) for run in runs], len(names))
    rules = _rules(rules_file, names)
    strong = load(runs[-1])
    data, thresholds = strong.experiment.data, strong.thresholds
    texts = {split: _texts(Path(getattr(data, split)), part) for split, part in members.items()}
    ruled = {split: _ruled(rules, texts[split], part) for split, part in members.items()}

    record = _json(runs[-1] / "thresholds.json")
    spec = _spec_of(record[names[0]])
    early = fit_cascade(val.like.labels, val.probs, thresholds, goal)
    rule = rule_of(spec, names)
    honest = fit_out_of_fold(val.like.labels, val.probs, rule, goal, ruled["val"])
    mixed = {split: run_stages(early, part.probs, ruled[split]) for split, part in members.items()}
    found = {split: part.like._replace(probs=mixed[split].probs) for split, part in members.items()}
    provenance = join_provenances([_json(run / "provenance.json") for run in runs])
    if spec.name != "fixed":
        provenance = with_fitted(provenance, f"the thresholds ({spec.name})", "val")
    provenance = with_fitted(provenance, "the cut-offs of the cascade", "val")
    report = {split: evaluate_split(part, thresholds, names) for split, part in found.items()}
    for split, part in report.items():
        part["fitted"] = fitted_by(provenance, split)
    fair = aggregate(val.like.labels, honest.mixed.probs, honest.decided)
    report["val"]["crossfit"] = {
        metric: {"score": fair[metric], "optimism": report["val"][metric] - fair[metric]}
        for metric in ("macro_f1", "micro_f1")
    }
    about = describe(members, mixed, ruled, early, honest, thresholds, goal)
    about |= {"goal": to_dict(recipe), "threshold": to_dict(spec)}
    plain = [run.name for run in runs]
    stages = tuple(
        name if plain.count(name) == 1 else f"{name} (stage {index})"
        for index, name in enumerate(plain)
    )
    for stage, name, run in zip(about["stages"], stages, runs, strict=True):
        stage |= {"name": name, "run": str(run)}
    _note(val, about, recipe)

    chain = Chain(names, stages, weights, tuple(early), rules, record, provenance)
    cascade = assemble(chain, models)
    about["cost"] = measure(cascade, strong, mixed["test"].stage, texts["test"])
    encoders = {_json(model / META)["experiment"]["encoder"]["name"] for model in models}
    text = card(
        out.name,
        f"{len(models)} networks in {len(runs)} stages; {', '.join(sorted(encoders))}",
        report,
        spec.name,
        strong.experiment.calibration.name,
        {split: len(part.ids) for split, part in found.items()},
        data.label_descriptions,
    )
    text += f"\n## Stages\n\n```\n{format_stages(about)}\n```\n"

    for split, predictions in found.items():
        save_predictions(out / "predictions" / f"{split}.npz", predictions)
    save_cascade(out / "model", chain, models, text)
    for name, values in (
        ("labels.json", list(names)), ("provenance.json", provenance), ("thresholds.json", record),
        (STAGES, about), ("diagnosis.json", diagnose([], report)), ("report.json", report),
    ):  # fmt: skip
        write_json(out / name, values)
    write_page(out)
    return report


def _spec_of(record: Mapping[str, Any]) -> Spec:
    """The rule of thresholds.json."""
    options = {
        key: value
        for key, value in record.items()
        if key not in ("value", "interval", "split", "rule")
    }
    return Spec(record["rule"], **options)


def _rules(file: Path | None, names: tuple[str, ...]) -> tuple[Rule, ...]:
    if file is None:
        return ()
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    return read_rules(parse_json(file.read_bytes(), str(file)), file, names)


def _texts(file: Path, part: Members) -> list[str] | None:
    """The texts that were scored; None where their file is gone. Raises DataError for another's."""
    if not file.is_file():
        return None
    examples = read(file, part.names)
    if list(examples.ids) != list(part.like.ids):
        raise DataError(f"{file}: its rows are not those that the runs have scored")
    return list(examples.texts)


def _ruled(rules: tuple[Rule, ...], texts: list[str] | None, part: Members) -> RuleMatches:
    if not rules:
        return unruled(part.probs)
    if texts is None:
        raise ConfigError(
            f"--rules: the {part.like.split} texts are gone, and cut-offs are fitted with the rules"
        )
    return apply_rules(rules, texts, part.names)


def _note(val: Members, about: Mapping[str, Any], recipe: CascadeConfig) -> None:
    """What the figures alone would not say."""
    labels = val.like.labels
    losses = [log_loss(labels, calibrated(platt(labels, one), one)) for one in val.probs]
    for stage, loss in zip(about["stages"][:-1], losses, strict=False):
        if loss <= losses[-1]:
            say(
                f"note: {stage['run']} has no more log loss on val than the last stage; it may do "
                "alone"
            )
    for name, splits in about["last"].items():
        needed = int(np.ceil((len(val.probs) - 1) / recipe.miss)) - 1
        if (given := splits["val"]["given"]) < needed:
            say(
                f"note: the last stage gives {name} to {given} validation texts; "
                f"miss={recipe.miss} needs {needed} to be promised, so every text goes on"
            )


def _json(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path}: no such file; is it the folder of a finished run?")
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> int:
    parser = make_parser(__doc__, epilog=EPILOG)
    parser.add_argument(
        "--runs", nargs="+", metavar="DIR", required=True, help="from cheap to strong; key=value"
    )
    parser.add_argument("--rules", type=Path, metavar="FILE", help="phrases that overrule stages")
    parser.add_argument("--out", type=Path, required=True, help="the cascade's folder")
    return run_command(parser, _command)


def _command(args: argparse.Namespace) -> None:
    runs = [Path(word) for word in args.runs if "=" not in word]
    changes = parse_overrides([word for word in args.runs if "=" in word])
    report = make_cascade(runs, override(CascadeConfig(), changes), args.out, args.rules)
    print_tables(*score_tables(report["test"], "test"))
    print(format_stages(_json(args.out / STAGES)))
    print(f"\nreport: {args.out / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
