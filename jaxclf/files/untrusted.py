"""Read files of untrusted model folders: only plain files inside the folder, of limited size."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from jaxclf.errors import DataError, printable

# Bytes; published files are smaller, and files of this size fit into memory.
JSON_LIMIT = 4 * 2**20
TOKENIZER_LIMIT = 48 * 2**20
# Limits on the number of JSON elements: each costs far more memory than its text.
PARTS, TOKENIZER_PARTS = 2**18, 600_000
MAX_DEPTH = 100  # of nested JSON; what follows it recursively ends where the stack does


def has_entry(folder: Path, name: str) -> bool:
    """Whether the folder has an entry of that name; `safe_path` checks that it may be read."""
    return (folder / name).is_symlink() or (folder / name).exists()


def safe_path(folder: Path, name: str, limit: int | None = None) -> Path:
    """The path of a plain file of the folder.

    limit: the largest size in bytes; None if the reader checks the size against the content.
    Raises DataError if the file is missing, outside the folder, not a plain file or too large.
    Links into `blobs/` beside `snapshots/` are allowed: a hub cache stores its files so.
    """
    if Path(name).name != name:
        raise DataError(f"{folder}: '{printable(name)}' names a file outside the folder")
    if not name.isprintable() or len(name.encode()) > 255:
        raise DataError(f"{folder}: '{printable(name)}' is not a file name")
    path = folder / name
    if not has_entry(folder, name):
        raise DataError(f"{path}: no such file")
    try:
        real = path.resolve()
    except RuntimeError:
        raise DataError(f"{path}: a link that leads to itself") from None
    root = folder.resolve()
    allowed = [root]
    for snapshot in (root, root.parent):  # or a folder of one, such as 1_Pooling
        if snapshot.parent.name == "snapshots":
            allowed.append(snapshot.parent.parent / "blobs")
    if real.parent not in allowed:
        raise DataError(f"{path}: a link that leads out of the folder")
    if not real.is_file():
        raise DataError(f"{path}: not a plain file")
    size = real.stat().st_size
    if limit is not None and size > limit:
        raise DataError(f"{path}: {size:,} bytes; at most {limit:,} are allowed")
    return path


def read_json(
    folder: Path, name: str, limit: int = JSON_LIMIT, parts: int = PARTS
) -> dict[str, Any]:
    """Read a JSON object without duplicate keys. Raises DataError."""
    path = safe_path(folder, name, limit)
    return parse_json(path.read_bytes(), str(path), parts)


def parse_json(content: bytes, where: str, parts: int = PARTS) -> dict[str, Any]:
    """Parse a JSON object without duplicate keys. where: names the source in errors.

    parts: the largest number of commas. Raises DataError.
    """
    if content.count(b",") > parts:
        raise DataError(f"{where}: more than {parts:,} elements")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            name, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise DataError(f"{where}: duplicate key '{printable(name)}'")
        return values

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}:{error.lineno}: not JSON: {error.msg}") from None
    except ValueError:  # Python's limit for integers
        raise DataError(f"{where}: a number of thousands of digits") from None
    except RecursionError:
        raise DataError(f"{where}: nested too deeply") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object")
    _check_depth(value, where)
    return value


def _check_depth(value: dict[str, Any], where: str) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        parts = [part.values() if isinstance(part, dict) else part for part in level]
        level = [child for part in parts for child in part if isinstance(child, dict | list)]
        if not level:
            return
    raise DataError(f"{where}: nested too deeply")
