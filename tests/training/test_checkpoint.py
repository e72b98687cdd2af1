"""Checkpoints are restored bit by bit; damage is noticed, and an earlier one is used instead."""

import json
import math
import random

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.errors import CheckpointError
from jaxclf.training import checkpoint
from jaxclf.training.checkpoint import Progress
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
    assert [info.step for info in checkpoint.list_checkpoints(tmp_path)] == [20, 40, 50]
    assert list_steps(tmp_path) == [20, 40, 50]
    # A checkpoint within an epoch cannot be the best.
    checkpoint.save(tmp_path, make_state(55), make_progress(scores, batches=5))
    assert checkpoint.latest_checkpoint(tmp_path).step == 55
    assert [info.step for info in checkpoint.epoch_checkpoints(tmp_path)] == [20, 50]


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_bit_is_noticed(two_epochs, seed, caplog):
    rng = random.Random(seed)
    path = rng.choice([path for path in list_files(two_epochs, 2) if path.stat().st_size])
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    assert checkpoint.latest_checkpoint(two_epochs).step == 1
    assert checkpoint.epoch_checkpoints(two_epochs)[0].step == 1
    assert all("checkpoint 2 is damaged" in message for message in caplog.messages)
    assert len(caplog.messages) == 2


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


def test_a_checkpoint_without_a_manifest_is_unfinished(two_epochs):
    (two_epochs / "integrity" / "2.json").unlink()
    (two_epochs / "checkpoints" / "9").mkdir()  # as a killed process leaves it
    assert checkpoint.latest_checkpoint(two_epochs).step == 1
    checkpoint.save(two_epochs, make_state(3), make_progress([0.1, 0.2]))
    assert list_steps(two_epochs) == [1, 3]


def test_a_manifest_is_plain_json(two_epochs):
    manifest = json.loads((two_epochs / "integrity" / "2.json").read_text())
    assert manifest["progress"] == make_progress([0.1, 0.2])._asdict()
    assert len(manifest["sha256"]) == len(list_files(two_epochs, 2))
