"""Convert Hugging Face weight files to params and back through a table of names.

Missing and unexpected tensors are errors. Files are untrusted: no pickle is opened, and names,
shapes and dtypes are checked before a tensor is read.
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
HEADER_LIMIT = 16 * 2**20  # bytes
MAX_LISTED_ERRORS = 200  # a file with more errors belongs to another model


def flatten_params(params: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Nested dicts as one dict by path."""
    return dict(flax.traverse_util.flatten_dict(dict(params)))


def open_tensors(folder: Path) -> dict[str, LazyTensor]:
    """All tensors of a model folder under their torch names.

    Reads one safetensors file, shards, or Flax msgpack. Raises DataError for other files.
    """
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
    """Instructions for a model that has pickled weights only."""
    code = (
        "from transformers import AutoModel, AutoTokenizer; "
        f"AutoModel.from_pretrained({source!r}).save_pretrained({target!r}); "
        f"AutoTokenizer.from_pretrained({source!r}).save_pretrained({target!r})"
    )
    return (
        "pickled weights can run code and are not opened; convert them once, if you trust them:\n"
        "  pip install torch transformers\n"
        f"  python -c {shlex.quote(code)}\n"
        f"and give encoder.name={target}"
    )


def open_safetensors(folder: Path, name: str) -> dict[str, LazyTensor]:
    """The tensors of one safetensors file. Raises DataError."""
    path = safe_path(folder, name)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > HEADER_LIMIT:
            raise DataError(f"{path}: not a safetensors file: a header of {size:,} bytes")
        header = file.read(size)
    entries = parse_json(header, f"{path}, its header")
    # The library checks offsets and sizes against the file, but accepts duplicate names.
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file: {printable(str(error))}") from None
    return {name: _lazy_tensor(path, 8 + size, entries[name]) for name in names}


def _lazy_tensor(path: Path, data_start: int, entry: Mapping[str, Any]) -> LazyTensor:
    """The tensor that an entry of a safetensors header describes."""
    shape, dtype = tuple(entry["shape"]), entry["dtype"]
    offset, count = data_start + entry["data_offsets"][0], int(np.prod(shape, dtype=np.int64))

    def read() -> np.ndarray:
        return np.fromfile(path, FLOATS[dtype], count, offset=offset).reshape(shape)

    return LazyTensor(shape, dtype, read)


def _open_shards(folder: Path) -> dict[str, LazyTensor]:
    weight_map = read_json(folder, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(file, str) for file in weight_map.values()
    ):
        raise DataError(f"{folder / INDEX}: no weight_map from tensors to files")
    tensors: dict[str, LazyTensor] = {}
    for file in sorted(set(weight_map.values())):
        shard = open_safetensors(folder, file)
        if misplaced := sorted(name for name in shard if weight_map.get(name) != file):
            raise DataError(f"{folder / INDEX}: does not place {printable(misplaced[0])} in {file}")
        tensors |= shard
    if missing := sorted(weight_map.keys() - tensors.keys()):
        name = missing[0]
        raise DataError(f"{folder / INDEX}: {printable(name)!r} is not in {weight_map[name]}")
    return tensors


def file_name(path: tuple[str, ...], names: Mapping[str, str]) -> str | None:
    """The torch name of a parameter, or None if the table has none.

    A row of the table names a module or a single parameter, of every layer or of one.
    """
    full, module = "/".join(path), "/".join(path[:-1])
    if full in names or _template(full) in names:
        return _torch_name(names, full)
    if module in names or _template(module) in names:
        return _torch_name(names, module) + "." + TORCH_PARAM_NAMES[path[-1]][0]
    return None


def _template(path: str) -> str:
    return re.sub(r"layer_\d+", "layer_{i}", path, count=1)


def _torch_name(names: Mapping[str, str], path: str) -> str:
    if path in names:
        return names[path]
    number = re.search(r"layer_(\d+)", path)
    return names[_template(path)].replace("{i}", number[1] if number else "")


