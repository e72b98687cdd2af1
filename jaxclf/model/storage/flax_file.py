"""Flax's weight file: msgpack, of which nothing is read but where each tensor lies.

The library would read it whole and build whatever it holds, on the word of a distrusted file.
"""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxclf.errors import DataError
from jaxclf.files.untrusted import printable, safe_path
from jaxclf.model.storage.tensor_files import FLOATS, TORCH_PARAM_NAMES, LazyTensor

MSGPACK = "flax_model.msgpack"

# First byte of a msgpack value -> its kind and the bytes of its length (of an integer: its own).
MSGPACK_KINDS = {
    **{0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4)},
    **{0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4)},
    **{0xCC: ("int", 1), 0xCD: ("int", 2), 0xCE: ("int", 4), 0xCF: ("int", 8)},
    **{0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4)},
    **{0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4)},
}
FLAX_DTYPES = {b"float64": "F64", b"float32": "F32", b"float16": "F16", b"bfloat16": "BF16"}


def open_flax(folder: Path) -> dict[str, LazyTensor]:
    """Flax's own format, kernels turned and leaves named as torch has them; what else msgpack can
    hold is refused unread."""
    path = safe_path(folder, MSGPACK)
    size = path.stat().st_size
    tensors: dict[str, LazyTensor] = {}

    def wrong(what: str) -> DataError:
        return DataError(f"{path}: not a Flax msgpack file: {what}")

    def begin(file: BinaryIO) -> tuple[str, int]:
        byte = int.from_bytes(file.read(1), "big") if file.tell() < size else 0xC1
        for kind, first, last in (("int", 0, 0x7F), ("map", 0x80, 0x8F), ("array", 0x90, 0x9F)):
            if first <= byte <= last:
                return kind, byte - first
        if 0xA0 <= byte <= 0xBF:
            return "str", byte - 0xA0
        kind, width = MSGPACK_KINDS.get(byte, ("other", 0))
        number = int.from_bytes(file.read(width), "big")
        if kind not in ("int", "other") and number > size - file.tell():
            raise wrong("cut short")
        return kind, number

    def text(file: BinaryIO) -> bytes:
        kind, length = begin(file)
        if kind not in ("str", "bin") or length > 1000:
            raise wrong("a name that is none")
        return file.read(length)

    def walk(file: BinaryIO, place: tuple[str, ...]) -> None:
        kind, count = begin(file)
        if kind == "map" and len(place) < 32:
            for _ in range(count):
                walk(file, (*place, text(file).decode("utf-8", "replace")))
        elif kind == "ext" and file.read(1) == b"\1":
            tensor(file, place, file.tell() + count)
        else:
            raise wrong(f"{printable('/'.join(place))!r} is no tensor")

    def tensor(file: BinaryIO, place: tuple[str, ...], end: int) -> None:
        if begin(file) != ("array", 3):
            raise wrong("an array without shape, type and bytes")
        kind, dims = begin(file)
        sides = [begin(file) for _ in range(dims)] if kind == "array" and dims < 9 else [("", 0)]
        dtype = text(file)
        kind, length = begin(file)
        if any(side[0] != "int" for side in sides) or kind != "bin" or file.tell() + length != end:
            raise wrong("an array without shape, type and bytes")
        shape = tuple(side[1] for side in sides)
        known = FLAX_DTYPES.get(dtype, printable(dtype.decode("utf-8", "replace")))
        if known in FLOATS and math.prod(shape) * FLOATS[known].itemsize != length:
            raise wrong("an array of another size than its shape")
        offset = file.tell()
        file.seek(end)
        *module, leaf = place
        name, turned = TORCH_PARAM_NAMES.get(leaf, (leaf, False))
        full = ".".join([*module, name])
        if full in tensors:
            raise wrong(f"{printable(full)} stands there twice")

        def read() -> np.ndarray:
            value = np.fromfile(path, FLOATS[known], math.prod(shape), offset=offset)
            return value.reshape(shape).T if turned else value.reshape(shape)

        tensors[full] = LazyTensor(shape[::-1] if turned else shape, known, read)

    with path.open("rb") as file:
        walk(file, ())
        if file.tell() != size:
            raise wrong("something behind its end")
    return tensors
