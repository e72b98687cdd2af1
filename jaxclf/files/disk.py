"""A disk without room: checked before large files are written, and reported with path and need.

Libraries report a failed write each in its own way: tensorstore as a ValueError, safetensors as a
SafetensorError, tokenizers as an Exception. Here all of them become a StorageError.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxclf.errors import JaxclfError, StorageError

WRITE_FAILED = re.compile(
    r"no space left on device|disk quota exceeded|file too large|read-only file system"
    r"|input/output error|database or disk is full",
    re.IGNORECASE,
)


@contextlib.contextmanager
def storage_errors(path: Path, size: int | None = None) -> Iterator[None]:
    """Raise StorageError if the block fails to write `path`, whichever library writes it.

    size: the bytes that the block writes, for the message.
    """
    try:
        yield
    except (JaxclfError, BrokenPipeError):
        raise
    except Exception as error:  # tokenizers raises Exception itself
        failure = WRITE_FAILED.search(str(error))
        if not isinstance(error, OSError) and failure is None:
            raise
        file = getattr(error, "filename", None) or path
        reason = getattr(error, "strerror", None) or (
            failure[0] if failure else f"a write failed ({error})"
        )
        raise StorageError(f"{file}: {reason}{_describe_space(path, size)}") from error


def require_space(path: Path, size: int) -> None:
    """Raise StorageError if the disk of `path`, which need not exist, has less than `size` bytes
    free."""
    if _free_space(path) < size:
        raise StorageError(f"{path}: not enough space on the disk{_describe_space(path, size)}")


def _describe_space(path: Path, size: int | None) -> str:
    needed = "" if size is None else f"needs {_megabytes(size)}, "
    return (
        f" ({needed}{_megabytes(_free_space(path))} free); free space and run the same command "
        "again"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _free_space(path: Path) -> int:
    path = path.absolute()
    folder = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(folder).free
