"""Row hashes as a file: read as written, and nothing else is read."""

import io
import zipfile

import numpy as np
import pytest

from jaxclf.decisions.row_hashes import load_row_hashes, save_row_hashes
from jaxclf.errors import DataError

HASHES = {
    "train": np.array([3, 5, 2**64 - 1], np.uint64),
    "val": np.array([0], np.uint64),
    "test": np.zeros(0, np.uint64),
}


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(shape, dtype="<u8"):
    file = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def archive(content, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as members:
        members.writestr("train.npy", content)
    return file.getvalue()


# What the file of a stranger may hold.
FILES = {
    "nothing": b"",
    "no archive": b"PK not an archive",
    "cut": archive(npy(HASHES["train"]))[:-30],
    "no array": archive(b"hashes"),
    "an array that claims a terabyte": archive(header((2**37,))),
    "an array of a negative length": archive(header((-1,)) + bytes(8)),
    "more values than its shape": archive(header((1,)) + bytes(16)),
    "two dimensions": archive(npy(np.zeros((2, 2), np.uint64))),
    "another type": archive(npy(np.zeros(3, np.float64))),
    "half a value": archive(npy(HASHES["train"])[:-3]),
    "objects": archive(npy(np.array([{}], object))),
    "compressed zeros": archive(npy(np.zeros(2**20, np.uint64)), zipfile.ZIP_DEFLATED),
}


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "row_hashes.npz"
    digest = save_row_hashes(path, HASHES)
    loaded = load_row_hashes(path)
    assert loaded.keys() == HASHES.keys()
    for name, hashes in HASHES.items():
        np.testing.assert_array_equal(loaded[name], hashes, strict=True)
    assert save_row_hashes(tmp_path / "again.npz", HASHES) == digest


@pytest.mark.parametrize("name", FILES)
def test_anything_else_is_refused_by_the_name_of_the_file(tmp_path, name):
    path = tmp_path / "row_hashes.npz"
    path.write_bytes(FILES[name])
    with pytest.raises(DataError, match=r"row_hashes\.npz"):
        load_row_hashes(path)
