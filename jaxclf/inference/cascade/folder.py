"""The folder of a cascade: the networks of all stages, and when a text exits.

cascade.json      the labels in order; of each stage its name, its networks' weights per label, its
                  calibration onto the final stage's scale and the probabilities in which a label is
                  uncertain; rules, thresholds, provenance, and the digests of the networks' folders
network-0, …      model folders; a network that several stages share is stored once
README.md         the model card
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxclf.decisions.calibration import calibration_from_json, calibration_to_json
from jaxclf.decisions.provenance import Provenance
from jaxclf.errors import ConfigError, DataError
from jaxclf.files.digest import DIGEST
from jaxclf.files.untrusted import has_entry, printable
from jaxclf.inference.cascade.cutoffs import NO_LIMIT, EarlyExit
from jaxclf.inference.cascade.rules import Rule, read_rules
from jaxclf.model.storage.ensemble_folder import (
    ENSEMBLE,
    load_ensemble,
    open_models,
    save_combination,
)
from jaxclf.model.storage.metadata import read_calibration, read_labels, read_provenance
from jaxclf.model.storage.saved_model import FORMAT as MODEL_FORMAT
from jaxclf.model.storage.saved_model import META
from jaxclf.model.storage.sealing import read_sealed

CASCADE = "cascade.json"
FORMAT = 3
MAX_STAGES, MAX_NETWORKS = 8, 64


class CascadePlan(NamedTuple):
    """Stages over one pool of networks.

    weights: float64 [stages, networks, classes], 0 for a network that a stage does not use.
    exits: of each stage but the final one. thresholds: the final stage's; thresholds and provenance
        are plain JSON values, as `decisions` makes them.
    digest: SHA-256 of the folder's content; empty before it is saved.
    """

    labels: tuple[str, ...]
    stages: tuple[str, ...]
    weights: Float64[np.ndarray, "stages networks classes"]
    exits: tuple[EarlyExit, ...]
    rules: tuple[Rule, ...]
    thresholds: dict[str, dict[str, Any]]
    provenance: Provenance
    digest: str = ""


def save_cascade(folder: Path, plan: CascadePlan, networks: Sequence[Path], card: str) -> None:
    """Write the folder atomically, with a copy of each network's folder; replaces an older one."""
    stages: list[dict[str, Any]] = [
        {"name": name, "weights": dict(zip(plan.labels, weights.T.tolist(), strict=True))}
        for name, weights in zip(plan.stages, plan.weights, strict=True)
    ]
    for stage, early_exit in zip(stages[:-1], plan.exits, strict=True):
        stage["calibration"] = calibration_to_json(early_exit.calibration)
        stage["uncertain"] = dict(zip(plan.labels, early_exit.uncertain.tolist(), strict=True))
    meta = {
        "format": FORMAT,
        "networks": len(networks),
        "labels": list(plan.labels),
        "stages": stages,
        "rules": [rule._asdict() for rule in plan.rules],
        "thresholds": plan.thresholds,
        "provenance": plan.provenance.record,
    }
    copies = {f"network-{index}": network for index, network in enumerate(networks)}
    save_combination(folder, CASCADE, meta, plan.provenance.row_hashes, copies, card)


def pool_networks(
    folders: Sequence[Path], classes: int
) -> tuple[list[Path], Float64[np.ndarray, "stages networks classes"]]:
    """The folders of all distinct networks of some models and ensembles, and each stage's weights.

    Raises ConfigError for a stage that adds no network to the stages before it.
    """
    pool: dict[str, Path] = {}  # by digest: copies of one network are one network
    stages: list[dict[str, np.ndarray]] = []
    for folder in folders:
        if has_entry(folder, CASCADE):
            raise ConfigError(
                f"{folder}: a cascade cannot be a stage; give the runs it was made of"
            )
        if has_entry(folder, ENSEMBLE):
            ensemble, networks = load_ensemble(folder)
            weights = ensemble.weights
        else:
            networks, weights = [folder], np.ones((1, classes))
        stage, num_before = {}, len(pool)
        for network, network_weights in zip(networks, weights, strict=True):
            if network_weights.any():
                key = read_sealed(network, META, MODEL_FORMAT)[DIGEST]
                stage[key] = stage.get(key, 0) + network_weights
                pool.setdefault(key, network)
        if len(pool) == num_before:
            raise ConfigError(f"{folder}: adds no network to the stages before it; leave it out")
        stages.append(stage)
    unused = np.zeros(classes)
    rows = [[stage.get(key, unused) for key in pool] for stage in stages]
    return list(pool.values()), np.array(rows, np.float64)


