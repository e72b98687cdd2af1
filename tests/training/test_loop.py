"""The loop: stopped anywhere and started again it ends in the same bits; early stopping;
divergence."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.errors import DivergedError, StoppedError
from jaxclf.training import checkpoint, distributed
from jaxclf.training.loop import Epochs, init_state, run_loop
from jaxclf.training.step import StepMetrics
from jaxclf.types import Batch, State

SIZES = [4, 6, 5]


def batch_of(number):
    value = np.full((2, 3), number, np.int32)
    weight = np.ones(2, np.float32)
    return Batch(value, value, value, value, np.zeros((2, 1)), np.zeros((2, 1)), weight)  # type: ignore[arg-type]


def epochs(sizes=SIZES, seen=None):
    def batches(epoch, first):
        for index in range(first, sizes[epoch]):
            if seen is not None:
                seen.append((epoch, index))
            yield batch_of(100 * epoch + index)

    return Epochs(list(sizes), batches)


@jax.jit
def train_step(state, batch):
    """Chaotic, so that a batch lost, doubled or out of order shows: x -> 3.9 x (1 - x), moved by
    the batch."""
    x = state.params["x"]
    x = 3.9 * x * (1 - x)
    x = (x + 1e-4 * batch.ids.mean()) % 1
    loss = x.mean()
    return State(state.step + 1, {"x": x}, state.opt_state, state.key), StepMetrics(loss, loss)


def evaluate(params):
    value = float(params["x"].mean())
    return {"score": value, "log_loss": 1 - value}


def begin():
    params = {"x": jnp.linspace(0.1, 0.9, 4)}
    return init_state(params, (), np.zeros(2, np.uint32))


def run(folder, evaluate=evaluate, step=train_step, sizes=SIZES, seen=None, patience=0, every=2):
    """As train.py does: from the latest checkpoint where there is one."""
    state, progress = begin()
    last = checkpoint.latest_checkpoint(folder)
    if last is not None:
        state, progress = (
            checkpoint.restore(folder, last, checkpoint.abstract_state(state)),
            last.progress,
        )
    return run_loop(
        folder,
        distributed.replicate(state),
        progress,
        step,
        lambda done: 0.1,
        epochs(sizes, seen),
        evaluate,
        patience,
        every,
    )


def last_state(folder):
    found = checkpoint.list_checkpoints(folder)[-1]
    return checkpoint.restore(folder, found, checkpoint.abstract_state(begin()[0])), found.progress


def steady(folder):
    """Lines of metrics.jsonl without what a clock decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "per_second" not in k} for line in lines]


class Killed(Exception):
    pass


def test_every_batch_comes_once_and_in_order(tmp_path):
    seen = []
    run(tmp_path, seen=seen)
    assert seen == [(epoch, index) for epoch, size in enumerate(SIZES) for index in range(size)]


@pytest.mark.parametrize("kill_at", [0, 1, 3, 4, 7, 9, 10, 14])
def test_killed_anywhere_and_started_again_it_ends_in_the_same_bits(tmp_path, kill_at):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (whole, torn):
        folder.mkdir()
    expected = run(whole)

    done = 0

    def fragile(state, batch):
        nonlocal done
        if done == kill_at:
            raise Killed
        done += 1
        return train_step(state, batch)

    with pytest.raises(Killed):
        run(torn, step=fragile)
    seen = []
    assert run(torn, seen=seen) == expected
    assert len(seen) < sum(SIZES) or kill_at < 2  # it did resume: two batches are a checkpoint
    for one, other in zip(last_state(whole), last_state(torn), strict=True):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)
    assert steady(whole) == steady(torn)


def test_killed_in_an_evaluation_it_evaluates_again(tmp_path):
    def fragile(params):
        raise Killed

    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (whole, torn):
        folder.mkdir()
    with pytest.raises(Killed):
        run(torn, evaluate=fragile)
    assert run(torn) == run(whole)


def test_a_finished_run_does_nothing(tmp_path):
    expected = run(tmp_path)
    seen = []
    assert run(tmp_path, seen=seen) == expected
    assert seen == []


def test_patience_counts_epochs_without_gain_also_across_a_restart(tmp_path):
    scores = iter([0.5, 0.4, 0.6, 0.5, 0.55, 0.9])
    sizes = [2] * 6
    calls = []

    def scripted(params):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return {"score": next(scores), "log_loss": 0.1}

    with pytest.raises(Killed):
        run(tmp_path, evaluate=scripted, sizes=sizes, patience=2)
    progress = run(tmp_path, evaluate=scripted, sizes=sizes, patience=2)
    assert [epoch["score"] for epoch in progress.history] == [0.5, 0.4, 0.6, 0.5, 0.55]
    assert checkpoint.epoch_checkpoints(tmp_path)[0].progress.history[-1]["score"] == 0.6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_divergence_stops_before_a_bad_state_is_saved(tmp_path, bad):
    def diverging(state, batch):
        state, metrics = train_step(state, batch)
        return state, metrics._replace(loss=bad if int(state.step) == 6 else metrics.loss)

    with pytest.raises(DivergedError, match="batch 6, epoch 2") as caught:
        run(tmp_path, step=diverging, every=3)
    assert caught.value.exit_code == 3
    assert max(one.step for one in checkpoint.list_checkpoints(tmp_path)) < 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_stops(tmp_path, number, code):
    def interrupted(state, batch):
        if int(state.step) == 4:
            os.kill(os.getpid(), number)
        return train_step(state, batch)

    with pytest.raises(StoppedError) as caught:
        run(tmp_path, step=interrupted, every=1000)
    assert caught.value.exit_code == code
    assert checkpoint.list_checkpoints(tmp_path)[-1].step == 5
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(tmp_path, every=1000) == run(whole, every=1000)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_lines_of_an_abandoned_future_are_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1}\n{"step": 99, "loss": 2}\n{"st')
    run(tmp_path)
    steps = [line["step"] for line in steady(tmp_path)]
    assert steps == sorted(steps)
    assert 99 not in steps
    assert steps[0] == 0
