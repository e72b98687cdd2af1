"""The folder `model/`: what a finished run hands over, in Hugging Face's layout.

config.json tokenizer.json    of the encoder
model.safetensors             the encoder, under the names of its family
head.safetensors              pool and head, under our paths
jaxclf.json                   the experiment, the labels in order, thresholds, calibration, and what
                              each split fitted
README.md                     what it is and what it is not
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy
from tokenizers import Tokenizer

from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import from_dict, to_dict
from jaxclf.experiment.validation import check
from jaxclf.files.untrusted import has_entry, printable, read_json
from jaxclf.model.classifier import Family, family_of
from jaxclf.model.heads import HEADS, POOLS
from jaxclf.model.storage.metadata import read_calibration, read_labels, read_ledger
from jaxclf.model.storage.weights import (
    SINGLE,
    flatten_params,
    match_tensors,
    open_safetensors,
    open_tensors,
    raise_if_any,
    read_all,
    to_params,
    to_tensors,
)
from jaxclf.text.tokenizer.tokenize import largest_id, load_tokenizer

HEAD, META = "head.safetensors", "jaxclf.json"
FORMAT = 2


class SavedModel(NamedTuple):
    """A trained model as it lies in its folder.

    thresholds, calibration, provenance: as `decisions` makes them, plain JSON values.
    """

    experiment: Experiment
    hf_config: dict[str, Any]
    labels: tuple[str, ...]
    thresholds: dict[str, dict[str, Any]]
    calibration: dict[str, Any]
    provenance: dict[str, Any]
    params: dict[str, Any]


def read_hf_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json, of an architecture that is built here. Raises DataError."""
    config = read_json(folder, "config.json")
    family_of(config)
    return config


def _check_depth(folder: Path, hf_config: Mapping[str, Any]) -> None:
    """The weights reach to the config's last layer: a network is traced only then."""
    family = family_of(hf_config)
    last = family.from_hf(hf_config).layers - 1
    needed = tuple(
        name.replace("{i}", str(last)) + "." for name in family.names.values() if "{i}" in name
    )
    found = open_tensors(folder)
    if not any(name.removeprefix(family.prefix).startswith(needed) for name in found):
        raise DataError(f"{folder}: the weights do not fit the encoder: missing {needed[0]}*")


def open_encoder(folder: Path) -> tuple[dict[str, Any], Tokenizer]:
    """The config and the tokenizer of an encoder's folder, found to fit each other. Raises
    DataError."""
    hf_config = read_hf_config(folder)
    _check_depth(folder, hf_config)
    tokenizer = load_tokenizer(folder)
    size = family_of(hf_config).from_hf(hf_config).vocab_size
    largest = largest_id(tokenizer)
    if largest >= size:
        raise DataError(
            f"{folder}: the tokenizer gives ids up to {largest}, the encoder's table ends at "
            f"{size - 1}"
        )
    return hf_config, tokenizer


