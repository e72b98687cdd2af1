"""Build a cascade from finished runs: fit when texts exit early, evaluate it, write its folder."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.decisions.calibration import apply_calibration, platt
from jaxclf.decisions.evaluation import make_report, make_rule, recorded_rule
from jaxclf.decisions.members import Members, read_members
from jaxclf.decisions.metrics import log_loss
from jaxclf.decisions.predictions import save_predictions
from jaxclf.decisions.provenance import (
    Provenance,
    join_provenances,
    read_provenance,
    with_fitted,
    write_provenance,
)
from jaxclf.errors import ConfigError, DataError, did_you_mean
from jaxclf.experiment.config import Encoder, Spec
from jaxclf.experiment.overrides import hint_of, iter_fields, to_dict
from jaxclf.experiment.validation import check_value
from jaxclf.files.json_file import read_json, write_json
from jaxclf.files.untrusted import parse_json
from jaxclf.inference.cascade.config import CascadeConfig
from jaxclf.inference.cascade.cutoffs import (
    Goal,
    RuleMatches,
    fit_exits,
    fit_out_of_fold,
    no_matches,
    run_stages,
)
from jaxclf.inference.cascade.folder import CascadePlan, pool_networks, save_cascade
from jaxclf.inference.cascade.rules import Rule, apply_rules, read_rules
from jaxclf.inference.cascade.stages import make_cascade
from jaxclf.inference.cascade.summary import STAGES, measure_cost, summarize
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.load import load
from jaxclf.inference.members import model_folder
from jaxclf.model.storage.saved_model import META
from jaxclf.text.reader import read
from jaxclf.types import Predictions

log = logging.getLogger(__name__)

SPLITS = ("val", "test")


class FittedCascade(NamedTuple):
    """A cascade before it is written.

    networks: their folders. final: the final stage's classifier. rule: of its thresholds.
    report, summary: the content of report.json and stages.json.
    """

    plan: CascadePlan
    networks: list[Path]
    final: Classifier
    rule: Spec
    predictions: dict[str, Predictions]
    report: dict[str, Any]
    summary: dict[str, Any]


def fit_cascade(
    runs: Sequence[Path], config: CascadeConfig, rules_file: Path | None = None
) -> FittedCascade:
    """Fit the early exits on val and score val and test.

    runs: folders of finished runs or ensembles, from cheap to strong.
    Raises ConfigError and DataError.
    """
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise ConfigError("--runs: give at least two different runs, the strongest last")
    systems = {str(run): [run] for run in runs}
    members = {split: read_members(systems, split) for split in SPLITS}
    val, names = members["val"], members["val"].names
    goal = make_goal(config, names)
    networks, weights = pool_networks([model_folder(run) for run in runs], len(names))
    rules = _read_rules(rules_file, names)
    final = load(runs[-1])
    data = final.experiment.data
    texts = {
        split: _read_texts(Path(getattr(data, split)), part, data.columns)
        for split, part in members.items()
    }
    matches = {split: _match(rules, texts[split], part) for split, part in members.items()}

    thresholds = read_json(runs[-1] / "thresholds.json")
    rule = recorded_rule(thresholds)
    labels = val.reference.labels
    exits = fit_exits(labels, val.probs, final.thresholds, goal)
    out_of_fold = fit_out_of_fold(labels, val.probs, make_rule(rule, names), goal, matches["val"])
    outputs = {
        split: run_stages(exits, part.probs, matches[split]) for split, part in members.items()
    }
    predictions = {
        split: part.reference._replace(probs=outputs[split].probs)
        for split, part in members.items()
    }
    provenance = _join_provenance(runs, rule)
    summary = summarize(members, outputs, matches, exits, out_of_fold, final.thresholds, goal)
    summary |= {"config": to_dict(config), "threshold": to_dict(rule)}
    run_names = [run.name for run in runs]
    for index, (stage, run) in enumerate(zip(summary["stages"], runs, strict=True)):
        is_distinct = run_names.count(run.name) == 1
        stage["name"] = run.name if is_distinct else f"{run.name} (stage {index})"
        stage["run"] = str(run)
    _warn(val, summary, config)

    stage_names = tuple(stage["name"] for stage in summary["stages"])
    plan = CascadePlan(names, stage_names, weights, tuple(exits), rules, thresholds, provenance)
    cascade = make_cascade(plan, networks)
    summary["cost"] = measure_cost(cascade, final, outputs["test"].stage, texts["test"])
    held_out = (out_of_fold.outputs.probs, out_of_fold.decisions)
    report = make_report(predictions, final.thresholds, names, provenance, held_out)
    return FittedCascade(plan, networks, final, rule, predictions, report, summary)


def write_cascade(out: Path, fitted: FittedCascade, card: str) -> None:
    """Write a cascade's folder with predictions, report.json and the model folder."""
    plan = fitted.plan
    for split, predictions in fitted.predictions.items():
        save_predictions(out / "predictions" / f"{split}.npz", predictions)
    save_cascade(out / "model", plan, fitted.networks, card)
    write_provenance(out, plan.provenance)
    for name, values in (
        ("labels.json", plan.labels),
        ("thresholds.json", plan.thresholds),
        (STAGES, fitted.summary),
        ("report.json", fitted.report),
    ):
        write_json(out / name, values)


