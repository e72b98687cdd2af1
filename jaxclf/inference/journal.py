"""The progress of scoring a file, kept beside it, so that a kill neither loses nor repeats a row.

Rows are appended to OUTPUT.part. Once they are on the disk, OUTPUT.progress.json is replaced by one
that counts them and has their SHA-256. Bytes beyond its count were written when the work was
killed, and are truncated when it resumes. A changed byte in either file is an error.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from jaxclf.errors import ConfigError, DataError
from jaxclf.files.atomic import part_path, sha256, sync
from jaxclf.files.digest import DIGEST, is_sealed, seal
from jaxclf.files.disk import storage_errors
from jaxclf.files.json_file import write_json
from jaxclf.files.untrusted import read_json

ADVICE = "start again with --resume never"
BLOCK = 2**20  # bytes read at a time


class Counts(NamedTuple):
    """Rows, those without a text, those whose text has no label, and those whose text was cut."""

    rows: int = 0
    without_text: int = 0
    without_label: int = 0
    cut: int = 0

    def __str__(self) -> str:
        texts = self.rows - self.without_text
        return (
            f"{texts:,} texts, {texts - self.without_label:,} labeled, {self.without_label:,} "
            f"without a label, {self.cut:,} cut where the model reads no further"
            + f"; {self.without_text:,} rows without a text"
            * (self.without_text > 0)
        )


class Journal(NamedTuple):
    """What is scored, and how far.

    input, model: their SHA-256. layout: options of the output. columns: of the input, as JSON.
    total: rows of the input, all shards together. rows and so on: the Counts of the finished rows
        of this shard. size, sha256: of the bytes of OUTPUT.part that hold them.
    """

    input: str
    model: str
    shard: str
    layout: str
    columns: str = "[]"
    total: int = 0
    rows: int = 0
    without_text: int = 0
    without_label: int = 0
    cut: int = 0
    size: int = 0
    sha256: str = hashlib.sha256().hexdigest()

    @property
    def counts(self) -> Counts:
        return Counts(*(getattr(self, name) for name in Counts._fields))


class Part(NamedTuple):
    """OUTPUT.part, open to append, and the running SHA-256 of its finished bytes."""

    file: BinaryIO
    hash: Any


def journal_path(target: Path) -> Path:
    return target.with_name(target.name + ".progress.json")


def load_journal(target: Path, work: Journal) -> Journal | None:
    """The journal of this work, None if nothing was started. Raises ConfigError for another input,
    model, shard or layout, DataError for a damaged or missing journal."""
    path, part = journal_path(target), part_path(target)
    if not path.exists():
        if part.exists() and part.stat().st_size:
            raise DataError(f"{part}: holds rows, and {path.name} is missing; {ADVICE}")
        return None
    try:
        values = read_json(path.parent, path.name)
    except DataError as error:
        raise DataError(f"{error}; {ADVICE}") from None
    types = {name: type(value) for name, value in values.items() if name != DIGEST}
    if not is_sealed(values) or types != Journal.__annotations__:
        raise DataError(f"{path}: damaged; {ADVICE}")
    journal = Journal(**{name: values[name] for name in Journal._fields})
    for name in ("input", "model", "shard", "layout"):
        if getattr(journal, name) != getattr(work, name):
            raise ConfigError(f"{target} was started with another {name}; {ADVICE}")
    return journal


def save_journal(target: Path, journal: Journal) -> None:
    """Replace the journal atomically, also if the power fails."""
    write_json(journal_path(target), seal(journal._asdict()))


@contextmanager
def open_part(target: Path, journal: Journal) -> Iterator[Part]:
    """Open OUTPUT.part to append after the rows that the journal counts. The caller holds the lock
    of the target. Raises DataError if these rows are not as they were written."""
    path = part_path(target)
    if journal.size == 0:  # an older journal must not outlive the rows that it counts
        save_journal(target, journal)
    with path.open("a+b") as file:
        if path.stat().st_size < journal.size:
            raise DataError(f"{path}: shorter than {journal_path(target)} states; {ADVICE}")
        file.truncate(journal.size)
        file.seek(0)
        part = Part(file, hashlib.sha256())
        while block := file.read(BLOCK):
            part.hash.update(block)
        if part.hash.hexdigest() != journal.sha256:
            raise DataError(
                f"{path}: damaged: its SHA-256 is not the one in {journal_path(target)}; {ADVICE}"
            )
        yield part


def append(part: Part, target: Path, journal: Journal, block: bytes, counts: Counts) -> Journal:
    """Append rows to the file and sync them to the disk, then count them in the journal."""
    with storage_errors(part_path(target), len(block)):
        part.file.write(block)
        part.file.flush()
        os.fsync(part.file.fileno())
    part.hash.update(block)
    added = zip(Counts._fields, journal.counts, counts, strict=True)
    journal = journal._replace(
        **{name: before + new for name, before, new in added},
        size=journal.size + len(block),
        sha256=part.hash.hexdigest(),
    )
    save_journal(target, journal)
    return journal


def is_finished(target: Path, journal: Journal) -> bool:
    """Whether the output is complete, so that only the journal is left to remove."""
    if part_path(target).exists() or not target.exists():
        return False
    return sha256(target) == journal.sha256


def finish(target: Path) -> None:
    """Give the output its name and remove the journal."""
    part_path(target).replace(target)
    sync(target.parent)
    journal_path(target).unlink()
