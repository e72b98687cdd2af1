"""Read Flax's weight file, a msgpack map of arrays.

flax.serialization would deserialize arbitrary untrusted content, so only tensor offsets are parsed
here.
"""

import math
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from jaxclf.errors import DataError
from jaxclf.files.untrusted import printable, safe_path
from jaxclf.model.storage.tensor_files import FLOATS, TORCH_PARAM_NAMES, LazyTensor

MSGPACK = "flax_model.msgpack"

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
