"""metrics.jsonl, TensorBoard and a tracker: the metrics of batches and epochs, and the training
speed.

TensorBoard and trackers get each figure once, as `train/NAME` or `val/NAME`.
"""

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.summary import custom_scalars, hparams, scalar

from jaxclf.files.atomic import write_text
from jaxclf.files.disk import storage_errors
from jaxclf.training import distributed
from jaxclf.training.manifest import Metrics
from jaxclf.training.trackers import Tracker
from jaxclf.types import Batch

LOG_EVERY = 10  # batches between lines of metrics.jsonl
# Charts of several figures: overfitting shows where the two part.
CHARTS = {"loss": {"loss": ["Multiline", ["train/loss", "val/loss"]]}}
NOT_FIGURES = ("epoch", "train_loss")  # the mean of train/loss is seen in its chart

log = logging.getLogger(__name__)


class MetricsLog:
    """Writes metrics in process 0; the other processes write nothing.

    A resumed run drops the lines after the step it resumes from. TensorBoard's events are written
    without tensorboardX's thread, which would die of a full disk and block the training.
    values: the hyperparameters of the run. tracker: a further reader of the figures.
    """

    def __init__(
        self,
        run: Path,
        step: int,
        values: Mapping[str, Any] | None = None,
        tracker: Tracker | None = None,
    ):
        self.tracker = tracker
        self.path, self.board = run / "metrics.jsonl", run / "tensorboard"
        self.is_primary = distributed.is_primary()
        self.seconds = self.examples = self.tokens = 0.0  # since the last line
        if not self.is_primary:
            return
        _keep_lines(self.path, step)
        with storage_errors(self.path):
            self.file = self.path.open("a", encoding="utf-8")
        with storage_errors(self.board):
            self.board.mkdir(exist_ok=True)
            self.events = EventsWriter(str(self.board / "events"))
            start = SessionLog(status=SessionLog.START)  # hides what a resumed run repeats
            self.events.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
            for summary in (custom_scalars(CHARTS), *hparams(dict(values or {}), {})):
                self.events.write_event(Event(wall_time=time.time(), step=step, summary=summary))

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_) -> None:
        if self.is_primary:
            with storage_errors(self.path):
                self.file.close()
            with storage_errors(self.board):
                self.events.close()
            if self.tracker is not None:
                self.tracker.finish()

    def log_batch(
        self,
        epoch: int,
        step: int,
        loss: float,
        grad_norm: float,
        learning_rate: float,
        batch: Batch,
        seconds: float,
    ) -> str:
        """Write every `LOG_EVERY`th batch. Returns a short text for the progress bar."""
        self.seconds += seconds
        self.examples += float((batch.weight > 0).sum())
        self.tokens += float((batch.segments > 0).sum())
        examples_per_second = self.examples / self.seconds
        tokens_per_second = self.tokens / self.seconds
        if step % LOG_EVERY == 0:
            metrics: Metrics = {
                "epoch": epoch + 1,
                "loss": loss,
                "grad_norm": grad_norm,
                "learning_rate": learning_rate,
                "examples_per_second": examples_per_second,
                "tokens_per_second": tokens_per_second,
                "packing_efficiency": float((batch.segments > 0).mean()),
            }
            figures = {f"train/{name}": value for name, value in metrics.items()}
            self._write(step, metrics, figures)
            self.seconds = self.examples = self.tokens = 0.0
        return (
            f"loss {loss:.4f}, lr {learning_rate:.1e}, {examples_per_second:.0f} examples/s, "
            f"{tokens_per_second:,.0f} tokens/s"
        )

    def log_epoch(self, step: int, metrics: Metrics) -> None:
        """Write an epoch's validation metrics; `score` is one of them or its negative."""
        shown = {name: value for name, value in metrics.items() if name != "score"}
        line = {f"epoch/{name}": value for name, value in shown.items()}
        self._write(step, line, {f"val/{name}": value for name, value in shown.items()})

    def _write(self, step: int, metrics: Metrics, figures: Metrics) -> None:
        """Write what is not NaN: the metrics to metrics.jsonl, and the figures elsewhere."""
        if not self.is_primary:
            return
        metrics = {name: value for name, value in metrics.items() if not math.isnan(value)}
        figures = {
            name: value
            for name, value in figures.items()
            if not math.isnan(value) and name.partition("/")[2] not in NOT_FIGURES
        }
        if self.tracker is not None:
            self.tracker.log(figures, step)
        with storage_errors(self.path):
            self.file.write(json.dumps({"step": step, **metrics}) + "\n")
            self.file.flush()
        with storage_errors(self.board):
            for name, value in figures.items():
                event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
                self.events.write_event(event)
            self.events.flush()


def _keep_lines(path: Path, step: int) -> None:
    """Keep the lines up to a step; lines that a kill or a damage made unreadable are dropped."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    kept = []
    for line in text.split("\n")[:-1]:  # a kill may have cut the last one
        try:
            is_kept = json.loads(line)["step"] <= step
        except (ValueError, TypeError, KeyError):
            log.warning("%s: a damaged line; dropped", path)
        else:
            kept += [line] * is_kept
    write_text(path, "".join(f"{line}\n" for line in kept))