def load_cascade(folder: Path, verify: bool = True) -> tuple[CascadePlan, list[Path]]:
    """The plan of a cascade and the folders of its networks. Raises DataError if it is damaged."""
    file = folder / CASCADE
    meta = read_sealed(folder, CASCADE, FORMAT, verify)
    labels = read_labels(meta, file)
    networks = meta.get("networks")
    if type(networks) is not int or not 0 < networks <= MAX_NETWORKS:
        raise DataError(f"{file}: networks is not a number from 1 to {MAX_NETWORKS}")
    stages = meta.get("stages")
    if (
        not isinstance(stages, list)
        or not 2 <= len(stages) <= MAX_STAGES
        or not all(isinstance(part, dict) and isinstance(part.get("name"), str) for part in stages)
    ):
        raise DataError(f"{file}: stages is not a list of 2 to {MAX_STAGES} objects with a name")
    plan = CascadePlan(
        labels,
        tuple(stage["name"] for stage in stages),
        _read_weights(stages, file, labels, networks),
        tuple(_read_exit(stage, file, labels) for stage in stages[:-1]),
        read_rules(meta, file, labels),
        meta["thresholds"],
        read_provenance(meta, folder, file),
    )
    paths, digest = open_models(meta, file, "network", networks, verify)
    return plan._replace(digest=digest), paths


def new_networks(weights: Float64[np.ndarray, "stages networks classes"]) -> list[list[int]]:
    """The networks of each stage that no earlier stage uses."""
    is_used = np.any(weights, axis=2)
    earlier = np.cumsum(is_used, axis=0) - is_used
    return [np.flatnonzero(row).tolist() for row in is_used & (earlier == 0)]


def _read_weights(
    stages: Sequence[Mapping[str, Any]], file: Path, labels: tuple[str, ...], networks: int
) -> Float64[np.ndarray, "stages networks classes"]:
    columns = [_read_numbers(stage, "weights", file, labels, networks) for stage in stages]
    weights = np.array(columns).swapaxes(1, 2)
    if (np.abs(weights.sum(axis=1) - 1) > 1e-6).any() or weights.max() > 1:
        raise DataError(f"{file}: the {networks} weights of a label do not sum to 1")
    if not all(new_networks(weights)):
        raise DataError(f"{file}: a stage adds no network to the stages before it")
    return weights


def _read_exit(stage: Mapping[str, Any], file: Path, labels: tuple[str, ...]) -> EarlyExit:
    uncertain = _read_numbers(stage, "uncertain", file, labels, 2)
    if (uncertain[:, 0] > uncertain[:, 1]).any():
        raise DataError(f"{file}: uncertain has a lower end above its upper end")
    return EarlyExit(calibration_from_json(read_calibration(stage, file, len(labels))), uncertain)


def _read_numbers(
    stage: Mapping[str, Any], key: str, file: Path, labels: tuple[str, ...], count: int
) -> Float64[np.ndarray, "classes count"]:
    """The value of a key that holds this many numbers from 0 to 2 for each label."""
    values = stage.get(key)
    rows = [values.get(name) if isinstance(values, dict) else None for name in labels]
    for name, row in zip(labels, rows, strict=True):
        if (
            not isinstance(row, list)
            or len(row) != count
            or not all(isinstance(value, int | float) and 0 <= value <= NO_LIMIT for value in row)
        ):
            raise DataError(f"{file}: {key} does not have {count} numbers for {printable(name)!r}")
    return np.array(rows, np.float64)
