"""The progress of scoring a file, kept beside it, so that a kill neither loses nor repeats a row.

Rows are appended to OUTPUT.part. Once they are on the disk, OUTPUT.progress.json is replaced by one
that counts them. Bytes beyond its count were written when the work was killed, and are truncated
when it resumes.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jaxclf.errors import ConfigError, DataError
from jaxclf.files.atomic import part_path
from jaxclf.files.untrusted import read_json

ADVICE = "start again with --resume never"


class Journal(NamedTuple):
    """What is scored, and how far.

    input, model: their SHA-256. total: rows of the input, all shards together. rows: finished rows
        of this shard. size: bytes of OUTPUT.part that hold them.
    """

    input: str
    model: str
    shard: str
    total: int = 0
    rows: int = 0
    size: int = 0


def journal_path(target: Path) -> Path:
    return target.with_name(target.name + ".progress.json")


def load_journal(target: Path, work: Journal) -> Journal | None:
    """The journal of this work, None if there is none. Raises ConfigError for another input, model
    or shard, DataError for a damaged journal."""
    path = journal_path(target)
    if not path.exists():
        return None
    values = read_json(path.parent, path.name)
    if {name: type(value) for name, value in values.items()} != Journal.__annotations__:
        raise DataError(f"{path}: not a journal; {ADVICE}")
    journal = Journal(**values)
    for name in ("input", "model", "shard"):
        if getattr(journal, name) != getattr(work, name):
            raise ConfigError(f"{target} was started with another {name}; {ADVICE}")
    return journal


def save_journal(target: Path, journal: Journal) -> None:
    """Replace the journal atomically, also if the power fails."""
    part = part_path(journal_path(target))
    with part.open("w", encoding="utf-8") as file:
        json.dump(journal._asdict(), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(journal_path(target))


@contextmanager
def open_part(target: Path, journal: Journal) -> Iterator[BinaryIO]:
    """Open OUTPUT.part to append after the rows that the journal counts. The caller holds the lock
    of the target."""
    path = part_path(target)
    with path.open("ab") as file:
        if path.stat().st_size < journal.size:
            raise DataError(f"{path}: shorter than {journal_path(target)} states; {ADVICE}")
        if journal.size == 0:  # an older journal must not outlive the rows that it counts
            journal_path(target).unlink(missing_ok=True)
        file.truncate(journal.size)
        yield file


def append(file: BinaryIO, target: Path, journal: Journal, block: bytes, rows: int) -> Journal:
    """Append rows to the file and sync them to the disk, then count them in the journal."""
    file.write(block)
    file.flush()
    os.fsync(file.fileno())
    journal = journal._replace(rows=journal.rows + rows, size=journal.size + len(block))
    save_journal(target, journal)
    return journal


def is_finished(target: Path, journal: Journal) -> bool:
    """Whether the output is complete, so that only the journal is left to remove."""
    if part_path(target).exists() or not target.exists():
        return False
    return target.stat().st_size == journal.size


def finish(target: Path) -> None:
    """Give the output its name and remove the journal."""
    part_path(target).replace(target)
    journal_path(target).unlink()
