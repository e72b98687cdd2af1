"""Row hashes as a file: a sorted 64-bit hash of each text of a split, and no text."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from jaxclf.errors import DataError
from jaxclf.files.atomic import write_bytes

ROW_HASHES = "row_hashes.npz"
LIMIT = 2**30  # bytes: 134 million rows

Hashes = UInt64[np.ndarray, " rows"]
RowHashes = Mapping[str, np.ndarray]  # split -> Hashes


def save_row_hashes(path: Path, row_hashes: RowHashes) -> str:
    """Write an npz file, whole or not at all. Equal hashes give equal bytes. Returns its
    SHA-256."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: hashes.astype("<u8") for name, hashes in row_hashes.items()}
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def load_row_hashes(path: Path) -> dict[str, Hashes]:
    """Read the file. Raises DataError for any content that `save_row_hashes` does not write.

    The file may be of a stranger: numpy would unpack as much as it claims to hold.
    """
    error = DataError(f"{path}: not a file of row hashes")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise error
            hashes = {
                member.filename.removesuffix(".npy"): _parse(archive.read(member))
                for member in members
            }
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
        raise error from None
    return hashes


def _parse(content: bytes) -> Hashes:
    """The array of an npy file. Raises ValueError."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    hashes = np.frombuffer(file.read(), "<u8")
    if dtype != hashes.dtype or shape != hashes.shape:
        raise ValueError
    return hashes.astype(np.uint64)
