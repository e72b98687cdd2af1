"""Checkpoints: what was saved comes back to the bit, damage is seen, an earlier one stands in."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.errors import CheckpointError
from jaxclf.training import checkpoint
from jaxclf.training.checkpoint import Progress
from jaxclf.training.step import dropout_key
from jaxclf.types import State


def state_of(step):
    rng = np.random.default_rng(step)
    params = {"dense": {"kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)}}
    moments = (jnp.asarray(rng.normal(size=5), jnp.float32), jnp.int32(step))
    return State(jnp.int32(step), params, moments, jnp.asarray(dropout_key(7)))


def ledger_of(scores, batches=0):
    return Progress(
        [{"epoch": n + 1, "score": score} for n, score in enumerate(scores)], 0.5, batches
    )


def equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def nothing(text):
    raise AssertionError(text)


def test_there_and_back(tmp_path):
    checkpoint.save(tmp_path, state_of(3), ledger_of([0.25], batches=2))
    found = checkpoint.latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 3
    assert found.progress == ledger_of([0.25], batches=2)
    equal(checkpoint.restore(tmp_path, found, checkpoint.abstract_state(state_of(0))), state_of(3))


def test_nothing_saved_is_nothing_found(tmp_path):
    assert checkpoint.latest_checkpoint(tmp_path) is None


def test_the_best_and_the_latest_two_are_kept(tmp_path):
    scores = [0.1, 0.9, 0.3, 0.2, 0.4]
    for epoch in range(1, 6):
        checkpoint.save(tmp_path, state_of(10 * epoch), ledger_of(scores[:epoch]))
    assert [one.step for one in checkpoint.list_checkpoints(tmp_path)] == [20, 40, 50]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"20", "40", "50"}
    assert checkpoint.epoch_checkpoints(tmp_path)[0].step == 20


def test_a_checkpoint_within_an_epoch_is_no_candidate_for_the_best(tmp_path):
    checkpoint.save(tmp_path, state_of(10), ledger_of([0.1]))
    checkpoint.save(tmp_path, state_of(15), ledger_of([0.1], batches=5))
    assert checkpoint.epoch_checkpoints(tmp_path)[0].step == 10
    assert checkpoint.latest_checkpoint(tmp_path).step == 15


def files_of(tmp_path, step):
    return sorted(p for p in (tmp_path / "checkpoints" / str(step)).rglob("*") if p.is_file())


@pytest.mark.parametrize("seed", range(10))
def test_one_flipped_bit_anywhere_is_seen(tmp_path, seed):
    checkpoint.save(tmp_path, state_of(1), ledger_of([0.1]))
    checkpoint.save(tmp_path, state_of(2), ledger_of([0.1, 0.2]))
    chance = random.Random(seed)
    path = chance.choice([p for p in files_of(tmp_path, 2) if p.stat().st_size])
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    said = []
    found = checkpoint.latest(tmp_path, said.append)
    assert found is not None
    assert found.step == 1
    assert "checkpoint 2 is damaged" in said[0]
    assert checkpoint.epochs(tmp_path, said.append)[0].step == 1


@pytest.mark.parametrize("harm", ["missing file", "surplus file", "missing folder"])
def test_a_folder_that_is_not_as_it_was_written_is_seen(tmp_path, harm):
    checkpoint.save(tmp_path, state_of(1), ledger_of([0.1]))
    checkpoint.save(tmp_path, state_of(2), ledger_of([0.1, 0.2]))
    folder = tmp_path / "checkpoints" / "2"
    if harm == "missing file":
        files_of(tmp_path, 2)[0].unlink()
    elif harm == "surplus file":
        (folder / "more").write_text("x")
    else:
        folder.rename(tmp_path / "elsewhere")
    assert checkpoint.latest(tmp_path, lambda _: None).step == 1


def test_all_damaged_is_exit_code_4(tmp_path):
    checkpoint.save(tmp_path, state_of(1), ledger_of([0.1]))
    for path in files_of(tmp_path, 1):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.latest(tmp_path, lambda _: None)
    assert caught.value.exit_code == 4


def test_a_checkpoint_without_a_manifest_was_never_finished(tmp_path):
    checkpoint.save(tmp_path, state_of(1), ledger_of([0.1]))
    checkpoint.save(tmp_path, state_of(2), ledger_of([0.1, 0.2]))
    (tmp_path / "integrity" / "2.json").unlink()
    (tmp_path / "checkpoints" / "9").mkdir()  # as a killed process leaves it
    assert checkpoint.latest_checkpoint(tmp_path).step == 1
    checkpoint.save(tmp_path, state_of(3), ledger_of([0.1, 0.2]))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "3"}
