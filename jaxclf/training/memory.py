"""Memory: freed pages are reused, and micro-batches are halved if the device runs out of memory."""

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxclf.errors import OutOfMemoryError
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override, to_dict
from jaxclf.files.json_file import write_json
from jaxclf.training.manifest import list_checkpoints
from jaxclf.training.run_folder import with_recorded_settings
from jaxclf.training.step import StepMetrics
from jaxclf.types import Batch, State

log = logging.getLogger(__name__)

# From malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def tune_malloc() -> None:
    """Make glibc keep freed memory; call it before the first computation.

    XLA allocates new buffers in every step. By default, glibc returns those over 32 MB to the
    kernel at once, and page faults slow down the next step. The setting holds for the whole
    process, so commands use it and the library does not. Without glibc it does nothing.
    """
    mallopt = getattr(ctypes.pythonapi, "mallopt", None)  # any library that the process has loaded
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 2**26)
        mallopt(ARENA_MAX, 1)


TrainStep = Callable[[State, Batch], tuple[State, StepMetrics]]


def raise_on_oom(train_step: TrainStep) -> TrainStep:
    """Wait for each step and raise OutOfMemoryError if the device runs out of memory."""

    def checked_step(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        try:
            return jax.block_until_ready(train_step(state, batch))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise OutOfMemoryError("the device has no memory for a batch of this size") from None

    return checked_step


def retry_with_smaller_micro_batches(
    attempt: Callable[[Experiment, str], dict[str, Any]],
    experiment: Experiment,
    out: Path,
    resume: str,
) -> dict[str, Any]:
    """Call `attempt(experiment, resume)`; if the device runs out of memory, halve the micro-batch,
    double the accumulation steps and call it again.

    All batches have one shape, so the first one already fails. If the run has a checkpoint, other
    programs took the memory, and OutOfMemoryError is raised.
    """
    while True:
        experiment = with_recorded_settings(out, experiment)
        try:
            return attempt(experiment, resume)
        except OutOfMemoryError as error:
            if jax.process_count() > 1:
                raise OutOfMemoryError(
                    f"{error}; several processes do not halve it automatically: halve "
                    "train.batch_size and double optim.gradient_accumulation_steps for all of them"
                ) from None
            if list_checkpoints(out):
                raise OutOfMemoryError(
                    f"{error} any more; free memory and run the same command again to resume from "
                    f"{out}"
                ) from None
        # Outside the except block, where the traceback would keep the arrays of the attempt alive.
        experiment, resume = halve_micro_batch(with_recorded_settings(out, experiment)), "auto"
        log.warning(
            "the device has no memory for a batch; restarting with train.batch_size=%d "
            "optim.gradient_accumulation_steps=%d: the number of texts per update stays the same",
            experiment.train.batch_size,
            experiment.optim.gradient_accumulation_steps,
        )
        write_json(out / "config.json", to_dict(experiment))


def halve_micro_batch(experiment: Experiment) -> Experiment:
    """Halve the micro-batch and double the accumulation steps. Raises OutOfMemoryError if the size
    is odd."""
    size, steps = experiment.train.batch_size, experiment.optim.gradient_accumulation_steps
    if size % 2:
        raise OutOfMemoryError(
            f"the device has no memory for {size} texts, and the number cannot be halved; give an "
            "even train.batch_size, a smaller data.max_length or a smaller encoder"
        )
    return override(
        experiment, {"train.batch_size": size // 2, "optim.gradient_accumulation_steps": 2 * steps}
    )
