"""The training loop: steps, checkpoints, an evaluation per epoch, early stopping."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import jax
import jax.numpy as jnp

from jaxclf.errors import StoppedError
from jaxclf.signals import received_signal, shielded
from jaxclf.terminal import Advance, show_progress
from jaxclf.training import checkpoint, distributed
from jaxclf.training.data import Epochs
from jaxclf.training.divergence import check_loss, check_state
from jaxclf.training.manifest import Metrics, Progress
from jaxclf.training.metrics_log import MetricsLog
from jaxclf.training.step import StepMetrics, weights_of
from jaxclf.types import Batch, State

log = logging.getLogger(__name__)


def run_loop(
    run: Path,
    state: State,
    progress: Progress,
    train_step: Callable[[State, Batch], tuple[State, StepMetrics]],
    learning_rate: Callable[[int], float],
    epochs: Epochs,
    evaluate: Callable[[dict, int], Metrics],
    patience: int,
    checkpoint_every: int,
    keep_epochs: bool = False,
    open_log: Callable[[Path, int], MetricsLog] = MetricsLog,
) -> Progress:
    """Train from `state` and `progress` to the last epoch or to early stopping.

    learning_rate: steps done -> learning rate, for the metrics.
    evaluate: (params, epoch, from 0) -> validation metrics, with the key `score`.
    keep_epochs: keep the checkpoint of every epoch's end.
    open_log: (run, step) -> the log of the metrics from this step on.
    Raises DivergedError before a state that is not finite is evaluated or saved; after a signal it
    saves a checkpoint and raises StoppedError.
    """
    history, loss_sum, done = list(progress.history), progress.loss_sum, progress.batches
    loss = grad_norm = math.nan  # of the last batch

    def checked_state() -> State:
        local_state = distributed.to_local(state)
        check_state(local_state, loss, grad_norm, epoch, run)
        return local_state

    def save() -> None:
        local_state, current = checked_state(), Progress(history, loss_sum, done)
        distributed.broadcast_from_primary(
            lambda: checkpoint.save(run, local_state, current, keep_epochs)
        )

    def stop(number: int) -> NoReturn:
        save()
        raise StoppedError(f"stopped; run the same command again to resume from {run}", number)

    def stop_after_signal() -> None:
        if number := distributed.max_anywhere(received_signal()):
            stop(number)

    def evaluate_state() -> Metrics:
        weights = weights_of(checked_state())
        try:
            return distributed.broadcast_from_primary(lambda: evaluate(weights, epoch))
        except StoppedError as error:
            stop(error.signal_number)

    with shielded(), open_log(run, int(state.step)) as metrics_log:
        for epoch in range(len(history), len(epochs.sizes)):
            if _has_stalled(history, patience):
                break
            size = epochs.sizes[epoch]
            steps = _iter_steps(state, train_step, epochs.batches(epoch, done))
            with _show_epoch(epoch, epochs, done) as advance:
                for state, batch, loss, grad_norm, seconds in steps:
                    step = int(state.step)
                    check_loss(state, loss, grad_norm, epoch, run)
                    loss_sum, done = loss_sum + loss, done + 1
                    rate = learning_rate(step)
                    text = metrics_log.log_batch(epoch, step, loss, grad_norm, rate, batch, seconds)
                    advance(1, text)
                    stop_after_signal()
                    if step % checkpoint_every == 0 and done < size:
                        save()
            metrics = _log_loss_of_epoch(epoch, epochs, loss_sum) | evaluate_state()
            history.append(_without_labels(metrics))
            loss_sum, done = 0.0, 0
            metrics_log.log_epoch(int(state.step), metrics)
            stop_after_signal()
            save()
    return Progress(history, 0.0, 0)


def _iter_steps(
    state: State,
    train_step: Callable[[State, Batch], tuple[State, StepMetrics]],
    batches: Iterator[Batch],
) -> Iterator[tuple[State, Batch, float, float, float]]:
    """Train on each batch; yields the state, the batch, the loss, the gradient norm, seconds."""
    started = time.perf_counter()
    next_batch = next(batches, None)
    while (batch := next_batch) is not None:
        state, metrics = train_step(state, distributed.shard_batch(batch))
        next_batch = next(batches, None)  # made while the device computes
        loss, grad_norm = float(metrics.loss), float(metrics.grad_norm)
        yield state, batch, loss, grad_norm, time.perf_counter() - started
        started = time.perf_counter()


def init_state(
    params: dict, opt_state: object, key: object, ema: bool = False
) -> tuple[State, Progress]:
    """The state and progress before the first step.

    ema: keep a moving average of the parameters, which starts at `params`.
    """
    average = jax.tree.map(jnp.copy, params) if ema else ()
    return State(jnp.int32(0), params, opt_state, jnp.asarray(key), average), Progress([], 0.0, 0)


def _log_loss_of_epoch(epoch: int, epochs: Epochs, loss_sum: float) -> Metrics:
    """The first metrics of an epoch."""
    train_loss = loss_sum / epochs.sizes[epoch]
    log.info("epoch %d of %d: train loss %.4f", epoch + 1, len(epochs.sizes), train_loss)
    return {"epoch": epoch + 1, "train_loss": train_loss}


def _without_labels(metrics: Metrics) -> Metrics:
    """The metrics that a checkpoint keeps: there may be thousands of labels."""
    return {name: value for name, value in metrics.items() if not name.startswith("f1/")}


def _has_stalled(history: list[Metrics], patience: int) -> bool:
    """Whether `patience` epochs in a row had no better score; says so. 0: never."""
    scores = [metrics["score"] for metrics in history]
    if not patience or not scores or len(scores) - 1 - scores.index(max(scores)) < patience:
        return False
    log.info("no better score in the last %d epochs: training ends early", patience)
    return True


def _show_epoch(
    epoch: int, epochs: Epochs, done: int
) -> contextlib.AbstractContextManager[Advance]:
    """The progress of an epoch; only process 0 shows it."""
    if not distributed.is_primary():
        return contextlib.nullcontext(lambda count, text="": None)
    description = f"epoch {epoch + 1}/{len(epochs.sizes)}"
    return show_progress(description, epochs.sizes[epoch], "batches", done)
