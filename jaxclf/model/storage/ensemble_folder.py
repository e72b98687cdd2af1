"""The folder of an ensemble: the model folders of its members, and how they are blended.

ensemble.json     labels in order, names of the members, weights and thresholds per label,
                  provenance
member-0, …       model folders
README.md         the model card
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxclf.errors import DataError
from jaxclf.files.atomic import write_folder
from jaxclf.files.untrusted import read_json
from jaxclf.model.storage.metadata import check_format, read_labels, read_provenance
from jaxclf.model.storage.saved_model import META

ENSEMBLE = "ensemble.json"
FORMAT = 2
MAX_MEMBERS = 64


class Blend(NamedTuple):
    """A weighted average of members: weights float64 [members, classes] sum to 1 for each label.

    thresholds, provenance: plain JSON values, as `decisions` makes them.
    """

    members: tuple[str, ...]
    labels: tuple[str, ...]
    weights: Float64[np.ndarray, "members classes"]
    thresholds: dict[str, dict[str, Any]]
    provenance: dict[str, Any]


def save_ensemble(folder: Path, blend: Blend, models: Sequence[Path], card: str) -> None:
    """Write the folder atomically, with a copy of each member's; replaces an older one."""
    meta = {
        "format": FORMAT,
        "members": list(blend.members),
        "labels": list(blend.labels),
        "weights": dict(zip(blend.labels, blend.weights.T.tolist(), strict=True)),
        "thresholds": blend.thresholds,
        "provenance": blend.provenance,
    }
    copies = {f"member-{index}": model for index, model in enumerate(models)}
    save_combination(folder, ENSEMBLE, meta, copies, card)


def save_combination(
    folder: Path, file: str, meta: Mapping[str, Any], models: Mapping[str, Path], card: str
) -> None:
    """Write a folder with copies of model folders atomically; replaces an older one.

    file: name of the JSON file that holds `meta`. models: name of a copy -> folder to copy.
    """
    with write_folder(folder) as part:
        for name, model in models.items():
            shutil.copytree(model, part / name)
        text = json.dumps(meta, indent=2, ensure_ascii=False) + "\n"
        (part / file).write_text(text, encoding="utf-8")
        (part / "README.md").write_text(card, encoding="utf-8")


def load_ensemble(folder: Path) -> tuple[Blend, list[Path]]:
    """Read how the members are blended, and their folders. Raises DataError."""
    file = folder / ENSEMBLE
    meta = read_json(folder, ENSEMBLE)
    check_format(meta, file, FORMAT)
    labels = read_labels(meta, file)
    members = meta.get("members")
    if (
        not isinstance(members, list)
        or not 0 < len(members) <= MAX_MEMBERS
        or not all(isinstance(name, str) for name in members)
    ):
        raise DataError(f"{file}: members is not a list of 1 to {MAX_MEMBERS} names")
    weights = _read_weights(meta, file, labels, len(members))
    provenance = read_provenance(meta, file)
    models = [folder / f"member-{index}" for index in range(len(members))]
    if missing := [model for model in models if not (model / META).is_file()]:
        raise DataError(f"{missing[0] / META}: no such file; the ensemble lacks a member")
    return Blend(tuple(members), labels, weights, meta["thresholds"], provenance), models


def _read_weights(
    meta: Mapping[str, Any], file: Path, labels: tuple[str, ...], members: int
) -> Float64[np.ndarray, "members classes"]:
    values = meta.get("weights")
    columns = [values.get(name) if isinstance(values, dict) else None for name in labels]
    is_valid = all(
        isinstance(column, list)
        and len(column) == members
        and all(isinstance(weight, int | float) and 0 <= weight <= 1 for weight in column)
        and abs(sum(column) - 1) < 1e-6
        for column in columns
    )
    if not is_valid:
        raise DataError(f"{file}: weights is not {members} numbers that sum to 1 for each label")
    return np.array(columns, np.float64).T
