"""Read the networks of a model or ensemble folder, and their tokenizers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from tokenizers import Tokenizer

from jaxclf.decisions.provenance import Provenance
from jaxclf.errors import DataError
from jaxclf.files.untrusted import has_entry
from jaxclf.inference.cascade.folder import CASCADE
from jaxclf.model.storage.ensemble_folder import ENSEMBLE, load_ensemble
from jaxclf.model.storage.saved_model import META, SavedModel, load_model, open_encoder


class LoadedModels(NamedTuple):
    """The networks of a folder and how they are blended.

    thresholds, provenance: plain JSON values, as `decisions` makes them.
    folders: of the networks. weights: 1 for a single model. digest: of the folder.
    """

    labels: tuple[str, ...]
    thresholds: dict[str, dict[str, Any]]
    provenance: Provenance
    folders: list[Path]
    members: list[SavedModel]
    tokenizers: list[Tokenizer]
    weights: Float64[np.ndarray, "members classes"]
    digest: str


def load_folder(folder: Path, verify: bool = True) -> LoadedModels:
    """Read a model or ensemble folder. Raises DataError if it is damaged."""
    if has_entry(folder, ENSEMBLE):
        ensemble, folders = load_ensemble(folder, verify)
        members, tokenizers = load_members(folders, ensemble.labels, verify)
        labels, weights = ensemble.labels, ensemble.weights
        thresholds, provenance, digest = ensemble.thresholds, ensemble.provenance, ensemble.digest
    else:
        model = load_model(folder, verify)
        folders, members, tokenizers = [folder], [model], [open_encoder(folder)[1]]
        labels, weights = model.labels, np.ones((1, len(model.labels)))
        thresholds, provenance, digest = model.thresholds, model.provenance, model.digest
    return LoadedModels(
        labels, thresholds, provenance, folders, members, tokenizers, weights, digest
    )


def load_members(
    folders: Sequence[Path], labels: tuple[str, ...], verify: bool = True
) -> tuple[list[SavedModel], list[Tokenizer]]:
    """Read several model folders. Raises DataError if one has other labels."""
    members = [load_model(folder, verify) for folder in folders]
    for folder, member in zip(folders, members, strict=True):
        if member.labels != labels:
            raise DataError(f"{folder / META}: the labels differ from those of the folder above")
    return members, [open_encoder(folder)[1] for folder in folders]


def is_model(path: Path) -> bool:
    """Whether a folder holds a model, an ensemble or a cascade itself."""
    return any(has_entry(path, name) for name in (META, ENSEMBLE, CASCADE))


def model_folder(path: Path) -> Path:
    """The folder itself if it holds a model, an ensemble or a cascade, else its `model/` if it has
    one."""
    return path if is_model(path) or not (path / "model").is_dir() else path / "model"
