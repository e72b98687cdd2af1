"""A full disk is one StorageError with path and need, whichever library writes."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from jaxclf.errors import DataError, StorageError
from jaxclf.files.atomic import write_bytes, write_folder
from jaxclf.files.disk import require_space, storage_errors
from jaxclf.files.json_file import write_json


def write_tokenizer(path):
    vocabulary = {f"piece{number}": number for number in range(999)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "piece0")).save(str(path))


LIBRARIES = {
    "tokenizers": write_tokenizer,
    "safetensors": lambda path: safetensors.numpy.save_file({"a": np.zeros(999)}, path),
    "numpy": lambda path: np.save(path, np.zeros(999)),
    "python": lambda path: path.write_text("x" * 1001),
    "shutil": lambda path: shutil.copytree(path.parent.parent / "source", path),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_failed_write_of_any_library_names_the_folder(tmp_path, limit_file_size, library):
    (tmp_path / "source").mkdir()
    for number in range(3):
        (tmp_path / "source" / str(number)).write_text("x" * 1000)
    limit_file_size(900)
    folder = tmp_path / "model"
    with (
        pytest.raises(
            StorageError, match=r"model.*: (File too|a write fail).*B free\); free"
        ) as caught,
        write_folder(folder) as part,
    ):
        LIBRARIES[library](part / "file")
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_failed_write_of_our_own_names_file_and_need(tmp_path, limit_file_size):
    limit_file_size(1000)
    path = write_bytes(tmp_path / "new" / "a.json", b"old")
    with pytest.raises(StorageError, match=rf"^{path}: File too large \(needs 2\.0 kB, "):
        write_json(path, "x" * 2000)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_space_is_required_before_a_folder_is_written(tmp_path):
    folder = tmp_path / "new" / "model"
    with (
        pytest.raises(StorageError, match=r"model: not enough .* \(needs 8,000,000,000\.0 MB, "),
        write_folder(folder, 8 * 10**15),
    ):
        pytest.fail("the block runs")
    assert not folder.parent.exists()
    require_space(folder, 1)


@pytest.mark.parametrize(
    "error", [ValueError("x"), DataError("a.csv: no space left on device"), KeyboardInterrupt()]
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, storage_errors(Path("run")):
        raise error
    assert caught.value is error


def test_an_error_about_another_file_names_that_file():
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", "elsewhere")
    with pytest.raises(StorageError, match=r"^elsewhere: No such"), storage_errors(Path("run")):
        raise error
