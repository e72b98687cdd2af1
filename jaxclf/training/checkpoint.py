"""Orbax checkpoints with a manifest: save, verify, fall back, resume.

Orbax does not notice flipped bits, so a manifest of SHA-256 sums lies beside each checkpoint. It
is written last: a checkpoint without a manifest was never finished and is ignored.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxclf.errors import CheckpointError
from jaxclf.files.atomic import sha256
from jaxclf.files.json_file import read_json, write_json
from jaxclf.types import State

log = logging.getLogger(__name__)

KEEP = 2  # newest checkpoints: one to resume from, one to fall back on


Metrics = dict[str, float | int]


class Progress(NamedTuple):
    """The loop's values that are not in the state."""

    history: list[Metrics]  # one per finished epoch
    loss_sum: float  # of the current epoch
    batches: int  # finished in the current epoch


class CheckpointInfo(NamedTuple):
    """A checkpoint's manifest."""

    step: int
    progress: Progress
    checksums: Mapping[str, str]  # file -> SHA-256

    @property
    def score(self) -> float:
        """The validation score of this state; -inf if it was saved within an epoch."""
        history = self.progress.history
        return history[-1]["score"] if history and self.progress.batches == 0 else float("-inf")


def _paths(run: Path, step: int) -> tuple[Path, Path]:
    """The folder and the manifest of a checkpoint."""
    return (run / "checkpoints" / str(step)).absolute(), run / "integrity" / f"{step}.json"


def save(run: Path, state: State, progress: Progress, keep_epochs: bool = False) -> None:
    """Write a checkpoint and its manifest, then delete those that are no longer needed.

    keep_epochs: keep the checkpoint of every epoch's end.
    """
    step = int(state.step)
    folder, manifest = _paths(run, step)
    manifest.unlink(missing_ok=True)
    with _checkpointer() as checkpointer:
        # As numpy: orbax refuses arrays that only one of several processes holds.
        checkpointer.save(folder, jax.tree.map(np.asarray, state), force=True)
    write_json(manifest, {"progress": progress._asdict(), "sha256": _compute_checksums(folder)})
    _prune(run, keep_epochs)


def _compute_checksums(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def _checkpointer() -> ocp.StandardCheckpointer:
    """A checkpointer that does not wait for the other processes."""
    process = jax.process_index()
    options = ocp.options.MultiprocessingOptions(process, {process}, f"process-{process}")
    return ocp.StandardCheckpointer(multiprocessing_options=options)


def list_checkpoints(run: Path) -> list[CheckpointInfo]:
    """All finished checkpoints, oldest first."""
    checkpoints = []
    for path in (run / "integrity").glob("*.json"):
        manifest = read_json(path)
        progress = Progress(**manifest["progress"])
        history = [
            {name: _to_float(value) for name, value in epoch.items()} for epoch in progress.history
        ]
        checkpoints.append(
            CheckpointInfo(int(path.stem), progress._replace(history=history), manifest["sha256"])
        )
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def _to_float(value: float | int | None) -> float | int:
    return float("nan") if value is None else value  # JSON has no NaN


def _prune(run: Path, keep_epochs: bool) -> None:
    """Delete all checkpoints but the newest and the best, and unfinished folders."""
    checkpoints = list_checkpoints(run)
    epochs = _best_first(checkpoints)
    kept = {
        checkpoint.step
        for checkpoint in [*(epochs if keep_epochs else epochs[:1]), *checkpoints[-KEEP:]]
    }
    for checkpoint in checkpoints:
        if checkpoint.step not in kept:
            folder, manifest = _paths(run, checkpoint.step)
            manifest.unlink()
            shutil.rmtree(folder)
    for folder in (run / "checkpoints").iterdir():  # half-written by a killed process
        if folder.name not in {str(step) for step in kept}:
            shutil.rmtree(folder)


def _best_first(checkpoints: list[CheckpointInfo]) -> list[CheckpointInfo]:
    """The checkpoints of finished epochs, the highest score first, then the earliest."""
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.score > float("-inf")]
    return sorted(scored, key=lambda checkpoint: (-checkpoint.score, checkpoint.step))


def is_intact(run: Path, checkpoint: CheckpointInfo) -> bool:
    """Whether the checkpoint's files exist and match their SHA-256."""
    folder, _ = _paths(run, checkpoint.step)
    return folder.is_dir() and _compute_checksums(folder) == checkpoint.checksums


def abstract_state(state: State) -> State:
    """A state's shapes and dtypes, as arrays without defined values."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), state)


def restore(run: Path, checkpoint: CheckpointInfo, abstract: State) -> State:
    """Read a checkpoint's state; `abstract` gives its shapes and dtypes."""
    folder, _ = _paths(run, checkpoint.step)
    with _checkpointer() as checkpointer:
        return jax.tree.map(jnp.asarray, checkpointer.restore(folder, abstract))


def latest_checkpoint(run: Path) -> CheckpointInfo | None:
    """The newest intact checkpoint; None if none was ever finished.

    Raises CheckpointError if all are damaged.
    """
    return next(_iter_intact(run, list_checkpoints(run)[::-1]), None)


def epoch_checkpoints(run: Path) -> list[CheckpointInfo]:
    """The intact checkpoints of finished epochs, the highest validation score first.

    Raises CheckpointError if there are none or all are damaged.
    """
    checkpoints = list(_iter_intact(run, _best_first(list_checkpoints(run))))
    if not checkpoints:
        raise CheckpointError(
            f"{run / 'checkpoints'}: no checkpoint of a finished epoch; train with another --out"
        )
    return checkpoints


def _iter_intact(run: Path, checkpoints: list[CheckpointInfo]) -> Iterator[CheckpointInfo]:
    """Skip damaged checkpoints with a warning. Raises CheckpointError if all are damaged."""
    damaged = 0
    for checkpoint in checkpoints:
        if is_intact(run, checkpoint):
            yield checkpoint
        else:
            damaged += 1
            log.warning("checkpoint %d is damaged (SHA-256 differs); skipped", checkpoint.step)
    if checkpoints and damaged == len(checkpoints):
        raise CheckpointError(
            f"{run / 'checkpoints'}: all checkpoints are damaged; train with another --out"
        )
