"""Hugging Face weight files <-> params, through a table of names; strict both ways, and no
pickle.

Files are distrusted: names, shapes and kinds of numbers are read and compared before any tensor is.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxclf.errors import DataError
from jaxclf.files.untrusted import has_entry, parse_json, printable, read_json, safe_path
from jaxclf.model.storage.flax_file import MSGPACK, open_flax
from jaxclf.model.storage.tensor_files import FLOATS, TORCH_PARAM_NAMES, LazyTensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER_LIMIT = 16 * 2**20


def flatten_params(params: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Nested dicts as one, by path."""
    return dict(flax.traverse_util.flatten_dict(dict(params)))


def open_tensors(folder: Path) -> dict[str, LazyTensor]:
    """All tensors of a model folder under their torch names: one safetensors file, shards, or Flax
    msgpack. Raises DataError for what cannot be trusted."""
    if has_entry(folder, SINGLE):
        return open_safetensors(folder, SINGLE)
    if has_entry(folder, INDEX):
        return _open_shards(folder)
    if has_entry(folder, MSGPACK):
        return open_flax(folder)
    if list(folder.glob("*.bin")) or list(folder.glob("*.pt")) or list(folder.glob("*.pth")):
        raise DataError(f"{folder}: {conversion(str(folder), str(folder))}")
    raise DataError(f"{folder}: none of {SINGLE}, {INDEX}, {MSGPACK}")


def conversion(source: str, target: str) -> str:
    """What to do about a model that has pickled weights only."""
    code = (
        "from transformers import AutoModel, AutoTokenizer; "
        f"AutoModel.from_pretrained({source!r}).save_pretrained({target!r}); "
        f"AutoTokenizer.from_pretrained({source!r}).save_pretrained({target!r})"
    )
    return (
        "pickled weights may run code and are not opened; convert them once, if you trust them:\n"
        "  pip install torch transformers\n"
        f"  python -c {shlex.quote(code)}\n"
        f"and give encoder.name={target}"
    )


def open_safetensors(folder: Path, name: str) -> dict[str, LazyTensor]:
    """The tensors of one file, none of them read."""
    path = safe_path(folder, name)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > HEADER_LIMIT:
            raise DataError(f"{path}: not a safetensors file: a header of {size:,} bytes")
        header = file.read(size)
    entries = parse_json(header, f"{path}, its header")
    # The library holds offsets and sizes to the file; that a name stands there once, it does not.
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file: {printable(str(error))}") from None
    start = 8 + size

    def stored(entry: Mapping[str, Any]) -> LazyTensor:
        shape, dtype = tuple(entry["shape"]), entry["dtype"]
        offset, count = start + entry["data_offsets"][0], int(np.prod(shape, dtype=np.int64))

        def read() -> np.ndarray:
            return np.fromfile(path, FLOATS[dtype], count, offset=offset).reshape(shape)

        return LazyTensor(shape, dtype, read)

    return {name: stored(entries[name]) for name in names}


def _open_shards(folder: Path) -> dict[str, LazyTensor]:
    places = read_json(folder, INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(one, str) for one in places.values()):
        raise DataError(f"{folder / INDEX}: no weight_map from tensors to files")
    tensors: dict[str, LazyTensor] = {}
    for name in sorted(set(places.values())):
        found = open_safetensors(folder, name)
        tensors |= {tensor: one for tensor, one in found.items() if places.get(tensor) == name}
        if odd := sorted(tensor for tensor in found if places.get(tensor) != name):
            raise DataError(f"{folder / INDEX}: does not place {odd[0][:80]!r} in {name}")
    if odd := sorted(places.keys() - tensors.keys()):
        raise DataError(f"{folder / INDEX}: {odd[0][:80]!r} is not in {places[odd[0]]}")
    return tensors


def file_name(path: tuple[str, ...], names: Mapping[str, str]) -> str | None:
    """The torch name of a leaf of params, None where the table has none.

    A row of the table names a module, of every layer or of one, or a single leaf.
    """
    whole, module = "/".join(path), "/".join(path[:-1])
    if whole in names or _template(whole) in names:
        return _name(names, whole)
    if module in names or _template(module) in names:
        return _name(names, module) + "." + TORCH_PARAM_NAMES[path[-1]][0]
    return None


def _template(path: str) -> str:
    return re.sub(r"layer_\d+", "layer_{i}", path, count=1)


