"""The folder of an ensemble: the model folders of its members, and how they are blended.

ensemble.json     labels in order, names of the members and digests of their folders, weights and
                  thresholds per label, provenance
member-0, …       model folders
row_hashes.npz    of the texts of its members' splits
README.md         the model card
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from jaxclf.decisions.provenance import Provenance
from jaxclf.decisions.row_hashes import ROW_HASHES, RowHashes, save_row_hashes
from jaxclf.errors import DataError
from jaxclf.files.atomic import write_folder
from jaxclf.files.digest import DIGEST, seal
from jaxclf.files.untrusted import has_entry, read_json
from jaxclf.model.storage.metadata import read_labels, read_provenance
from jaxclf.model.storage.saved_model import FORMAT as MODEL_FORMAT
from jaxclf.model.storage.saved_model import META
from jaxclf.model.storage.sealing import ADVICE, read_sealed, write_sealed

ENSEMBLE = "ensemble.json"
FORMAT = 3
MODELS = "models"  # in ensemble.json and cascade.json: name of a model folder -> its digest
MAX_MEMBERS = 64


class Blend(NamedTuple):
    """A weighted average of members: weights float64 [members, classes] sum to 1 for each label.

    thresholds, provenance: plain JSON values, as `decisions` makes them.
    digest: SHA-256 of the folder's content; empty before it is saved.
    """

    members: tuple[str, ...]
    labels: tuple[str, ...]
    weights: Float64[np.ndarray, "members classes"]
    thresholds: dict[str, dict[str, Any]]
    provenance: Provenance
    digest: str = ""


def save_ensemble(folder: Path, blend: Blend, models: Sequence[Path], card: str) -> None:
    """Write the folder atomically, with a copy of each member's; replaces an older one."""
    meta = {
        "format": FORMAT,
        "members": list(blend.members),
        "labels": list(blend.labels),
        "weights": dict(zip(blend.labels, blend.weights.T.tolist(), strict=True)),
        "thresholds": blend.thresholds,
        "provenance": blend.provenance.record,
    }
    copies = {f"member-{index}": model for index, model in enumerate(models)}
    save_combination(folder, ENSEMBLE, meta, blend.provenance.row_hashes, copies, card)


def save_combination(
    folder: Path,
    file: str,
    meta: Mapping[str, Any],
    row_hashes: RowHashes,
    models: Mapping[str, Path],
    card: str,
) -> None:
    """Write a folder with copies of model folders atomically; replaces an older one.

    file: name of the JSON file that holds `meta`. models: name of a copy -> folder to copy.
    """
    with write_folder(folder) as part:
        for name, model in models.items():
            shutil.copytree(model, part / name)
        if row_hashes:
            save_row_hashes(part / ROW_HASHES, row_hashes)
        digests = {name: read_sealed(part / name, META, MODEL_FORMAT)[DIGEST] for name in models}
        write_sealed(part, file, {**meta, MODELS: digests}, card)


def open_models(
    meta: Mapping[str, Any], file: Path, kind: str, count: int, verify: bool
) -> tuple[list[Path], str]:
    """The model folders `kind`-0 and so on beside a JSON file, and the digest of file and folders.

    The content of the folders is checked by `load_model`.
    verify: whether each must have the digest in the file.
    Raises DataError if a folder is missing or is not the one that the file was written for.
    """
    folders = [file.parent / f"{kind}-{index}" for index in range(count)]
    if missing := [folder for folder in folders if not has_entry(folder, META)]:
        raise DataError(f"{missing[0] / META}: no such file; {file.name} needs it")
    if not verify:
        contents = [read_sealed(folder, META, MODEL_FORMAT, False) for folder in folders]
        digests = {
            folder.name: content[DIGEST] for folder, content in zip(folders, contents, strict=True)
        }
        return folders, seal({**meta, MODELS: digests})[DIGEST]
    for folder in folders:
        digest = read_json(folder, META).get(DIGEST)
        if not isinstance(meta.get(MODELS), dict) or meta[MODELS].get(folder.name) != digest:
            raise DataError(
                f"{folder / META}: damaged: its digest is not the one in {file.name}; {ADVICE}"
            )
    return folders, meta[DIGEST]


def load_ensemble(folder: Path, verify: bool = True) -> tuple[Blend, list[Path]]:
    """Read how the members are blended, and their folders. Raises DataError."""
    file = folder / ENSEMBLE
    meta = read_sealed(folder, ENSEMBLE, FORMAT, verify)
    labels = read_labels(meta, file)
    members = meta.get("members")
    if (
        not isinstance(members, list)
        or not 0 < len(members) <= MAX_MEMBERS
        or not all(isinstance(name, str) for name in members)
    ):
        raise DataError(f"{file}: members is not a list of 1 to {MAX_MEMBERS} names")
    weights = _read_weights(meta, file, labels, len(members))
    provenance = read_provenance(meta, folder, file)
    models, digest = open_models(meta, file, "member", len(members), verify)
    return Blend(tuple(members), labels, weights, meta["thresholds"], provenance, digest), models


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
