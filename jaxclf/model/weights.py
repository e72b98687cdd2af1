"""Hugging Face weight files <-> params, through a table of names; strict both ways, and no
pickle."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from jaxclf.errors import DataError

SINGLE, INDEX, MSGPACK = "model.safetensors", "model.safetensors.index.json", "flax_model.msgpack"

# The leaf of a Flax module -> its name in a torch state dict, and whether it is stored transposed.
LEAVES = {
    "kernel": ("weight", True),
    "bias": ("bias", False),
    "scale": ("weight", False),
    "embedding": ("weight", False),
}


def leaves_of(params: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Nested dicts as one, by path."""
    return dict(flax.traverse_util.flatten_dict(dict(params)))


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a model folder under their torch names: one safetensors file, shards, or Flax
    msgpack."""
    if (folder / SINGLE).is_file():
        return read_safetensors(folder / SINGLE)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    if (folder / MSGPACK).is_file():
        return _read_msgpack(folder / MSGPACK)
    raise DataError(
        f"{folder}: none of {SINGLE}, {INDEX}, {MSGPACK}; pickled weights (.bin, .pt) are not "
        "opened: save the model once with transformers' save_pretrained(safe_serialization=True)"
    )


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file: {error}") from None


def _read_shards(folder: Path) -> dict[str, np.ndarray]:
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    tensors = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise DataError(f"{folder / INDEX}: shard {name!r} is outside the folder")
        tensors.update(read_safetensors(folder / name))
    if tensors.keys() != places.keys():
        odd = sorted(tensors.keys() ^ places.keys())
        raise DataError(f"{folder / INDEX}: index and shards disagree on {', '.join(odd[:5])}")
    return tensors


def _read_msgpack(path: Path) -> dict[str, np.ndarray]:
    """Flax's own format, kernels turned and leaves named as torch has them."""
    try:
        tree = flax.serialization.msgpack_restore(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not a Flax msgpack file: {error}") from None
    tensors = {}
    for (*module, leaf), value in flax.traverse_util.flatten_dict(tree).items():
        name, transposed = LEAVES[leaf]
        tensor: np.ndarray = np.asarray(value)
        tensors[".".join([*module, name])] = tensor.T if transposed else tensor
    return tensors


def file_name(path: tuple[str, ...], names: Mapping[str, str]) -> str | None:
    """The torch name of a leaf of params, None where the table has none."""
    module, leaf = "/".join(path[:-1]), path[-1]
    number = re.search(r"layer_(\d+)", module)
    template = module.replace(number[0], "layer_{i}") if number else module
    if template not in names:
        return None
    return names[template].replace("{i}", number[1] if number else "") + "." + LEAVES[leaf][0]


def to_params(
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, Any],
    names: Mapping[str, str],
    surplus: tuple[str, ...],
    prefix: str,
    optional: tuple[str, ...] = ("head/",),
) -> dict[str, Any]:
    """The leaves of `shapes` that the table names, float32, from a file's tensors.

    shapes: nested dict of anything with `.shape`, the network's own leaves.
    surplus: beginnings of names that a file may hold and the network does not use.
    prefix: dropped from the file's names where they carry it.
    optional: beginnings of our paths that may be missing from the file; they are missing from the
        result then.

    Raises DataError that lists every missing, surplus and misshapen tensor.
    """
    left = {_modern(name.removeprefix(prefix)): value for name, value in tensors.items()}
    found, faults = {}, []
    for path, leaf in leaves_of(shapes).items():
        name = file_name(path, names)
        if name is None or (name not in left and "/".join(path).startswith(optional)):
            continue
        if name not in left:
            faults.append(f"missing {name}")
            continue
        value = left.pop(name)
        value = value.T if LEAVES[path[-1]][1] else value
        if value.shape != leaf.shape:
            faults.append(f"{name} has shape {value.shape}, expected {leaf.shape}")
        found[path] = np.ascontiguousarray(value, np.float32)
    faults += [f"surplus {name}" for name in left if not name.startswith(surplus)]
    if faults:
        raise DataError("the weights do not fit the encoder: " + "; ".join(faults))
    return flax.traverse_util.unflatten_dict(found)


def _modern(name: str) -> str:
    """Files from before 2019 call a layer norm's weights gamma and beta."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name).replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def to_tensors(params: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The inverse of `to_params`: the leaves that the table names, as a Hugging Face file has
    them."""
    tensors = {}
    for path, leaf in leaves_of(params).items():
        name = file_name(path, names)
        if name is not None:
            value = np.asarray(leaf)
            tensors[name] = np.ascontiguousarray(value.T if LEAVES[path[-1]][1] else value)
    return tensors