def pretrained_params(folder: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of `shapes` that an encoder's folder holds; all of the encoder, and of the head
    what was pretrained."""
    family = family_of(read_hf_config(folder))
    return _read_params(folder, shapes, family, family.names, optional=("head/",))


def _read_params(
    folder: Path,
    shapes: Mapping[str, Any],
    family: Family,
    names: Mapping[str, str],
    optional: tuple[str, ...],
) -> dict[str, Any]:
    return to_params(
        open_tensors(folder),
        shapes,
        names,
        family.ignored_keys,
        family.prefix,
        optional,
        str(folder),
    )


def save_model(
    folder: Path, handover: SavedModel, tokenizer: Tokenizer, card: str, whole: bool = False
) -> None:
    """Write the folder whole or not at all; an older one is replaced.

    whole: the head too under transformers' names in one file, as its classifier of this family
        opens it. Only for what `opens_whole`.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    params = jax.tree.map(np.asarray, handover.params)
    family = family_of(handover.hf_config)
    rest = {key: value for key, value in params.items() if key != "encoder"}
    tensors = to_tensors({"encoder": params["encoder"]}, family.names)
    if whole:
        tensors = {family.prefix + name: tensor for name, tensor in tensors.items()}
        tensors |= to_tensors(rest, {**family.names, **family.classifier})
    else:
        head = {"/".join(path): leaf for path, leaf in flatten_params(rest).items()}
        safetensors.numpy.save_file(head, part / HEAD)
    safetensors.numpy.save_file(tensors, part / SINGLE, metadata={"format": "pt"})
    tokenizer.save(str(part / "tokenizer.json"))
    for name in (SINGLE, HEAD):  # the library writes for the owner alone
        if (part / name).exists():
            (part / name).chmod((part / "tokenizer.json").stat().st_mode)
    meta = {
        "format": FORMAT,
        "experiment": to_dict(handover.experiment),
        "labels": list(handover.labels),
        "thresholds": handover.thresholds,
        "calibration": handover.calibration,
        "provenance": handover.provenance,
    }
    for name, values in (("config.json", handover.hf_config), (META, meta)):
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (part / name).write_text(text, encoding="utf-8")
    (part / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def is_transformers_classifier(experiment: Experiment) -> bool:
    """Whether transformers has a classifier of this shape: the first token and the family's own
    head."""
    return experiment.pool.name == "cls" and experiment.head.name == "native"


def load_model(folder: Path, shapes_of: Any) -> SavedModel:
    """The inverse of `save_model`.

    shapes_of: (experiment, hf_config, classes) -> the network's leaves, to hold the files to.
    Raises DataError for a missing file and for tensors that do not fit.
    """
    if not has_entry(folder, META):
        raise DataError(
            f"{folder / META}: no such file; give the folder of a finished run or its model/"
        )
    meta = read_json(folder, META)
    if meta.get("format") != FORMAT:
        raise DataError(
            f"{folder / META}: format {printable(str(meta.get('format')))}; "
            f"this version reads {FORMAT}"
        )
    labels = read_labels(meta, folder / META)
    hf_config = read_hf_config(folder)
    _check_depth(folder, hf_config)
    longest = family_of(hf_config).from_hf(hf_config).max_positions
    experiment = _read_experiment(meta, folder, longest)
    shapes = shapes_of(experiment, hf_config, len(labels))
    family = family_of(hf_config)
    if is_transformers_classifier(experiment) and not has_entry(folder, HEAD):
        names = {**family.names, **family.classifier}
        params = _read_params(folder, shapes, family, names, optional=())
    else:
        params = pretrained_params(folder, {"encoder": shapes["encoder"]})
        rest = {key: value for key, value in shapes.items() if key != "encoder"}
        params |= _read_head(folder, rest)
    return SavedModel(
        experiment,
        hf_config,
        labels,
        meta["thresholds"],
        read_calibration(meta, folder / META, len(labels)),
        read_ledger(meta, folder / META),
        params,
    )


def _read_experiment(meta: Mapping[str, Any], folder: Path, longest: int) -> Experiment:
    try:
        if not isinstance(meta.get("experiment"), dict):
            raise ConfigError("experiment is no object")
        experiment = check(from_dict(meta["experiment"]), {"pool": POOLS, "head": HEADS})
        if experiment.data.max_length > longest:
            raise ConfigError(f"data.max_length={experiment.data.max_length}, of {longest}")
        return experiment
    except ConfigError as error:
        raise DataError(f"{folder / META}: {printable(str(error), 300)}") from None


def _read_head(folder: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    stored = open_safetensors(folder, HEAD)
    expected = {"/".join(path): leaf.shape for path, leaf in flatten_params(shapes).items()}
    fitting, faults = match_tensors(stored, expected)
    faults += [f"unexpected {printable(name)}" for name in stored if name not in expected]
    raise_if_any(faults, str(folder / HEAD))
    found = read_all(fitting, str(folder / HEAD))
    return flax.traverse_util.unflatten_dict(found, sep="/")
