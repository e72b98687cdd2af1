"""The folder `model/`: what a finished run hands over, in Hugging Face's layout.

config.json tokenizer.json    as the encoder came
model.safetensors             the encoder, under the names of its family
head.safetensors              pool and head, under our paths
jaxclf.json                   the experiment, the labels in order, the thresholds
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

from jaxclf.config import Experiment, from_dict, to_dict
from jaxclf.errors import DataError
from jaxclf.model.classifier import family_of
from jaxclf.model.weights import (
    SINGLE,
    leaves_of,
    read_safetensors,
    read_tensors,
    to_params,
    to_tensors,
)

HEAD, META = "head.safetensors", "jaxclf.json"
FORMAT = 1


class Handover(NamedTuple):
    """A trained model as it lies in its folder. thresholds: {label: {"value", "split", "rule"}}."""

    experiment: Experiment
    hf_config: dict[str, Any]
    labels: tuple[str, ...]
    thresholds: dict[str, dict[str, Any]]
    params: dict[str, Any]


def read_hf_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def pretrained_params(folder: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of `shapes` that an encoder's folder holds; all of the encoder, and of the head
    what was pretrained."""
    family = family_of(read_hf_config(folder))
    return to_params(read_tensors(folder), shapes, family.names, family.surplus, family.prefix)


def save_model(folder: Path, handover: Handover, encoder_folder: Path, card: str) -> None:
    """Write the folder whole or not at all; an older one is replaced."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(encoder_folder / name, part / name)
    params = jax.tree.map(np.asarray, handover.params)
    family = family_of(handover.hf_config)
    encoder = {"encoder": params["encoder"]}
    rest = {key: value for key, value in params.items() if key != "encoder"}
    safetensors.numpy.save_file(
        to_tensors(encoder, family.names), part / SINGLE, metadata={"format": "pt"}
    )
    head = {"/".join(path): leaf for path, leaf in leaves_of(rest).items()}
    safetensors.numpy.save_file(head, part / HEAD)
    meta = {
        "format": FORMAT,
        "experiment": to_dict(handover.experiment),
        "labels": list(handover.labels),
        "thresholds": handover.thresholds,
    }
    (part / META).write_text(
        json.dumps(meta, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (part / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def load_model(folder: Path, shapes_of: Any) -> Handover:
    """The inverse of `save_model`.

    shapes_of: (experiment, hf_config, classes) -> the network's leaves, to hold the files to.
    Raises DataError for a missing file and for tensors that do not fit.
    """
    path = folder / META
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the folder of a finished run or its model/")
    meta = json.loads(path.read_text(encoding="utf-8"))
    if meta["format"] != FORMAT:
        raise DataError(f"{path}: format {meta['format']}; this version reads {FORMAT}")
    experiment, hf_config = from_dict(meta["experiment"]), read_hf_config(folder)
    labels = tuple(meta["labels"])
    shapes = shapes_of(experiment, hf_config, len(labels))
    params = pretrained_params(folder, {"encoder": shapes["encoder"]})
    rest = {key: value for key, value in shapes.items() if key != "encoder"}
    expected = {"/".join(path): leaf for path, leaf in leaves_of(rest).items()}
    found = read_safetensors(folder / HEAD)
    faults = [f"missing {name}" for name in expected if name not in found]
    faults += [f"surplus {name}" for name in found if name not in expected]
    faults += [
        f"{name} has shape {found[name].shape}, expected {leaf.shape}"
        for name, leaf in expected.items()
        if name in found and found[name].shape != leaf.shape
    ]
    if faults:
        raise DataError(f"{folder / HEAD}: " + "; ".join(faults))
    params |= flax.traverse_util.unflatten_dict(found, sep="/")
    return Handover(experiment, hf_config, labels, meta["thresholds"], params)