def make_goal(config: CascadeConfig, names: tuple[str, ...]) -> Goal:
    """The goal of a config. Raises ConfigError for a value out of range or an unknown name."""
    for key, value in iter_fields(config):
        check_value(key, value, hint_of(config, key))
    for name in config.final_stage_labels:
        if name not in names:
            nearest = did_you_mean(name, names)
            raise ConfigError(f"final_stage_labels: unknown label {name!r}{nearest}")
    return Goal(config, np.array([name in config.final_stage_labels for name in names]))


def read_encoders(networks: Sequence[Path]) -> list[Encoder]:
    """The encoders of some networks."""
    return [Encoder(**read_json(path / META)["experiment"]["encoder"]) for path in networks]


def _read_rules(file: Path | None, names: tuple[str, ...]) -> tuple[Rule, ...]:
    if file is None:
        return ()
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    return read_rules(parse_json(file.read_bytes(), str(file)), file, names)


def _read_texts(file: Path, part: Members, columns: dict[str, Any]) -> list[str] | None:
    """The texts of a split, None if their file is gone. Raises DataError for other rows."""
    if not file.is_file():
        return None
    examples = read(file, part.names, **columns)
    if list(examples.ids) != list(part.reference.ids):
        raise DataError(f"{file}: the rows differ from those that the runs have scored")
    return list(examples.texts)


def _match(rules: tuple[Rule, ...], texts: list[str] | None, part: Members) -> RuleMatches:
    if not rules:
        return no_matches(part.probs)
    if texts is None:
        split = part.reference.split
        raise ConfigError(f"--rules: no {split} texts; cut-offs are fitted with the rules")
    return apply_rules(rules, texts, part.names)


def _join_provenance(runs: Sequence[Path], rule: Spec) -> Provenance:
    provenance = join_provenances([read_provenance(run) for run in runs])
    if rule.name != "fixed":
        provenance = with_fitted(provenance, f"the thresholds ({rule.name})", ["val"])
    return with_fitted(provenance, "the cut-offs of the cascade", ["val"])


def _warn(val: Members, summary: Mapping[str, Any], config: CascadeConfig) -> None:
    """Warn of a stage as good as the final one, and of labels too rare for the miss rate."""
    labels = val.reference.labels
    calibrated = [apply_calibration(platt(labels, probs), probs) for probs in val.probs]
    *losses, final_loss = [log_loss(labels, probs) for probs in calibrated]
    for stage, loss in zip(summary["stages"][:-1], losses, strict=True):
        if loss <= final_loss:
            log.warning(
                "%s has no higher log loss on val than the final stage; it may suffice alone",
                stage["run"],
            )
    needed = math.ceil((len(val.probs) - 1) / config.max_miss_rate) - 1
    for name, by_split in summary["final_stage_labels"].items():
        if (predicted := by_split["val"]["predicted"]) < needed:
            log.warning(
                "the final stage predicts %s for %s validation texts; max_miss_rate=%s needs %s, "
                "so no text exits early",
                name,
                predicted,
                config.max_miss_rate,
                needed,
            )
