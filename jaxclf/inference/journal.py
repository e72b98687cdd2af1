"""How far a file has been scored, kept beside it: a kill at any moment loses no row and doubles
none.

Rows go to OUTPUT.part; once they are on the disk, OUTPUT.progress.json is replaced by one that
counts them. Bytes that it does not count were written as the work was cut short, and are cut off
when it goes on.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jaxclf.errors import ConfigError, DataError
from jaxclf.files.untrusted import parse_json

ADVICE = "--resume never begins anew"


class Work(NamedTuple):
    """What is scored: SHA-256 of the input and of the model, and the shard."""

    input: str
    model: str
    shard: str


class Journal(NamedTuple):
    """What is scored, and how far.

    total: rows of the whole input. rows: of those that are asked for, how many are done; size: the
        bytes of .part that hold them.
    """

    input: str
    model: str
    shard: str
    total: int
    rows: int = 0
    size: int = 0


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def journal_of(target: Path) -> Path:
    return target.with_name(target.name + ".progress.json")


def load_journal(target: Path, work: Work) -> Journal | None:
    """How far this work got, None where none was begun. Raises ConfigError where another was, and
    DataError where the journal is damaged."""
    path = journal_of(target)
    if not path.exists():
        return None
    found = parse_json(path.read_bytes(), str(path))
    if {name: type(value) for name, value in found.items()} != Journal.__annotations__:
        raise DataError(f"{path}: not a journal; {ADVICE}")
    journal = Journal(**found)
    for name, value in work._asdict().items():
        if getattr(journal, name) != value:
            raise ConfigError(f"{target} was begun with another {name}; {ADVICE}")
    return journal


def save_journal(target: Path, journal: Journal) -> None:
    fresh = part_of(journal_of(target))
    with fresh.open("w") as file:
        json.dump(journal._asdict(), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(journal_of(target))


@contextmanager
def open_part(target: Path, journal: Journal) -> Iterator[BinaryIO]:
    """OUTPUT.part as the journal knows it, to append to; no other process may do so meanwhile."""
    part = part_of(target)
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{part}: another process is writing it") from None
        if part.stat().st_size < journal.size:
            raise DataError(f"{part}: shorter than {journal_of(target)} says; {ADVICE}")
        if journal.size == 0:  # begun anew: an older journal must not outlive the rows it counts
            journal_of(target).unlink(missing_ok=True)
        file.truncate(journal.size)
        yield file


def append(file: BinaryIO, target: Path, journal: Journal, block: bytes, rows: int) -> Journal:
    """So many rows more: on the disk first, then in the journal."""
    file.write(block)
    file.flush()
    os.fsync(file.fileno())
    journal = journal._replace(rows=journal.rows + rows, size=journal.size + len(block))
    save_journal(target, journal)
    return journal


def was_finished(target: Path, journal: Journal) -> bool:
    """Whether the last thing left undone was to remove the journal."""
    if part_of(target).exists() or not target.exists():
        return False
    return target.stat().st_size == journal.size


def finish(target: Path) -> None:
    part_of(target).replace(target)
    journal_of(target).unlink()
