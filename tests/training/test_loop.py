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
from jaxclf.signals import raise_if_stopped, stop_on_signals
from jaxclf.training import checkpoint, distributed
from jaxclf.training.loop import Epochs, init_state, run_loop
from jaxclf.training.manifest import list_checkpoints
from jaxclf.training.step import StepMetrics
from jaxclf.types import Batch

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
    state = state._replace(step=state.step + 1, params={"x": x})
    return state, StepMetrics(loss, loss)


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
    start=start,
):
    """Run the loop from the newest checkpoint of the folder, if there is one."""
    folder.mkdir(exist_ok=True)
    state, progress = start()
    if latest := checkpoint.latest_checkpoint(folder):
        state = checkpoint.restore(folder, latest, checkpoint.abstract_state(state))
        progress = latest.progress
    epochs = make_epochs(sizes, [] if visited is None else visited)
    with stop_on_signals():
        return run_loop(
            folder,
            distributed.replicate(state),
            progress,
            step,
            lambda step: 0.1,
            epochs,
            lambda params, epoch: evaluate(params),
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


INJECTIONS = {
    "loss": (6, float("nan"), ""),
    "grad_norm": (6, float("inf"), ""),
    "params/x": (6, float("nan"), "; params/x is not finite"),  # before a save
    "opt_state/mean": (3, float("inf"), "; opt_state/mean is not finite"),
    "ema/x": (4, float("nan"), "; ema/x is not finite"),  # before an evaluation
}


@pytest.mark.parametrize("last", [False, True], ids=["early", "last"])
@pytest.mark.parametrize("name", INJECTIONS)
def test_a_number_that_is_not_finite_ends_the_run_before_a_save(tmp_path, name, last):
    step, value, message = INJECTIONS[name]
    step = sum(SIZES) if last else step

    def diverging_step(state, batch):
        state, metrics = train_step(state, batch)
        if int(state.step) != step:
            return state, metrics
        tensors = {"params": state.params, "opt_state": state.opt_state, "ema": state.ema}
        if name in metrics._fields:
            return state, metrics._replace(**{name: value})
        field, leaf = name.split("/")
        tensors[field] = {leaf: tensors[field][leaf].at[1].set(value)}
        return state._replace(**tensors), metrics

    def start_with_averages():
        state, progress = start()
        mean = {"mean": jnp.zeros(3), "count": jnp.int32(0)}
        return state._replace(opt_state=mean, ema=dict(state.params)), progress

    with pytest.raises(DivergedError) as caught:
        run(tmp_path, step=diverging_step, checkpoint_every=3, start=start_with_averages)
    assert caught.value.exit_code == 3
    assert "(gradient norm " in str(caught.value)
    assert message in str(caught.value)
    saved = list_checkpoints(tmp_path)
    assert all(
        info.step < step and checkpoint.find_damage(tmp_path, info) is None for info in saved
    )
    assert bool(saved) == (step > 3)


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


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_signal_in_an_evaluation_saves_the_epoch_and_stops(finished, tmp_path, epoch):
    def interrupted_evaluate(params):
        calls.append(params)
        if len(calls) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)  # the first one decides
            raise_if_stopped()  # as between the batches of a real evaluation
        return evaluate(params)

    calls, visited = [], []
    with pytest.raises(StoppedError, match=str(tmp_path)) as caught:
        run(tmp_path, evaluate=interrupted_evaluate, checkpoint_every=1000)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert list_checkpoints(tmp_path)[-1].step == sum(SIZES[:epoch])
    assert run(tmp_path, checkpoint_every=1000, visited=visited) == finished[1]
    assert len(visited) == sum(SIZES[epoch:])
    assert read_metrics(tmp_path) == read_metrics(finished[0])


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_signal_at_the_end_of_an_evaluation_is_not_forgotten(finished, tmp_path, epoch):
    def interrupted_evaluate(params):
        calls.append(params)
        if len(calls) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(params)

    calls = []
    with pytest.raises(StoppedError):
        run(tmp_path, evaluate=interrupted_evaluate)
    assert run(tmp_path) == finished[1]


def test_signals_do_not_tear_a_save(finished, tmp_path, monkeypatch):
    def interrupted_save(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        save(*arguments)
        saved.append(True)

    save, saved = checkpoint.save, []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted_save)
        with pytest.raises(StoppedError):
            run(tmp_path)
    assert saved
    assert all(
        checkpoint.find_damage(tmp_path, info) is None for info in list_checkpoints(tmp_path)
    )
    assert run(tmp_path) == finished[1]


def test_metrics_after_the_checkpoint_are_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1}\n{"step": 99, "loss": 2}\n{"st')
    run(tmp_path)
    steps = [line["step"] for line in read_metrics(tmp_path)]
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert 99 not in steps
