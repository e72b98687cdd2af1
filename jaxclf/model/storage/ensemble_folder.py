"""The folder of an ensemble: its members' model folders, and how they are blended.

ensemble.json     the labels in order, each member's name, weights and thresholds per label, and
                  what each split fitted
member-0, …       model folders, each as a run hands it over
README.md         what it is and what it is not
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxclf.errors import DataError
from jaxclf.files.untrusted import printable, read_json
from jaxclf.model.storage.metadata import read_labels, read_ledger
from jaxclf.model.storage.saved_model import META

ENSEMBLE = "ensemble.json"
FORMAT = 1
MOST = 64  # members


class Blend(NamedTuple):
    """How members become one: weights float64 [members, classes], each label's on the simplex.

    thresholds, provenance: as `decisions` makes them, plain JSON values.
    """

    members: tuple[str, ...]
    labels: tuple[str, ...]
    weights: Float64[np.ndarray, "members classes"]
    thresholds: dict[str, dict[str, Any]]
    provenance: dict[str, Any]


def save_ensemble(folder: Path, blend: Blend, models: Sequence[Path], card: str) -> None:
    """Write the folder whole or not at all, with a copy of each member's; an older one is
    replaced."""
    meta = {
        "format": FORMAT,
        "members": list(blend.members),
        "labels": list(blend.labels),
        "weights": dict(zip(blend.labels, blend.weights.T.tolist(), strict=True)),
        "thresholds": blend.thresholds,
        "provenance": blend.provenance,
    }
    parts = {f"member-{index}": model for index, model in enumerate(models)}
    save_whole(folder, ENSEMBLE, meta, parts, card)


def save_whole(
    folder: Path, file: str, meta: Mapping[str, Any], models: Mapping[str, Path], card: str
) -> None:
    """A model folder made of others, copied into it under these names: all of it or none, in place
    of an older one.

    file: what says how they belong together, with `meta`.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, model in models.items():
        shutil.copytree(model, part / name)
    text = json.dumps(meta, indent=2, ensure_ascii=False) + "\n"
    (part / file).write_text(text, encoding="utf-8")
    (part / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def load_ensemble(folder: Path) -> tuple[Blend, list[Path]]:
    """How the members are blended, and their folders. Raises DataError for what is no ensemble."""
    file = folder / ENSEMBLE
    meta = read_json(folder, ENSEMBLE)
    if meta.get("format") != FORMAT:
        raise DataError(
            f"{file}: format {printable(str(meta.get('format')))}; this version reads {FORMAT}"
        )
    labels = read_labels(meta, file)
    members = meta.get("members")
    if (
        not isinstance(members, list)
        or not 0 < len(members) <= MOST
        or not all(isinstance(name, str) for name in members)
    ):
        raise DataError(f"{file}: members are not the names of 1 to {MOST} runs")
    weights = _read_weights(meta, file, labels, len(members))
    provenance = read_ledger(meta, file)
    models = [folder / f"member-{index}" for index in range(len(members))]
    if missing := [model for model in models if not (model / META).is_file()]:
        raise DataError(f"{missing[0] / META}: no such file; the ensemble lacks a member")
    return Blend(tuple(members), labels, weights, meta["thresholds"], provenance), models


def _read_weights(
    meta: Mapping[str, Any], file: Path, labels: tuple[str, ...], members: int
) -> Float64[np.ndarray, "members classes"]:
    given = meta.get("weights")
    columns = [given.get(name) if isinstance(given, dict) else None for name in labels]
    fine = all(
        isinstance(column, list)
        and len(column) == members
        and all(isinstance(one, int | float) and 0 <= one <= 1 for one in column)
        and abs(sum(column) - 1) < 1e-6
        for column in columns
    )
    if not fine:
        raise DataError(f"{file}: weights are not {members} shares of 1 for each label")
    return np.array(columns, np.float64).T
