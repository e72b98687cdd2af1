"""Orbax checkpoints with a manifest: save, verify, fall back, resume.

Orbax restores flipped bits without a word, so each checkpoint has a manifest of SHA-256 sums
beside it. The manifest is written last: a checkpoint without one was never finished and does not
count.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxclf.errors import CheckpointError
from jaxclf.types import State

# The newest, and one to fall back on; the best one is kept besides.
KEEP = 2


Figures = dict[str, float | int]


class Progress(NamedTuple):
    """What the loop knows besides the state: a mapping per finished epoch, and the epoch's loss so
    far."""

    history: list[Figures]
    loss_sum: float
    batches: int


class CheckpointInfo(NamedTuple):
    step: int
    progress: Progress
    sums: Mapping[str, str]  # file -> SHA-256

    @property
    def score(self) -> float:
        """The validation score this very state got; -inf in the middle of an epoch."""
        history = self.progress.history
        return history[-1]["score"] if history and self.progress.batches == 0 else float("-inf")


def _folders(run: Path, step: int) -> tuple[Path, Path]:
    return (run / "checkpoints" / str(step)).absolute(), run / "integrity" / f"{step}.json"


def save(run: Path, state: State, progress: Progress, keep_epochs: bool = False) -> None:
    """Write state and manifest, then drop what is no longer needed; with `keep_epochs` the end of
    every epoch is."""
    step = int(state.step)
    folder, manifest = _folders(run, step)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)
    with _checkpointer() as checkpointer:
        # numpy's, since orbax refuses arrays that one host of several has for itself.
        checkpointer.save(folder, jax.tree.map(np.asarray, state), force=True)
    part = manifest.with_suffix(".part")
    part.write_text(json.dumps({"progress": progress._asdict(), "sha256": _sums(folder)}, indent=1))
    part.replace(manifest)
    _prune(run, keep_epochs)


def _sums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                sums[str(path.relative_to(folder))] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return sums


def _checkpointer() -> ocp.StandardCheckpointer:
    """Of this host alone: it waits for no other one."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(own, {own}, f"host-{own}")
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def saved(run: Path) -> list[CheckpointInfo]:
    """All finished checkpoints, oldest first."""
    found = []
    for path in (run / "integrity").glob("*.json"):
        manifest = json.loads(path.read_text())
        found.append(
            CheckpointInfo(int(path.stem), Progress(**manifest["progress"]), manifest["sha256"])
        )
    return sorted(found, key=lambda one: one.step)


def _prune(run: Path, keep_epochs: bool) -> None:
    kept = saved(run)
    scored = [one for one in kept if one.score > float("-inf")]
    best = sorted(scored, key=lambda one: -one.score)
    wanted = {one.step for one in [*(best if keep_epochs else best[:1]), *kept[-KEEP:]]}
    for one in kept:
        if one.step not in wanted:
            folder, manifest = _folders(run, one.step)
            manifest.unlink()
            shutil.rmtree(folder)
    for folder in (run / "checkpoints").iterdir():  # what a killed process left half-written
        if folder.name not in {str(step) for step in wanted}:
            shutil.rmtree(folder)


def is_intact(run: Path, one: CheckpointInfo) -> bool:
    """Whether the files are there and have the bytes they were written with."""
    folder, _ = _folders(run, one.step)
    return folder.is_dir() and _sums(folder) == one.sums


def abstract_state(state: State) -> State:
    """Shapes and dtypes of a state, without its numbers."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), state)


def restore(run: Path, one: CheckpointInfo, like: State) -> State:
    """The state as it was saved; `like`, an outline, gives shapes and dtypes."""
    folder, _ = _folders(run, one.step)
    with _checkpointer() as checkpointer:
        return jax.tree.map(jnp.asarray, checkpointer.restore(folder, like))


def latest(run: Path, say: Any) -> CheckpointInfo | None:
    """The newest intact checkpoint, None where none was ever finished.

    say: told of each damaged one that is passed over. Raises CheckpointError where all are damaged.
    """
    return next(_intact(run, list(reversed(saved(run))), say), None)


def epochs(run: Path, say: Any) -> list[CheckpointInfo]:
    """The intact checkpoints of ended epochs that are kept, the highest validation score first."""
    scored = [one for one in saved(run) if one.score > float("-inf")]
    found = list(_intact(run, sorted(scored, key=lambda one: (-one.score, one.step)), say))
    if not found:
        raise CheckpointError(f"{run / 'checkpoints'}: no finished epoch")
    return found


def _intact(run: Path, candidates: list[CheckpointInfo], say: Any) -> Iterator[CheckpointInfo]:
    """Those that have the bytes they were written with. Raises CheckpointError where none has."""
    damaged = 0
    for one in candidates:
        if is_intact(run, one):
            yield one
        else:
            damaged += 1
            say(f"checkpoint {one.step} is damaged (SHA-256 differs); passed over")
    if candidates and damaged == len(candidates):
        raise CheckpointError(
            f"{run / 'checkpoints'}: none passes its integrity check; train anew with another --out"
        )
