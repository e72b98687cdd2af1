"""Checkpoints are restored bit by bit; damage is noticed, and an earlier one is used instead."""

import contextlib
import json
import math
import os
import random
import shutil

import chex
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxclf.errors import CheckpointError, StorageError
from jaxclf.files.digest import seal
from jaxclf.training import checkpoint, manifest
from jaxclf.training.manifest import Progress, list_checkpoints, list_strays
from jaxclf.training.step import dropout_key
from jaxclf.types import State


def make_state(step):
    rng = np.random.default_rng(step)
    params = {"dense": {"kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)}}
    moments = (jnp.asarray(rng.normal(size=5), jnp.float32), jnp.int32(step))
    return State(jnp.int32(step), params, moments, jnp.asarray(dropout_key(7)))


def make_progress(scores, batches=0):
    history = [{"epoch": epoch, "score": score} for epoch, score in enumerate(scores, 1)]
    return Progress(history, 0.5, batches)


@pytest.fixture
def two_epochs(tmp_path):
    """A run with checkpoints at steps 1 and 2, each the end of an epoch; the second is the best."""
    checkpoint.save(tmp_path, make_state(1), make_progress([0.1]))
    checkpoint.save(tmp_path, make_state(2), make_progress([0.1, 0.2]))
    return tmp_path


def list_files(run, step):
    folder = run / "checkpoints" / str(step)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def list_steps(run):
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


def test_a_checkpoint_is_restored_bit_by_bit(tmp_path):
    assert checkpoint.latest_checkpoint(tmp_path) is None
    progress = make_progress([0.25], batches=2)
    progress.history[0]["macro_auc"] = math.nan  # undefined
    checkpoint.save(tmp_path, make_state(3), progress)
    latest = checkpoint.latest_checkpoint(tmp_path)
    assert latest.step == 3
    np.testing.assert_equal(latest.progress, progress)
    state = checkpoint.restore(tmp_path, latest, checkpoint.abstract_state(make_state(0)))
    chex.assert_trees_all_equal(state, make_state(3), strict=True)


def test_the_best_and_the_two_newest_are_kept(tmp_path):
    scores = [0.1, 0.9, 0.3, 0.2, 0.4]
    for epoch in range(1, 6):
        checkpoint.save(tmp_path, make_state(10 * epoch), make_progress(scores[:epoch]))
    assert [info.step for info in list_checkpoints(tmp_path)] == [20, 40, 50]
    assert list_steps(tmp_path) == [20, 40, 50]
    # A checkpoint within an epoch cannot be the best.
    checkpoint.save(tmp_path, make_state(55), make_progress(scores, batches=5))
    assert checkpoint.latest_checkpoint(tmp_path).step == 55
    assert [info.step for info in checkpoint.epoch_checkpoints(tmp_path)] == [20, 50]


def test_a_loss_is_compared_with_the_lowest_whose_checkpoint_is_deleted(tmp_path):
    scores = [-1.0, -1.015, -1.03, -1.1]
    for epoch in range(1, 5):
        checkpoint.save(tmp_path, make_state(10 * epoch), make_progress(scores[:epoch]))
    assert list_steps(tmp_path) == [20, 30, 40]
    assert checkpoint.epoch_checkpoints(tmp_path)[0].step == 20


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_bit_is_noticed(two_epochs, seed, caplog):
    rng = random.Random(seed)
    path = rng.choice([path for path in list_files(two_epochs, 2) if path.stat().st_size])
    flip_bit(path, rng)
    assert checkpoint.latest_checkpoint(two_epochs).step == 1
    assert checkpoint.epoch_checkpoints(two_epochs)[0].step == 1
    damaged, damaged_again, lost = caplog.messages
    assert f"checkpoint 2 is damaged ({path}" in damaged
    assert damaged_again == damaged
    assert "the best epoch (2) is lost; the model is that of epoch 1" in lost


@pytest.mark.parametrize("damage", ["missing file", "surplus file", "missing folder"])
def test_a_changed_folder_is_noticed(two_epochs, damage):
    folder = two_epochs / "checkpoints" / "2"
    if damage == "missing file":
        list_files(two_epochs, 2)[0].unlink()
    elif damage == "surplus file":
        (folder / "surplus").write_text("x")
    else:
        folder.rename(two_epochs / "elsewhere")
    assert checkpoint.latest_checkpoint(two_epochs).step == 1


def test_without_an_intact_checkpoint_the_exit_code_is_4(two_epochs):
    for path in [*list_files(two_epochs, 1), *list_files(two_epochs, 2)]:
        path.write_bytes(b"")
    for find in (checkpoint.latest_checkpoint, checkpoint.epoch_checkpoints):
        with pytest.raises(CheckpointError, match=r"checkpoints: all .* damaged") as caught:
            find(two_epochs)
        assert caught.value.exit_code == 4


def flip_bit(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "foreign": lambda path: path.write_bytes(path.with_name("1.json").read_bytes()),
    "other kind": lambda path: path.write_text(json.dumps(seal({"step": 2}))),
    "not an object": lambda path: path.write_text("[]"),
    "missing": lambda path: path.unlink(),
    **{
        f"bit {seed}": lambda path, seed=seed: flip_bit(path, random.Random(seed))
        for seed in range(20)
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_named_and_its_checkpoint_is_kept(two_epochs, damage, caplog):
    manifest = two_epochs / "integrity" / "2.json"
    DAMAGES[damage](manifest)
    assert checkpoint.latest_checkpoint(two_epochs).step == 1
    (message,) = caplog.messages
    assert str(manifest) in message
    checkpoint.save(two_epochs, make_state(3), make_progress([0.1, 0.2, 0.3]))
    assert list_steps(two_epochs) == [1, 2, 3]  # what lost its manifest is not deleted
    checkpoint.save(two_epochs, make_state(2), make_progress([0.1, 0.2]))  # written again
    assert [info.step for info in list_checkpoints(two_epochs)] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["integrity missing", *DAMAGES])
def test_checkpoints_without_a_usable_manifest_are_neither_ignored_nor_deleted(two_epochs, damage):
    shutil.rmtree(two_epochs / "checkpoints" / "1")
    (two_epochs / "integrity" / "1.json").rename(two_epochs / "1.json")
    if damage == "integrity missing":
        shutil.rmtree(two_epochs / "integrity")
    elif damage == "foreign":
        (two_epochs / "1.json").replace(two_epochs / "integrity" / "2.json")
    else:
        DAMAGES[damage](two_epochs / "integrity" / "2.json")
    with pytest.raises(CheckpointError, match=r"2\.json.*another --out, or remove .*/checkpoints"):
        checkpoint.latest_checkpoint(two_epochs)
    assert list_files(two_epochs, 2)


def test_a_score_is_sealed(two_epochs, caplog):
    path = two_epochs / "integrity" / "1.json"
    path.write_text(path.read_text().replace('"score": 0.1', '"score": 0.9'))
    assert [info.step for info in checkpoint.epoch_checkpoints(two_epochs)] == [2]
    assert checkpoint.latest_checkpoint(two_epochs).step == 2
    assert f"{path}: damaged" in caplog.messages[0]


def test_strays_are_named_and_kept(two_epochs, caplog):
    (two_epochs / "checkpoints" / "notes").mkdir()
    (two_epochs / "integrity" / "copy of 2.json").write_text("{}")
    for folder in (two_epochs / "checkpoints", two_epochs / "integrity"):
        (folder / ".DS_Store").write_text("x")
        (folder / ".nfs0000000001").write_text("x")
        (folder / "link").symlink_to(folder / "nowhere")
        (folder / "07").write_text("x")
    strays = list_strays(two_epochs)
    assert len(strays) == 10
    for step in (3, 4, 5):
        checkpoint.save(two_epochs, make_state(step), make_progress([0.1, 0.2], batches=step))
    assert checkpoint.latest_checkpoint(two_epochs).step == 5
    assert caplog.messages == [f"{path}: not a checkpoint; ignored" for path in strays]
    assert list_strays(two_epochs) == strays
    assert [info.step for info in list_checkpoints(two_epochs)] == [2, 4, 5]


class KilledError(BaseException):
    """Ends a save at once, as a kill does."""


def kill_at(monkeypatch, module, name, call):
    """Kill in the place of the given call of a function."""
    original, calls = getattr(module, name), iter(range(100))

    def killed(*args, **kwargs):
        if next(calls) == call:
            raise KilledError
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, killed)


KILLS = [
    (manifest, "sync", 0),
    (manifest, "sync", 1),
    (manifest, "sync", 2),
    (manifest, "sync", 3),  # within the pruning
    (checkpoint, "sync_tree", 0),
    (checkpoint, "sync", 0),
    (manifest, "write_json", 0),
    (os, "replace", 0),
    (shutil, "rmtree", 0),
]


@pytest.mark.parametrize("earlier", [0, 4])
@pytest.mark.parametrize(("module", "name", "call"), KILLS)
def test_a_save_killed_anywhere_is_repeated(tmp_path, monkeypatch, earlier, module, name, call):
    def save(step):
        checkpoint.save(tmp_path, make_state(step), make_progress([], batches=step))

    for step in range(1, earlier + 1):
        save(step)
    with monkeypatch.context() as patch, contextlib.suppress(KilledError):
        kill_at(patch, module, name, call)
        save(earlier + 1)
    latest = checkpoint.latest_checkpoint(tmp_path)
    assert (latest.step if latest else 0) in (earlier, earlier + 1)
    for step in (earlier + 1, earlier + 2):
        save(step)
    assert list_steps(tmp_path) == [earlier + 1, earlier + 2]
    names = [path.name for path in (tmp_path / "integrity").iterdir()]
    assert sorted(names) == [f"{step}.json" for step in list_steps(tmp_path)]


def test_a_damaged_newer_checkpoint_pushes_out_no_intact_one(two_epochs):
    for step in (8, 9):
        checkpoint.save(two_epochs, make_state(step), make_progress([0.1, 0.2], batches=step))
        list_files(two_epochs, step)[0].unlink()
    assert checkpoint.latest_checkpoint(two_epochs).step == 2
    for step in (3, 4):
        checkpoint.save(two_epochs, make_state(step), make_progress([0.1, 0.2], batches=step))
        assert checkpoint.latest_checkpoint(two_epochs).step == step


def test_a_manifest_is_plain_json(two_epochs):
    manifest = json.loads((two_epochs / "integrity" / "2.json").read_text())
    assert manifest["step"] == 2
    assert manifest["progress"] == make_progress([0.1, 0.2])._asdict()
    assert len(manifest["sha256"]) == len(list_files(two_epochs, 2))


def raise_disk_full(*args, **kwargs):
    raise ValueError("RESOURCE_EXHAUSTED: [OS error 28: No space left on device]")


@pytest.mark.parametrize("library", ["tensorstore", "our own"])
def test_a_full_disk_leaves_the_earlier_checkpoints(two_epochs, monkeypatch, library):
    with monkeypatch.context() as patch:
        if library == "tensorstore":
            patch.setattr(ocp.StandardCheckpointer, "save", raise_disk_full)
        else:
            patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1))
        with pytest.raises(StorageError, match=r"checkpoints/3: .*needs 0\.\d kB.*same command"):
            checkpoint.save(two_epochs, make_state(3), make_progress([0.1, 0.2, 0.3]))
    assert checkpoint.latest_checkpoint(two_epochs).step == 2
    checkpoint.save(two_epochs, make_state(3), make_progress([0.1, 0.2, 0.3]))
    assert [info.step for info in list_checkpoints(two_epochs)] == [2, 3]


def test_a_run_starts_only_with_space_for_its_checkpoints(tmp_path, monkeypatch):
    state = checkpoint.abstract_state(make_state(0))
    size, model = 48 + 20 + 4 + 4 + 8, 48

    def check(free, sizes=(5, 5), every=2, keep_epochs=False):
        usage = shutil._ntuple_diskusage(10**6, 0, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        checkpoint.require_space_for_run(tmp_path / "run", state, sizes, every, keep_epochs)

    for needed, arguments in [
        (4 * size + model, {}),
        (1 * size + model, {"sizes": [5], "every": 6}),
        (5 * size + model, {"keep_epochs": True}),
    ]:
        check(needed, **arguments)
        with pytest.raises(StorageError, match="needs"):
            check(needed - 1, **arguments)
