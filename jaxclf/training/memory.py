"""Memory: freed pages kept for the next step, and batches halved where a device has no room."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxclf.errors import OutOfMemoryError
from jaxclf.experiment.config import Experiment, override, to_dict
from jaxclf.files.json_file import write_json
from jaxclf.training import checkpoint
from jaxclf.training.run_folder import as_started
from jaxclf.training.step import StepMetrics
from jaxclf.types import Batch, State

# From malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def tune_malloc() -> None:
    """Call before the first computation; does nothing where there is no glibc.

    XLA allocates a step's buffers anew each step. glibc gives those over 32 MB back to the kernel
    at once, and touching fresh pages then costs a tenth of a training step. A setting of the whole
    process: for commands, not for a library.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 2**26)
        mallopt(ARENA_MAX, 1)


Step = Callable[[State, Batch], tuple[State, StepMetrics]]

# (experiment, "auto" or "never") -> what training gives.
Attempt = Callable[[Experiment, str], dict[str, Any]]


def raise_on_oom(step: Step) -> Step:
    """The step, waited for, with OutOfMemoryError where the device has no room for it."""

    def told(state: State, batch: Batch) -> tuple[State, StepMetrics]:
        try:
            return jax.block_until_ready(step(state, batch))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise OutOfMemoryError("the device has no room for a batch of this size") from None

    return told


def retry_with_smaller_micro_batches(
    attempt: Attempt, experiment: Experiment, out: Path, resume: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """The attempt, made anew with half the micro-batch and twice the accumulation as long as the
    device has no room: the same batch to an update.

    All batches are of one shape, so it is the first that finds no room. A run that has a checkpoint
    ends with OutOfMemoryError instead, since something else took what it had.
    """
    while True:
        experiment = as_started(out, experiment)
        try:
            return attempt(experiment, resume)
        except OutOfMemoryError as error:
            if jax.process_count() > 1:
                raise OutOfMemoryError(
                    f"{error}; several hosts do not halve it by themselves: give all of them half "
                    "the train.batch_size and twice the optim.gradient_accumulation_steps"
                ) from None
            if checkpoint.saved(out):
                raise OutOfMemoryError(
                    f"{error} any more; when there is, the same command goes on from {out}"
                ) from None
        # Here the arrays of the attempt are gone, which its traceback held.
        experiment, resume = halved(as_started(out, experiment)), "auto"
        say(
            "the device has no room for a batch: begun anew with "
            f"train.batch_size={experiment.train.batch_size} "
            f"optim.gradient_accumulation_steps={experiment.optim.gradient_accumulation_steps}, as many texts to an update as before"
        )
        write_json(out / "config.json", to_dict(experiment))


def halved(experiment: Experiment) -> Experiment:
    """Half the micro-batch, twice the accumulation. Raises OutOfMemoryError where it cannot be
    halved."""
    size, accumulate = experiment.train.batch_size, experiment.optim.gradient_accumulation_steps
    if size % 2:
        raise OutOfMemoryError(
            f"the device has no room for {size} texts at a time, which cannot be halved; give an "
            "even train.batch_size, a smaller data.max_length or a smaller encoder"
        )
    return override(
        experiment,
        {"train.batch_size": size // 2, "optim.gradient_accumulation_steps": 2 * accumulate},
    )
