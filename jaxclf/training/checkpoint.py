"""Orbax checkpoints with a manifest: save, verify, fall back, resume.

Orbax does not notice flipped bits, so a manifest of SHA-256 sums lies beside each checkpoint
(`manifest.py`). It is written last, after everything that it lists is on the disk. Training starts
at batch 0 only where nothing may have been a checkpoint.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxclf.decisions.selection import rank_epochs
from jaxclf.errors import CheckpointError, StorageError
from jaxclf.files.atomic import sha256, sync, sync_tree
from jaxclf.files.disk import require_space, storage_errors
from jaxclf.training.manifest import (
    CheckpointInfo,
    Progress,
    checkpoint_folder,
    delete_files,
    delete_incomplete,
    list_checkpoints,
    list_problems,
    list_strays,
    mark_incomplete,
    write_manifest,
)
from jaxclf.types import State

log = logging.getLogger(__name__)

FAILING = 1.0  # seconds for all writes of a failed save to end
KEEP = 2  # newest checkpoints: one to resume from, one to fall back on


def save(run: Path, state: State, progress: Progress, keep_epochs: bool = False) -> None:
    """Write a checkpoint and its manifest, then delete those that are no longer needed.

    keep_epochs: keep the checkpoint of every epoch's end.
    Raises StorageError if the disk is full; then the earlier checkpoints are still there.
    """
    step, size = int(state.step), _state_size(state)
    folder = checkpoint_folder(run, step)
    delete_incomplete(run)
    require_space(folder, size)
    mark_incomplete(run, step)
    delete_files(run, step)
    try:
        with storage_errors(folder, size):
            with _one_error(), _checkpointer() as checkpointer:
                # As numpy: orbax refuses arrays that only one of several processes holds.
                checkpointer.save(folder, jax.tree.map(np.asarray, state))
            sync_tree(folder)
            sync(folder.parent)
        write_manifest(run, CheckpointInfo(step, progress, _compute_checksums(folder)))
    except StorageError:
        delete_incomplete(run)
        raise
    _prune(run, step, keep_epochs)


def require_space_for_run(
    run: Path, state: State, epoch_sizes: Sequence[int], checkpoint_every: int, keep_epochs: bool
) -> None:
    """Raise StorageError if the disk has no room for all checkpoints that a run keeps, the next
    one, and the model."""
    delete_incomplete(run)
    saves = len(epoch_sizes) + sum(epoch_sizes) // checkpoint_every
    kept = KEEP + (len(epoch_sizes) if keep_epochs else 1)
    files = (path for path in (run / "checkpoints").rglob("*") if path.is_file())
    written = sum(path.stat().st_size for path in files)
    size = min(saves, kept + 1) * _state_size(state) + _state_size(state.params)
    require_space(run, size - written)


def _state_size(state: object) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def _compute_checksums(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in files}


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Let a save fail with one error. Orbax logs the first with its traceback and closes its event
    loop. Every other write then prints a traceback, even later, so what is set here stays after an
    error; it has no effect while Python exits, so the other writes get time to fail before."""
    hook, logger = sys.unraisablehook, logging.getLogger("absl")  # orbax has imported absl
    level = logger.level

    def print_others(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = print_others
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception:
        time.sleep(FAILING)
        raise
    sys.unraisablehook = hook
    logger.setLevel(level)


def _checkpointer() -> ocp.StandardCheckpointer:
    """A checkpointer that does not wait for the other processes."""
    process = jax.process_index()
    options = ocp.options.MultiprocessingOptions(process, {process}, f"process-{process}")
    return ocp.StandardCheckpointer(multiprocessing_options=options)


def _prune(run: Path, step: int, keep_epochs: bool) -> None:
    """Delete all checkpoints up to `step` but the newest and the best.

    Later ones were found damaged, so they must not push out those that are intact.
    """
    checkpoints = [info for info in list_checkpoints(run) if info.step <= step]
    epochs = _best_first(checkpoints)
    kept = [*(epochs if keep_epochs else epochs[:1]), *checkpoints[-KEEP:]]
    for checkpoint in checkpoints:
        if checkpoint not in kept:
            mark_incomplete(run, checkpoint.step)
    delete_incomplete(run)


def _best_first(checkpoints: list[CheckpointInfo]) -> list[CheckpointInfo]:
    """The checkpoints of finished epochs, in the order of `rank_epochs` over all epochs."""
    scored = {
        len(checkpoint.progress.history) - 1: checkpoint
        for checkpoint in checkpoints
        if checkpoint.score > float("-inf")
    }
    scores = [epoch["score"] for epoch in checkpoints[-1].progress.history] if scored else []
    return [scored[epoch] for epoch in rank_epochs(scores) if epoch in scored]


def find_damage(run: Path, checkpoint: CheckpointInfo) -> Path | None:
    """A file of the checkpoint that is missing, surplus or differs from its SHA-256; None if it is
    intact."""
    folder = checkpoint_folder(run, checkpoint.step)
    expected, actual = checkpoint.checksums, _compute_checksums(folder)
    names = sorted({*expected, *actual})
    return next((folder / name for name in names if expected.get(name) != actual.get(name)), None)


def abstract_state(state: State) -> State:
    """A state's shapes and dtypes, as arrays without defined values."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), state)


def restore(run: Path, checkpoint: CheckpointInfo, abstract: State) -> State:
    """Read a checkpoint's state; `abstract` gives its shapes and dtypes."""
    folder = checkpoint_folder(run, checkpoint.step)
    with _checkpointer() as checkpointer:
        return jax.tree.map(jnp.asarray, checkpointer.restore(folder, abstract))


def latest_checkpoint(run: Path) -> CheckpointInfo | None:
    """The newest intact checkpoint; None if none was ever finished.

    Raises CheckpointError if there may have been checkpoints and none can be used.
    """
    for path in list_strays(run):
        log.warning("%s: not a checkpoint; ignored", path)
    problems = list_problems(run)
    for problem in problems:
        log.warning("%s; skipped", problem)
    intact = list(_iter_intact(run, list_checkpoints(run)))  # all, so that each damage is named
    if not intact and problems:
        raise _no_checkpoint(run, f"no usable checkpoint ({problems[0]})")
    return intact[-1] if intact else None


def epoch_checkpoints(run: Path) -> list[CheckpointInfo]:
    """The intact checkpoints of finished epochs, the best validation score first.

    Raises CheckpointError if there are none or all are damaged.
    """
    finished = list_checkpoints(run)
    checkpoints = list(_iter_intact(run, _best_first(finished)))
    if not checkpoints:
        raise _no_checkpoint(run, "no checkpoint of a finished epoch")
    best = rank_epochs([epoch["score"] for epoch in finished[-1].progress.history])[0] + 1
    kept = len(checkpoints[0].progress.history)
    if kept != best:
        log.warning(
            "%s: the checkpoint of the best epoch (%d) is lost; the model is that of epoch %d",
            *(run / "checkpoints", best, kept),
        )
    return checkpoints


def _iter_intact(run: Path, checkpoints: list[CheckpointInfo]) -> Iterator[CheckpointInfo]:
    """Skip damaged checkpoints with a warning. Raises CheckpointError if all are damaged."""
    damaged = 0
    for checkpoint in checkpoints:
        if path := find_damage(run, checkpoint):
            damaged += 1
            log.warning(
                "checkpoint %d is damaged (%s: SHA-256 differs); skipped", checkpoint.step, path
            )
        else:
            yield checkpoint
    if checkpoints and damaged == len(checkpoints):
        raise _no_checkpoint(run, "all checkpoints are damaged")


def _no_checkpoint(run: Path, reason: str) -> CheckpointError:
    folder = run / "checkpoints"
    return CheckpointError(
        f"{folder}: {reason}; train with another --out, or remove {folder} and "
        f"{run / 'integrity'} to train again from the beginning"
    )