def _name(names: Mapping[str, str], path: str) -> str:
    if path in names:
        return names[path]
    number = re.search(r"layer_(\d+)", path)
    return names[_template(path)].replace("{i}", number[1] if number else "")


def to_params(
    tensors: Mapping[str, LazyTensor],
    shapes: Mapping[str, Any],
    names: Mapping[str, str],
    surplus: tuple[str, ...],
    prefix: str,
    optional: tuple[str, ...],
    where: str,
) -> dict[str, Any]:
    """The leaves of `shapes` that the table names, float32, from a file's tensors.

    shapes: nested dict of anything with `.shape`, the network's own leaves.
    surplus: beginnings of names that a file may hold and the network does not use.
    prefix: dropped from names, of the file and of the table, where they carry it.
    where: the folder, for messages.
    optional: beginnings of our paths that may be missing from the file; they are missing from the
        result then.

    Raises DataError that lists every missing, surplus and misshapen tensor, and then every one that
    holds what is no number.
    """
    left, faults, paths = {}, [], {}
    for name, tensor in tensors.items():
        bare = _modern(name.removeprefix(prefix))
        if bare in left:
            faults.append(f"{printable(name)} stands there twice")
        left[bare] = tensor
    for path in (leaves := flatten_params(shapes)):
        name = file_name(path, names)
        name = name and name.removeprefix(prefix)
        if name and not (name not in left and "/".join(path).startswith(optional)):
            paths[name] = path
    turned = {name: TORCH_PARAM_NAMES[path[-1]][1] for name, path in paths.items()}
    wanted = {
        name: leaves[path].shape[::-1] if turned[name] else leaves[path].shape
        for name, path in paths.items()
    }
    fitting, more = match_tensors(left, wanted)
    faults += more
    faults += [
        f"unexpected {printable(name)}"
        for name in left
        if name not in paths and not name.startswith(surplus)
    ]
    raise_if_any(faults, f"{where}: the weights do not fit the encoder")
    found = read_all(fitting, where)
    return flax.traverse_util.unflatten_dict(
        {
            path: np.ascontiguousarray(found[name].T if turned[name] else found[name])
            for name, path in paths.items()
        }
    )


def match_tensors(
    tensors: Mapping[str, LazyTensor], wanted: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, LazyTensor], list[str]]:
    """The wanted tensors, none of them read, and what is amiss with each that is not among them.

    wanted: name -> shape.
    """
    fitting, faults = {}, []
    for name, shape in wanted.items():
        if name not in tensors:
            faults.append(f"missing {name}")
            continue
        tensor = tensors[name]
        if tensor.shape != shape:
            faults.append(f"{name} has shape {tensor.shape}, expected {shape}")
        elif tensor.dtype not in FLOATS:
            faults.append(f"{name} is of {tensor.dtype}, expected one of {', '.join(FLOATS)}")
        else:
            fitting[name] = tensor
    return fitting, faults


def read_all(tensors: Mapping[str, LazyTensor], where: str) -> dict[str, np.ndarray]:
    """The tensors as float32. Raises DataError that lists all that hold what is no number."""
    found = {}
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        for name, tensor in tensors.items():
            found[name] = tensor.read().astype(np.float32)
    raise_if_any(
        [
            f"{name} holds NaN or infinity"
            for name, value in found.items()
            if not np.isfinite(value).all()
        ],
        where,
    )
    return found


# A message names so many faults; where there are more, the file is of another model altogether.
MAX_LISTED_ERRORS = 200


def raise_if_any(faults: list[str], where: str) -> None:
    """DataError that lists the faults, where there are any."""
    if faults:
        more = (
            f"; and {len(faults) - MAX_LISTED_ERRORS:,} more"
            if len(faults) > MAX_LISTED_ERRORS
            else ""
        )
        raise DataError(f"{where}: " + "; ".join(faults[:MAX_LISTED_ERRORS]) + more)


def _modern(name: str) -> str:
    """Files from before 2019 call a layer norm's weights gamma and beta."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name).replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def to_tensors(params: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The inverse of `to_params`: the leaves that the table names, as a Hugging Face file has
    them."""
    tensors = {}
    for path, leaf in flatten_params(params).items():
        name = file_name(path, names)
        if name is not None:
            value = np.asarray(leaf)
            tensors[name] = np.ascontiguousarray(
                value.T if TORCH_PARAM_NAMES[path[-1]][1] else value
            )
    return tensors
