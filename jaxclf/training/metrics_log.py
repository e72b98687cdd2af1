"""metrics.jsonl and TensorBoard: the metrics of batches and epochs, and the training speed."""

import json
import math
import os
from pathlib import Path

import tensorboardX

from jaxclf.files.atomic import write_text
from jaxclf.training import distributed
from jaxclf.training.checkpoint import Metrics
from jaxclf.types import Batch

LOG_EVERY = 10  # batches between lines of metrics.jsonl


class MetricsLog:
    """Writes metrics in process 0; the other processes write nothing.

    A resumed run drops the lines after the step it resumes from.
    """

    def __init__(self, run: Path, step: int):
        is_primary = distributed.is_primary()
        path = run / "metrics.jsonl"
        if is_primary:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            lines = text.split("\n")[:-1]  # a kill may have cut the last one
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_text(path, "".join(f"{line}\n" for line in kept))
        self.file = (path if is_primary else Path(os.devnull)).open("a", encoding="utf-8")
        self.board = tensorboardX.SummaryWriter(
            str(run / "tensorboard"), purge_step=step + 1, write_to_disk=is_primary
        )
        self.seconds = self.examples = self.tokens = 0.0  # since the last line

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()
        self.board.close()

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
            self._write(step, metrics)
            self.seconds = self.examples = self.tokens = 0.0
        return (
            f"loss {loss:.4f}, lr {learning_rate:.1e}, {examples_per_second:.0f} examples/s, "
            f"{tokens_per_second:,.0f} tokens/s"
        )

    def log_epoch(self, step: int, metrics: Metrics) -> None:
        """Write an epoch's validation metrics."""
        self._write(step, {f"epoch/{name}": value for name, value in metrics.items()})

    def _write(self, step: int, metrics: Metrics) -> None:
        """Write the metrics that are not NaN."""
        metrics = {name: value for name, value in metrics.items() if not math.isnan(value)}
        self.file.write(json.dumps({"step": step, **metrics}) + "\n")
        self.file.flush()
        for name, value in metrics.items():
            self.board.add_scalar(name, value, step)
