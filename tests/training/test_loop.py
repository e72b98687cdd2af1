"""The loop: resuming from any point gives the same bits; early stopping; divergence; signals."""

import json
import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.errors import DivergedError, StoppedError
from jaxclf.training import checkpoint, distributed
from jaxclf.training.loop import Epochs, init_state, run_loop
from jaxclf.training.manifest import list_checkpoints
from jaxclf.training.step import StepMetrics
from jaxclf.types import Batch, State

SIZES = [4, 6, 5]


class KilledError(Exception):
    """Ends a run at once, as a kill does."""


def make_batch(number):
    tokens = np.full((2, 3), number, np.int32)
    labels = np.zeros((2, 1), np.float32)
    return Batch(tokens, tokens, tokens, tokens, labels, labels, np.ones(2, np.float32))


def make_epochs(sizes, visited):
    def batches(epoch, first):
        for index in range(first, sizes[epoch]):
            visited.append((epoch, index))
            yield make_batch(100 * epoch + index)

    return Epochs(list(sizes), batches)


@jax.jit
def train_step(state, batch):
    """A chaotic map, x -> 3.9 x (1 - x), plus a term of the batch: a missing, repeated or swapped
    batch changes the result."""
    x = state.params["x"]
    x = 3.9 * x * (1 - x)
    x = (x + 1e-4 * batch.ids.mean()) % 1
    loss = x.mean()
    return State(state.step + 1, {"x": x}, state.opt_state, state.key), StepMetrics(loss, loss)


def evaluate(params):
    score = float(params["x"].mean())
    return {"score": score, "log_loss": 1 - score}


def start():
    return init_state({"x": jnp.linspace(0.1, 0.9, 4)}, (), np.zeros(2, np.uint32))


def run(
    folder,
    evaluate=evaluate,
    step=train_step,
    sizes=SIZES,
    visited=None,
    patience=0,
    checkpoint_every=2,
):
    """Run the loop from the newest checkpoint of the folder, if there is one."""
    folder.mkdir(exist_ok=True)
    state, progress = start()
    if latest := checkpoint.latest_checkpoint(folder):
        state = checkpoint.restore(folder, latest, checkpoint.abstract_state(state))
        progress = latest.progress
    epochs = make_epochs(sizes, [] if visited is None else visited)
    return run_loop(
        folder,
        distributed.replicate(state),
        progress,
        step,
        lambda step: 0.1,
        epochs,
        evaluate,
        patience,
        checkpoint_every,
    )


def read_final_state(folder):
    newest = list_checkpoints(folder)[-1]
    return checkpoint.restore(folder, newest, checkpoint.abstract_state(start()[0]))


def read_metrics(folder):
    """The lines of metrics.jsonl without the speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if "per_second" not in key} for line in lines
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never interrupted: its folder, its progress and the batches it visited."""
    folder, visited = tmp_path_factory.mktemp("loop") / "finished", []
    return folder, run(folder, visited=visited), visited


def test_every_batch_is_visited_once_in_order(finished):
    expected = [(epoch, index) for epoch, size in enumerate(SIZES) for index in range(size)]
    assert finished[2] == expected


def test_metrics_have_the_usual_names(finished):
    line = next(line for line in read_metrics(finished[0]) if "loss" in line)
    assert line.keys() == {
        *("step", "epoch", "loss", "grad_norm", "learning_rate", "packing_efficiency")
    }
    assert (line["step"], line["epoch"], line["learning_rate"]) == (10, 2, 0.1)


@pytest.mark.parametrize(
    "kill_at", [3, 9, *(pytest.param(at, marks=pytest.mark.slow) for at in (0, 1, 4, 7, 10, 14))]
)
def test_a_killed_run_resumes_to_the_same_bits(finished, tmp_path, kill_at):
    done = 0

    def killed_step(state, batch):
        nonlocal done
        if done == kill_at:
            raise KilledError
        done += 1
        return train_step(state, batch)

    with pytest.raises(KilledError):
        run(tmp_path, step=killed_step)
    folder, progress, _ = finished
    visited = []
    assert run(tmp_path, visited=visited) == progress
    assert len(visited) < sum(SIZES) or kill_at < 2  # the first checkpoint comes after two batches
    chex.assert_trees_all_equal(read_final_state(tmp_path), read_final_state(folder), strict=True)
    assert read_metrics(tmp_path) == read_metrics(folder)


def test_a_run_killed_in_an_evaluation_evaluates_again(finished, tmp_path):
    def killed_evaluate(params):
        raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, evaluate=killed_evaluate)
    assert run(tmp_path) == finished[1]


def test_a_finished_run_trains_no_further(finished):
    folder, progress, _ = finished
    visited = []
    assert run(folder, visited=visited) == progress
    assert visited == []


def test_patience_counts_epochs_without_gain_across_a_restart(tmp_path):
    scores, calls, sizes = iter([0.5, 0.4, 0.6, 0.5, 0.55, 0.9]), [], [2] * 6

    def scripted_evaluate(params):
        calls.append(params)
        if len(calls) == 5:
            raise KilledError
        return {"score": next(scores), "log_loss": 0.1}

    with pytest.raises(KilledError):
        run(tmp_path, evaluate=scripted_evaluate, sizes=sizes, patience=2)
    progress = run(tmp_path, evaluate=scripted_evaluate, sizes=sizes, patience=2)
    assert [metrics["score"] for metrics in progress.history] == [0.5, 0.4, 0.6, 0.5, 0.55]
    assert checkpoint.epoch_checkpoints(tmp_path)[0].score == 0.6


@pytest.mark.parametrize("bad_loss", [float("nan"), float("inf")])
def test_divergence_is_raised_before_the_state_is_saved(tmp_path, bad_loss):
    def diverging_step(state, batch):
        state, metrics = train_step(state, batch)
        return state, metrics._replace(loss=bad_loss if int(state.step) == 6 else metrics.loss)

    with pytest.raises(DivergedError, match="batch 6, epoch 2") as caught:
        run(tmp_path, step=diverging_step, checkpoint_every=3)
    assert caught.value.exit_code == 3
    assert max(info.step for info in list_checkpoints(tmp_path)) < 6


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint_and_stops(finished, tmp_path, number, exit_code):
    def interrupted_step(state, batch):
        if int(state.step) == 4:
            os.kill(os.getpid(), number)
        return train_step(state, batch)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(StoppedError, match=str(tmp_path)) as caught:
        run(tmp_path, step=interrupted_step, checkpoint_every=1000)
    assert caught.value.exit_code == exit_code
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert list_checkpoints(tmp_path)[-1].step == 5
    assert run(tmp_path, checkpoint_every=1000) == finished[1]


def test_metrics_after_the_checkpoint_are_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1}\n{"step": 99, "loss": 2}\n{"st')
    run(tmp_path)
    steps = [line["step"] for line in read_metrics(tmp_path)]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert 99 not in steps
