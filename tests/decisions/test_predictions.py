"""Files of predictions hold exactly what was saved; a file that is none of ours is a DataError."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxclf.decisions.predictions import load_predictions, save_predictions, with_unknown
from jaxclf.errors import DataError
from jaxclf.types import Predictions


def small(split: str = "val") -> Predictions:
    return Predictions(
        np.array(["a", "Ünïcödé 🙂"]),
        np.array([[0.25, 1.0], [0.1, 0.0]], np.float32),
        np.array([[1.0, np.nan], [0.0, 1.0]], np.float32),
        split,
    )


def assert_same(ours: Predictions, theirs: Predictions) -> None:
    """Bit for bit, with shapes and types."""
    assert (list(ours.ids), ours.split) == (list(theirs.ids), theirs.split)
    for one, other in ((ours.probs, theirs.probs), (ours.labels, theirs.labels)):
        np.testing.assert_array_equal(one, other, strict=True)


# numpy's strings end at their last character that is not NUL; half a surrogate pair is no text.
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
def test_what_is_loaded_is_what_was_saved(tmp_path_factory, saved):
    path = tmp_path_factory.mktemp("predictions") / "val.npz"
    save_predictions(path, saved)
    loaded = load_predictions(path)
    assert_same(loaded, saved)
    assert type(loaded.split) is str


def test_a_tuple_of_ids_serves_as_well(tmp_path):
    save_predictions(tmp_path / "val.npz", small()._replace(ids=("a", "Ünïcödé 🙂")))
    assert_same(load_predictions(tmp_path / "val.npz"), small())


def test_saving_makes_the_folder_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
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


def test_a_save_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "val.npz"
    save_predictions(path, small())

    def full_disk(file, **parts):
        with open(file, "wb") as stream:
            stream.write(b"PK half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_predictions(path, small("test"))
    assert_same(load_predictions(path), small())


def write_npz(path, **changes):
    """A file of predictions with some parts changed, or left out where None."""
    parts = {**small()._asdict(), **changes}
    np.savez(path, **{name: part for name, part in parts.items() if part is not None})


def write_array(path):
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))


def write_part(path, share):
    write_npz(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def write_damaged(path):
    """One bit of the stored probabilities is flipped; the archive's checksum tells."""
    write_npz(path)
    whole, stored = path.read_bytes(), small().probs.tobytes()
    at = whole.index(stored)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


FOREIGN = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("some text", encoding="utf-8"),
    "json": lambda path: path.write_text("[1]", encoding="utf-8"),
    "another npz": lambda path: np.savez(path, weights=np.zeros(3)),
    "npy": write_array,
    "first half": lambda path: write_part(path, 0.5),
    "first bytes": lambda path: write_part(path, 0.01),
    "damaged": write_damaged,
    "pickled ids": lambda path: write_npz(path, ids=np.array(["a", None], object)),
    "no ids": lambda path: write_npz(path, ids=None),
    "no split": lambda path: write_npz(path, split=None),
    "ids too few": lambda path: write_npz(path, ids=np.array(["a"])),
    "rows too few": lambda path: write_npz(path, probs=small().probs[:1]),
    "classes too few": lambda path: write_npz(path, labels=small().labels[:, :1]),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_a_data_error_that_names_it(tmp_path, kind):
    path = tmp_path / "val.npz"
    FOREIGN[kind](path)
    with pytest.raises(DataError) as caught:
        load_predictions(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not a file of predictions")
    # numpy's own advice to load unsafely is not for a user.
    assert "pickle" not in message


@pytest.mark.parametrize("name", ["missing.npz", "."])
def test_no_file_is_a_data_error_that_names_it(tmp_path, name):
    with pytest.raises(DataError) as caught:
        load_predictions(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: no such file")


def test_unknown_labels_become_nan_and_known_ones_stay():
    labels = np.array([[1.0, 0.0, 0.0]], np.float32)
    known = np.array([[1.0, 1.0, 0.0]], np.float32)
    expected = np.array([[1.0, 0.0, np.nan]], np.float32)
    np.testing.assert_array_equal(with_unknown(labels, known), expected, strict=True)