def to_params(
    tensors: Mapping[str, LazyTensor],
    shapes: Mapping[str, Any],
    names: Mapping[str, str],
    ignored_keys: tuple[str, ...],
    prefix: str,
    optional: tuple[str, ...],
    source: str,
) -> dict[str, Any]:
    """Convert a file's tensors to the float32 parameters that the table names.

    shapes: the network's parameters, a nested dict of values with `.shape`.
    ignored_keys: prefixes of torch names that a file may have and the network does not use.
    prefix: removed from the names of the file and of the table.
    optional: prefixes of our paths that the file, and then the result, may lack.
    source: the folder, for messages.

    Raises DataError that lists every missing, unexpected and misshapen tensor, or else every tensor
    with NaN or infinity.
    """
    by_name: dict[str, LazyTensor] = {}
    errors: list[str] = []
    for name, tensor in tensors.items():
        bare = _current_name(name.removeprefix(prefix))
        if bare in by_name:
            errors.append(f"duplicate {printable(name)}")
        by_name[bare] = tensor
    paths: dict[str, tuple[str, ...]] = {}
    params = flatten_params(shapes)
    for path in params:
        name = file_name(path, names)
        name = name and name.removeprefix(prefix)
        if name and (name in by_name or not "/".join(path).startswith(optional)):
            paths[name] = path
    is_transposed = {name: TORCH_PARAM_NAMES[path[-1]][1] for name, path in paths.items()}
    expected = {
        name: params[path].shape[::-1] if is_transposed[name] else params[path].shape
        for name, path in paths.items()
    }
    matching, mismatches = match_tensors(by_name, expected)
    unexpected = [
        f"unexpected {printable(name)}"
        for name in by_name
        if name not in paths and not name.startswith(ignored_keys)
    ]
    raise_if_any(errors + mismatches + unexpected, f"{source}: the weights do not fit the encoder")
    arrays = read_all(matching, source)
    return flax.traverse_util.unflatten_dict(
        {
            path: np.ascontiguousarray(arrays[name].T if is_transposed[name] else arrays[name])
            for name, path in paths.items()
        }
    )


def match_tensors(
    tensors: Mapping[str, LazyTensor], expected: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, LazyTensor], list[str]]:
    """The tensors of the expected names and shapes, and an error for each name without one."""
    matching, errors = {}, []
    for name, shape in expected.items():
        if name not in tensors:
            errors.append(f"missing {name}")
            continue
        tensor = tensors[name]
        if tensor.shape != shape:
            errors.append(f"{name} has shape {tensor.shape}, expected {shape}")
        elif tensor.dtype not in FLOATS:
            errors.append(f"{name} has dtype {tensor.dtype}; choose from: {', '.join(FLOATS)}")
        else:
            matching[name] = tensor
    return matching, errors


def read_all(tensors: Mapping[str, LazyTensor], source: str) -> dict[str, np.ndarray]:
    """Read tensors as float32. Raises DataError that lists those with NaN or infinity."""
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinity
        arrays = {name: tensor.read().astype(np.float32) for name, tensor in tensors.items()}
    not_finite = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    raise_if_any([f"{name} holds NaN or infinity" for name in not_finite], source)
    return arrays


def raise_if_any(errors: list[str], source: str) -> None:
    """Raise DataError that lists the errors, if there are any."""
    if errors:
        hidden = len(errors) - MAX_LISTED_ERRORS
        more = f"; and {hidden:,} more" if hidden > 0 else ""
        raise DataError(f"{source}: " + "; ".join(errors[:MAX_LISTED_ERRORS]) + more)


def _current_name(name: str) -> str:
    """Files from before 2019 call the weights of a layer norm gamma and beta."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name).replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def to_tensors(params: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The parameters that the table names, under their torch names; the inverse of `to_params`."""
    tensors = {}
    for path, param in flatten_params(params).items():
        name = file_name(path, names)
        if name is not None:
            array = np.asarray(param)
            is_transposed = TORCH_PARAM_NAMES[path[-1]][1]
            tensors[name] = np.ascontiguousarray(array.T if is_transposed else array)
    return tensors
