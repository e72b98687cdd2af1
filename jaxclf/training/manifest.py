"""The manifests of a run's checkpoints: which are finished, and which a kill left half-written.

integrity/<step>.json        written last: step, progress and the SHA-256 of every file of
                             checkpoints/<step>/, sealed by a digest of these fields
integrity/<step>.incomplete  an empty file, there while the checkpoint is written or deleted

Only a marker without a manifest permits to delete what lies in checkpoints/<step>/. A folder with
neither was not left by a kill: its manifest was lost. It is reported and kept, as are manifests
that are damaged or of another step, and files that are not a run's.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jaxclf.errors import DataError
from jaxclf.files import untrusted
from jaxclf.files.atomic import part_path, sync
from jaxclf.files.digest import is_sealed, seal
from jaxclf.files.json_file import write_json

MANIFEST, MARKER = ".json", ".incomplete"
TEMPORARY = ".orbax-checkpoint-tmp"  # of the folder that orbax writes into before it renames it

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


def checkpoint_folder(run: Path, step: int) -> Path:
    return (run / "checkpoints" / str(step)).absolute()


def _manifest_path(run: Path, step: int) -> Path:
    return run / "integrity" / f"{step}{MANIFEST}"


def _marker_path(run: Path, step: int) -> Path:
    return run / "integrity" / f"{step}{MARKER}"


def list_checkpoints(run: Path) -> list[CheckpointInfo]:
    """All finished checkpoints, oldest first. Manifests that cannot be used are left out."""
    manifests = [_read_manifest(run, step) for step in _list_steps(run / "integrity", MANIFEST)]
    return [manifest for manifest in manifests if isinstance(manifest, CheckpointInfo)]


def list_problems(run: Path) -> list[str]:
    """Why some of what may be a checkpoint cannot be used: damaged manifests and those of another
    step, folders without a manifest."""
    integrity, checkpoints = run / "integrity", run / "checkpoints"
    steps = _list_steps(integrity, MANIFEST)
    problems = [error for step in steps if isinstance(error := _read_manifest(run, step), str)]
    explained = {*steps, *_list_steps(integrity, MARKER)}
    return problems + [
        f"{checkpoints / str(step)}: its manifest {_manifest_path(run, step)} is missing"
        for step in _list_steps(checkpoints, "")
        if step not in explained
    ]


def list_strays(run: Path) -> list[Path]:
    """What lies among the checkpoints and manifests and is neither."""
    integrity, checkpoints = run / "integrity", run / "checkpoints"
    expected = [
        checkpoints / f"{step}{suffix}"
        for suffix in ("", TEMPORARY)
        for step in _list_steps(checkpoints, suffix)
    ]
    for suffix in (MANIFEST, MARKER, f"{MANIFEST}.part"):
        expected += [integrity / f"{step}{suffix}" for step in _list_steps(integrity, suffix)]
    return sorted({*_list_folder(integrity), *_list_folder(checkpoints)} - {*expected})


def write_manifest(run: Path, checkpoint: CheckpointInfo) -> None:
    """State that a checkpoint is finished. Its folder must be on the disk already."""
    values = {
        "step": checkpoint.step,
        "progress": checkpoint.progress._asdict(),
        "sha256": checkpoint.checksums,
    }
    write_json(_manifest_path(run, checkpoint.step), seal(values))
    _marker_path(run, checkpoint.step).unlink()


def mark_incomplete(run: Path, step: int) -> None:
    """State that checkpoints/<step>/ may be deleted. It works on a full disk, too."""
    marker = _marker_path(run, step)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    sync(marker.parent)
    _manifest_path(run, step).unlink(missing_ok=True)
    sync(marker.parent)


def delete_incomplete(run: Path) -> None:
    """Delete what interrupted saves and deletions left."""
    finished = _list_steps(run / "integrity", MANIFEST)
    for step in _list_steps(run / "integrity", MARKER):
        if step in finished or delete_files(run, step):
            _marker_path(run, step).unlink()


def delete_files(run: Path, step: int) -> bool:
    """Delete what lies in place of a checkpoint that is marked as incomplete.

    Returns whether all is gone: on NFS, the name of an open file stays, and is tried again later.
    """
    folder = checkpoint_folder(run, step)
    paths = [
        folder,
        folder.with_name(folder.name + TEMPORARY),
        part_path(_manifest_path(run, step)),
    ]
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if folder.parent.exists():
        sync(folder.parent)
    return not any(path.exists() for path in paths)


def _read_manifest(run: Path, step: int) -> CheckpointInfo | str:
    """A manifest, or why it cannot be used."""
    path = _manifest_path(run, step)
    try:
        values = untrusted.read_json(path.parent, path.name)
    except DataError as error:
        return str(error)
    if not is_sealed(values):
        return f"{path}: damaged (its digest differs)"
    if values.get("step") != step or "sha256" not in values:
        return f"{path}: not the manifest of checkpoint {step}"
    progress = Progress(**values["progress"])
    history = [
        {name: float("nan") if value is None else value for name, value in epoch.items()}
        for epoch in progress.history  # JSON has no NaN
    ]
    return CheckpointInfo(step, progress._replace(history=history), values["sha256"])


def _list_steps(folder: Path, suffix: str) -> list[int]:
    """The numbers N, in order, of the entries of a folder named N + suffix."""
    pattern = re.compile(f"(0|[1-9][0-9]{{0,17}}){re.escape(suffix)}")
    matches = [pattern.fullmatch(path.name) for path in _list_folder(folder)]
    return sorted(int(match[1]) for match in matches if match)


def _list_folder(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []
