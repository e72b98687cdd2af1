"""Files and folders that are written whole or not at all, their SHA-256, and a lock.

Everything is on the disk before the rename that gives it its name, so that a power cut leaves the
old content or the new one.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import filelock

from jaxclf.errors import ConfigError
from jaxclf.files.disk import require_space, storage_errors
from jaxclf.signals import shielded


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all. Returns its path; makes the folder if it is missing."""
    part = part_path(path)
    with storage_errors(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync(path.parent)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file in UTF-8, whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def write_folder(folder: Path, size: int | None = None) -> Iterator[Path]:
    """Give an empty folder to write into; it replaces `folder` when the block ends without an
    error, and is removed otherwise.

    size: about how many bytes the block writes. Raises StorageError if there is no room.
    """
    part = part_path(folder)
    shutil.rmtree(part, ignore_errors=True)
    if size is not None:
        require_space(folder, size)
    try:
        with storage_errors(folder, size):
            part.mkdir(parents=True)
            yield part
            sync_tree(part)
            with shielded():
                shutil.rmtree(folder, ignore_errors=True)
                part.replace(folder)
                sync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sync(path: Path) -> None:
    """Write a file's content or a folder's names to the disk. On Windows it does nothing: there
    only a file that is open for writing can be written out."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Write a folder's files and all names in it to the disk."""
    for path in [*folder.rglob("*"), folder]:
        if path.exists():  # not a dead link
            sync(path)


def part_path(path: Path) -> Path:
    """Where a file or folder is written before it is renamed to `path`."""
    return path.with_name(path.name + ".part")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, which need not exist.

    The operating system releases `path.lock` when its holder dies; `path.lock.json` says who that
    is. Both are removed at the end. Raises ConfigError if another process holds the lock.
    """
    lock_path = path.with_name(path.name + ".lock")
    holder_path = path.with_name(path.name + ".lock.json")
    new_folders = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    file_lock = filelock.FileLock(lock_path, timeout=0)
    try:
        file_lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"another process{_describe_holder(holder_path)} is writing {path}"
        ) from None
    try:
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        write_text(holder_path, json.dumps(holder))
        yield
    finally:
        with shielded():
            holder_path.unlink(missing_ok=True)
            if os.name == "posix":  # filelock expects this; on Windows it removes the file itself
                os.unlink(lock_path)
            file_lock.release()
            for folder in new_folders:
                with contextlib.suppress(OSError):  # it holds what the block wrote
                    folder.rmdir()


def _describe_holder(path: Path) -> str:
    """Who holds a lock; empty if its holder is about to write or to remove the record."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return f" (pid {holder['pid']} on {holder['host']}, since {holder['since']})"
