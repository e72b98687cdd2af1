"""Tensors in files, described but not read: safetensors, shards of them, and Flax's msgpack.

Files are untrusted: no pickle is opened. flax.serialization would deserialize arbitrary content, so
only tensor offsets are parsed here.
"""

import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxclf.errors import DataError
from jaxclf.files.untrusted import has_entry, parse_json, printable, read_json, safe_path

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MSGPACK = "flax_model.msgpack"
HEADER_LIMIT = 16 * 2**20  # bytes

# safetensors' names of the dtypes that weights may be stored in.
FLOATS = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}

# Parameter of a Flax module -> its name in a torch state dict, and whether it is stored transposed.
TORCH_PARAM_NAMES = {
    "kernel": ("weight", True),
    "bias": ("bias", False),
    "scale": ("weight", False),
    "embedding": ("weight", False),
}


class LazyTensor(NamedTuple):
    """A tensor of a file, not read yet. dtype: a key of `FLOATS`, or another name in the file."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


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


# First byte of a msgpack value -> its kind, and the number of bytes of its length or integer.
MSGPACK_KINDS = {
    **{0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4)},
    **{0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4)},
    **{0xCC: ("int", 1), 0xCD: ("int", 2), 0xCE: ("int", 4), 0xCF: ("int", 8)},
    **{0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4)},
    **{0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)},
}
FLAX_DTYPES = {b"float64": "F64", b"float32": "F32", b"float16": "F16", b"bfloat16": "BF16"}
MAX_DEPTH, MAX_DIMENSIONS, MAX_NAME = 32, 8, 1000


class _Reader(NamedTuple):
    """An open msgpack file and its size in bytes."""

    file: BinaryIO
    path: Path
    size: int

    def error(self, message: str) -> DataError:
        return DataError(f"{self.path}: not a Flax msgpack file: {message}")

    def read_type(self) -> tuple[str, int]:
        """The kind of the next value, and its length (the value itself for an integer)."""
        byte = int.from_bytes(self.file.read(1), "big") if self.file.tell() < self.size else 0xC1
        for kind, first, last in (("int", 0, 0x7F), ("map", 0x80, 0x8F), ("array", 0x90, 0x9F)):
            if first <= byte <= last:
                return kind, byte - first
        if 0xA0 <= byte <= 0xBF:
            return "str", byte - 0xA0
        kind, width = MSGPACK_KINDS.get(byte, ("unknown", 0))
        number = int.from_bytes(self.file.read(width), "big")
        if kind not in ("int", "unknown") and number > self.size - self.file.tell():
            raise self.error("truncated")
        return kind, number

    def read_name(self) -> bytes:
        kind, length = self.read_type()
        if kind not in ("str", "bin") or length > MAX_NAME:
            raise self.error("a key is not a short string")
        return self.file.read(length)


def open_flax(folder: Path) -> dict[str, LazyTensor]:
    """The tensors of a folder's Flax file, under their torch names and in torch's layout.

    Raises DataError for any msgpack value but nested maps of float arrays.
    """
    path = safe_path(folder, MSGPACK)
    tensors: dict[str, LazyTensor] = {}
    with path.open("rb") as file:
        reader = _Reader(file, path, path.stat().st_size)
        _read_tree(reader, (), tensors)
        if file.tell() != reader.size:
            raise reader.error("data after its end")
    return tensors


def _read_tree(reader: _Reader, module: tuple[str, ...], tensors: dict[str, LazyTensor]) -> None:
    kind, count = reader.read_type()
    if kind == "map" and len(module) < MAX_DEPTH:
        for _ in range(count):
            name = reader.read_name().decode("utf-8", "replace")
            _read_tree(reader, (*module, name), tensors)
    elif kind == "ext" and reader.file.read(1) == b"\1":
        name, tensor = _read_tensor(reader, module, reader.file.tell() + count)
        if name in tensors:
            raise reader.error(f"duplicate tensor {printable(name)}")
        tensors[name] = tensor
    else:
        raise reader.error(f"{printable('/'.join(module))!r} is not a tensor")


def _read_tensor(reader: _Reader, path: tuple[str, ...], end: int) -> tuple[str, LazyTensor]:
    """The torch name and the description of the array that ends at offset `end`."""
    file = reader.file
    malformed = reader.error("an array is not a shape, a dtype and bytes")
    if reader.read_type() != ("array", 3):
        raise malformed
    kind, rank = reader.read_type()
    if kind != "array" or rank > MAX_DIMENSIONS:
        raise malformed
    dimensions = [reader.read_type() for _ in range(rank)]
    dtype = reader.read_name()
    kind, length = reader.read_type()
    offset = file.tell()
    if any(name != "int" for name, _ in dimensions) or kind != "bin" or offset + length != end:
        raise malformed
    shape = tuple(size for _, size in dimensions)
    stored = FLAX_DTYPES.get(dtype, printable(dtype.decode("utf-8", "replace")))
    if stored in FLOATS and math.prod(shape) * FLOATS[stored].itemsize != length:
        raise reader.error("the size of an array is not that of its shape")
    file.seek(end)
    *module, leaf = path
    name, is_transposed = TORCH_PARAM_NAMES.get(leaf, (leaf, False))

    def read() -> np.ndarray:
        array = np.fromfile(reader.path, FLOATS[stored], math.prod(shape), offset=offset)
        return array.reshape(shape).T if is_transposed else array.reshape(shape)

    torch_shape = shape[::-1] if is_transposed else shape
    return ".".join([*module, name]), LazyTensor(torch_shape, stored, read)
