"""An ensemble: weights and thresholds fitted, and its folder, which is read like that of a run."""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.decisions.blending import BLENDERS, Blender, blend, blend_out_of_fold
from jaxclf.decisions.evaluation import hold_choice, make_rule, score_run
from jaxclf.decisions.members import (
    MEMBERS,
    Members,
    Systems,
    describe,
    read_held_out,
    read_members,
)
from jaxclf.decisions.predictions import HELD_OUT, save_predictions
from jaxclf.decisions.provenance import (
    Provenance,
    join_provenances,
    read_provenance,
    with_fitted,
    write_provenance,
)
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment, Spec
from jaxclf.experiment.overrides import override, to_dict
from jaxclf.experiment.validation import check_labels, check_spec
from jaxclf.files.json_file import write_json
from jaxclf.inference.load import load
from jaxclf.inference.soft_labels import write_soft_labels
from jaxclf.model.storage.ensemble_folder import Blend, load_ensemble, save_ensemble
from jaxclf.reports.diagnosis import diagnose
from jaxclf.reports.html_report import write_page
from jaxclf.reports.model_card import make_card
from jaxclf.text.data_splits import read_data, used_training_rows
from jaxclf.types import Predictions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnsembleConfig:
    """How members are blended, and how thresholds are fitted on the blend."""

    blend: Spec = field(default_factory=lambda: Spec("uniform"))
    threshold: Spec = field(default_factory=lambda: Spec("auto"))


def make_config(changes: Mapping[str, Any]) -> tuple[EnsembleConfig, dict[str, Any]]:
    """The ensemble's own keys as a config, and the remaining changes, which concern its networks.

    Raises ConfigError for an unknown blender, threshold rule or option.
    """
    keys = [key for key in changes if key.split(".")[0] in ("blend", "threshold")]
    config = override(EnsembleConfig(), {key: changes[key] for key in keys})
    check_spec("blend", config.blend)
    check_spec("threshold", config.threshold)
    return config, {key: value for key, value in changes.items() if key not in keys}


def systems_from_runs(folders: Sequence[str]) -> Systems:
    """Each finished run as a system, under the last part of its path if those differ."""
    names = [Path(folder).resolve().name for folder in folders]
    names = names if len(set(names)) == len(names) else list(folders)
    return {name: [Path(folder)] for name, folder in zip(names, folders, strict=True)}


def make_ensemble(
    systems: Systems, config: EnsembleConfig, folds: int, out: Path
) -> dict[str, Any]:
    """Fit weights and thresholds, score val and test, and write the folder.

    folds: if not 0, each run held out one of as many folds of the training rows, and the weights
    are fitted on those instead of on val. Returns the content of report.json. Raises DataError if
    runs have different examples or labels.
    """
    members = {split: read_members(systems, split) for split in ("val", "test")}
    names = members["val"].names
    check_labels(config, names)
    source = read_held_out(systems, HELD_OUT) if folds else members["val"]
    blender = functools.partial(BLENDERS[config.blend.name], **config.blend.options)
    weights = blender(source.reference.labels, source.probs)
    predictions = _blend_splits(members, weights, None if folds else blender)
    runs = [run for system_runs in systems.values() for run in system_runs]
    provenance = _provenance(runs, config, HELD_OUT if folds else "val")
    report, thresholds = score_run(predictions, config.threshold, names, provenance)
    # Each member is decided by the same rule, so the choice of `auto` is made once.
    val, rule = predictions["val"], make_rule(config.threshold, names)
    held, _ = hold_choice(rule, config.threshold, val.labels, val.probs)
    description = to_dict(config) | describe(systems, source, weights, blender, held)

    for split, blended in predictions.items():
        save_predictions(out / "predictions" / f"{split}.npz", blended)
    experiments = [catalog.load(str(run / "config.json")) for run in runs]
    _warn_uncalibrated(experiments)
    # The runs of one system share its weight.
    pairs = zip(weights, systems.values(), strict=True)
    run_weights = np.array([weight / len(parts) for weight, parts in pairs for _ in parts])
    save_ensemble(
        out / "model",
        Blend(tuple(run.name for run in runs), names, run_weights, thresholds, provenance),
        [run / "model" for run in runs],
        make_card(
            out.name,
            [experiment.encoder for experiment in experiments],
            report,
            config.threshold.name,
            experiments[0].calibration.name,
            {split: len(part.ids) for split, part in predictions.items()},
            experiments[0].data.label_descriptions,
            structure=f"{len(experiments)} networks whose probabilities are averaged",
        ),
    )
    write_provenance(out, provenance)
    diagnosis = diagnose([], report, replace(experiments[0], threshold=config.threshold), {})
    for name, values in (
        ("labels.json", list(names)), ("thresholds.json", thresholds), (MEMBERS, description),
        ("diagnosis.json", diagnosis), ("report.json", report),
    ):  # fmt: skip
        write_json(out / name, values)
    write_page(out)
    return report


def write_teacher(systems: Systems, folds: int, out: Path) -> Path:
    """Write the ensemble's probabilities of the training rows, from which a student learns.

    With folds, each row has the probabilities of the runs that held it out.
    """
    path = out / "teacher.npz"
    if folds:
        members = read_held_out(systems, HELD_OUT)
        run_weights = load_ensemble(out / "model")[0].weights
        num_runs = len(run_weights) // len(systems)
        probs = blend(members.probs, run_weights[::num_runs] * num_runs)
        save_predictions(path, members.reference._replace(probs=probs))
    else:
        run = next(iter(systems.values()))[0]
        data = catalog.load(str(run / "config.json")).data
        examples = used_training_rows(read_data(data)["train"], data)
        write_soft_labels(load(out), examples, path)
    return path


def _blend_splits(
    members: Mapping[str, Members], weights: np.ndarray, blender: Blender | None
) -> dict[str, Predictions]:
    """Blended predictions; with a blender, those of val under weights fitted on other folds."""
    predictions = {
        split: part.reference._replace(probs=blend(part.probs, weights))
        for split, part in members.items()
    }
    if blender is not None:
        val = members["val"]
        probs = blend_out_of_fold(val.reference.labels, val.probs, blender)
        predictions["val"] = val.reference._replace(probs=probs)
    return predictions


def _provenance(runs: Sequence[Path], config: EnsembleConfig, split: str) -> Provenance:
    """The provenances of the runs, and what the ensemble fits. split: of each run, that fits the
    weights."""
    provenance = join_provenances([read_provenance(run) for run in runs])
    blender, rule = config.blend.name, config.threshold.name
    if blender != "uniform":
        what = f"the weights of the ensemble ({blender})"
        splits = [name for name in provenance.record["splits"] if name.startswith(split)]
        provenance = with_fitted(provenance, what, splits)
    if rule != "fixed":
        provenance = with_fitted(provenance, f"the thresholds ({rule})", ["val"])
    return provenance


def _warn_uncalibrated(experiments: Sequence[Experiment]) -> None:
    count = sum(experiment.calibration.name == "none" for experiment in experiments)
    if count:
        log.warning(
            f"{count} of {len(experiments)} members are not calibrated, and those with larger "
            "probabilities dominate the average; train them with calibration=platt"
        )
