"""Files of predictions keep every bit; any other file raises DataError."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxclf.decisions.predictions import load_predictions, save_predictions, with_unknown
from jaxclf.errors import DataError, StorageError
from jaxclf.types import Predictions


def small(split: str = "val") -> Predictions:
    return Predictions(
        np.array(["a", "Ünïcödé 🙂"]),
        np.array([[0.25, 1.0], [0.1, 0.0]], np.float32),
        np.array([[1.0, np.nan], [0.0, 1.0]], np.float32),
        split,
    )


def assert_same(loaded: Predictions, saved: Predictions) -> None:
    """Every bit is equal, and so are shapes and types."""
    assert (list(loaded.ids), loaded.split) == (list(saved.ids), saved.split)
    np.testing.assert_array_equal(loaded.probs, saved.probs, strict=True)
    np.testing.assert_array_equal(loaded.labels, saved.labels, strict=True)


# numpy drops NUL characters at the end of a string; half a surrogate pair is not text.
IDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@st.composite
def predictions(draw):
    shape = (draw(st.integers(0, 5)), draw(st.integers(1, 3)))
    ids = draw(st.lists(IDS, min_size=shape[0], max_size=shape[0]))
    probs = draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    labels = draw(arrays(np.float32, shape, elements=st.sampled_from((0.0, 1.0, np.nan))))
    return Predictions(np.array(ids, np.str_), probs, labels, draw(IDS))


@settings(deadline=None, max_examples=60)
@given(saved=predictions())
def test_load_returns_the_saved_predictions(tmp_path_factory, saved):
    path = tmp_path_factory.mktemp("predictions") / "val.npz"
    save_predictions(path, saved)
    loaded = load_predictions(path)
    assert_same(loaded, saved)
    assert type(loaded.split) is str


def test_ids_can_be_a_tuple(tmp_path):
    save_predictions(tmp_path / "val.npz", small()._replace(ids=("a", "Ünïcödé 🙂")))
    assert_same(load_predictions(tmp_path / "val.npz"), small())


def test_save_makes_the_folder_and_replaces_the_old_file(tmp_path):
    path = tmp_path / "run" / "predictions" / "val.npz"
    save_predictions(path, small())
    save_predictions(path, small("test"))
    assert_same(load_predictions(path), small("test"))
    assert list(path.parent.iterdir()) == [path]


def test_the_file_is_read_without_jaxclf(tmp_path):
    save_predictions(tmp_path / "val.npz", small())
    with np.load(tmp_path / "val.npz", allow_pickle=False) as file:
        assert sorted(file) == ["ids", "labels", "probs", "split"]
        assert file["ids"].tolist() == ["a", "Ünïcödé 🙂"]
        assert file["split"] == "val"


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "val.npz"
    save_predictions(path, small())

    def raise_disk_full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(StorageError, match=f"{path}: No space left on device .needs .* free"):
        save_predictions(path, small("test"))
    assert_same(load_predictions(path), small())
    assert list(tmp_path.iterdir()) == [path]


def write_npz(path, **changes):
    """Write a file of predictions with changed arrays; None leaves an array out."""
    arrays = {**small()._asdict(), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def write_array(path):
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))


def write_truncated(path, share):
    write_npz(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def write_damaged(path):
    """Flip a bit of the probabilities, so that the checksum of the archive fails."""
    write_npz(path)
    content = bytearray(path.read_bytes())
    content[content.index(small().probs.tobytes())] ^= 1
    path.write_bytes(content)


INVALID = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("some text", encoding="utf-8"),
    "json": lambda path: path.write_text("[1]", encoding="utf-8"),
    "another npz": lambda path: np.savez(path, weights=np.zeros(3)),
    "npy": write_array,
    "first half": lambda path: write_truncated(path, 0.5),
    "first bytes": lambda path: write_truncated(path, 0.01),
    "damaged": write_damaged,
    "pickled ids": lambda path: write_npz(path, ids=np.array(["a", None], object)),
    "no ids": lambda path: write_npz(path, ids=None),
    "no split": lambda path: write_npz(path, split=None),
    "too few ids": lambda path: write_npz(path, ids=np.array(["a"])),
    "too few rows": lambda path: write_npz(path, probs=small().probs[:1]),
    "too few classes": lambda path: write_npz(path, labels=small().labels[:, :1]),
}


@pytest.mark.parametrize("kind", INVALID)
def test_an_invalid_file_is_named_in_the_error(tmp_path, kind):
    path = tmp_path / "val.npz"
    INVALID[kind](path)
    with pytest.raises(DataError) as caught:
        load_predictions(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a file of predictions")
    # The advice of numpy to load unsafely must not reach the user.
    assert "pickle" not in message


@pytest.mark.parametrize("name", ["missing.npz", "."])
def test_a_missing_file_is_named_in_the_error(tmp_path, name):
    with pytest.raises(DataError) as caught:
        load_predictions(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: no such file")


def test_with_unknown_replaces_only_unknown_labels_by_nan():
    labels = np.array([[1.0, 0.0, 0.0]], np.float32)
    known = np.array([[1.0, 1.0, 0.0]], np.float32)
    expected = np.array([[1.0, 0.0, np.nan]], np.float32)
    np.testing.assert_array_equal(with_unknown(labels, known), expected, strict=True)
