"""The loop one can read on one screen: steps, checkpoints, an evaluation per epoch, early
stopping."""

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import tensorboardX
from tqdm import tqdm

from jaxclf.errors import DivergedError, StoppedError
from jaxclf.training import checkpoint, distributed
from jaxclf.training.checkpoint import Figures, Progress
from jaxclf.training.data import Epochs
from jaxclf.training.step import StepMetrics, weights_of
from jaxclf.types import Batch, State

LOG_EVERY = 10  # batches between lines of metrics.jsonl


def run_loop(
    run: Path,
    state: State,
    progress: Progress,
    train_step: Callable[[State, Batch], tuple[State, StepMetrics]],
    rate: Callable[[int], float],
    epochs: Epochs,
    evaluate: Callable[[dict], Figures],
    patience: int,
    checkpoint_every: int,
    keep_epochs: bool = False,
) -> Progress:
    """Train to the end, or to early stopping, from where state and progress are.

    rate: batches done -> learning rate, to be shown.
    evaluate: params -> figures of the validation split, `score` among them.
    keep_epochs: keep the checkpoint of every epoch's end.
    Raises DivergedError before a state that is not finite is saved, StoppedError after SIGINT or
    SIGTERM and a checkpoint.
    """
    history = list(progress.history)
    loss_sum, done = progress.loss_sum, progress.batches

    def save() -> None:
        now = Progress(history, loss_sum, done)
        distributed.broadcast_from_primary(
            lambda: checkpoint.save(run, distributed.to_local(state), now, keep_epochs)
        )

    def scored() -> Figures:
        weights = distributed.to_local(weights_of(state))
        return distributed.broadcast_from_primary(lambda: evaluate(weights))

    with _signals() as stopped, _Log(run, int(state.step)) as log:
        for epoch in range(len(history), len(epochs.sizes)):
            if patience and _epochs_without_gain(history) >= patience:
                break
            size = epochs.sizes[epoch]
            with _bar(epoch, len(epochs.sizes), size, done) as bar:
                started = time.perf_counter()
                batches = epochs.batches(epoch, done)
                following = next(batches, None)
                while (batch := following) is not None:
                    state, metrics = train_step(state, distributed.shard_batch(batch))
                    following = next(batches, None)  # made while the device is at work
                    loss, grad_norm = float(metrics.loss), float(metrics.grad_norm)
                    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
                        raise DivergedError(
                            f"the loss is {loss} (gradient norm {grad_norm}) at batch "
                            f"{int(state.step)}, epoch {epoch + 1}; lower optim.lr or optim.max_grad_norm. "
                            f"Earlier checkpoints are kept in {run}"
                        )
                    loss_sum, done = loss_sum + loss, done + 1
                    log.batch(epoch, int(state.step), loss, grad_norm, rate(int(state.step)), batch)
                    log.pace(batch, time.perf_counter() - started)
                    bar.set_postfix_str(log.in_words(loss, rate(int(state.step))), refresh=False)
                    bar.update()
                    stop = distributed.any_of(bool(stopped))
                    if stop or (int(state.step) % checkpoint_every == 0 and done < size):
                        save()
                    if stop:
                        raise StoppedError(
                            f"stopped; the same command goes on from {run}",
                            *stopped[:1] or [signal.SIGTERM],
                        )
                    started = time.perf_counter()
            history.append({"epoch": epoch + 1, "train_loss": loss_sum / size, **scored()})
            loss_sum, done = 0.0, 0
            log.epoch(int(state.step), history[-1])
            save()
    return Progress(history, 0.0, 0)


def init_state(
    params: dict, opt_state: object, key: object, ema: bool = False
) -> tuple[State, Progress]:
    """The state and progress of a run that has not begun; with `ema`, a running mean that starts
    where the parameters do."""
    mean = jax.tree.map(jnp.copy, params) if ema else ()
    return State(jnp.int32(0), params, opt_state, jnp.asarray(key), mean), Progress([], 0.0, 0)


def _epochs_without_gain(history: list[Figures]) -> int:
    scores = [epoch["score"] for epoch in history]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def _bar(epoch: int, epochs: int, size: int, done: int) -> tqdm:
    return tqdm(
        total=size,
        initial=done,
        desc=f"epoch {epoch + 1}/{epochs}",
        unit="batch",
        dynamic_ncols=True,
        disable=not distributed.is_primary(),
        mininterval=0.5,
        bar_format="{desc} {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}, {remaining} left"
        "{postfix}",
    )


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that the first SIGINT or SIGTERM enters, so that the loop can save before it ends."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Log:
    """metrics.jsonl and TensorBoard, of the first host, from a step on: lines of an abandoned
    future are dropped."""

    def __init__(self, run: Path, step: int):
        first = distributed.is_primary()
        path = run / "metrics.jsonl" if first else Path(os.devnull)
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept))
        self.file = path.open("a")
        self.board = tensorboardX.SummaryWriter(
            str(run / "tensorboard"), purge_step=step + 1, write_to_disk=first
        )
        self.seconds, self.examples, self.tokens = 0.0, 0.0, 0.0
        self.speed = (0.0, 0.0)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()
        self.board.close()

    def pace(self, batch: Batch, seconds: float) -> None:
        self.seconds += seconds
        self.examples += float((batch.weight > 0).sum())
        self.tokens += float((batch.segments > 0).sum())
        self.speed = (self.examples / self.seconds, self.tokens / self.seconds)

    def in_words(self, loss: float, rate: float) -> str:
        examples, tokens = self.speed
        return f"loss {loss:.4f}, rate {rate:.1e}, {examples:.0f} texts/s, {tokens:,.0f} tokens/s"

    def batch(
        self, epoch: int, step: int, loss: float, grad_norm: float, rate: float, batch: Batch
    ) -> None:
        if step % LOG_EVERY == 0:
            examples, tokens = self.speed
            self._write(
                step,
                {
                    "epoch": epoch + 1,
                    "loss": loss,
                    "grad_norm": grad_norm,
                    "rate": rate,
                    "examples_per_second": examples,
                    "tokens_per_second": tokens,
                    "fill": float((batch.segments > 0).mean()),
                },
            )
            self.seconds = self.examples = self.tokens = 0.0

    def epoch(self, step: int, figures: Figures) -> None:
        self._write(step, {f"epoch/{name}": value for name, value in figures.items()})

    def _write(self, step: int, figures: Figures) -> None:
        figures = {name: value for name, value in figures.items() if not math.isnan(value)}
        self.file.write(json.dumps({"step": step, **figures}) + "\n")
        self.file.flush()
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)


def _whole_lines(path: Path) -> list[str]:
    """Lines that were written to their end: the last one may be cut by a kill."""
    return path.read_text().split("\n")[:-1] if path.is_file() else []
