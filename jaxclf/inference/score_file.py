"""Label files of any size: rows are read, scored and written in chunks."""

import csv
import hashlib
import importlib.metadata
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError
from jaxclf.files.atomic import lock, sha256
from jaxclf.files.spreadsheet import escape_cell, escape_name
from jaxclf.inference import journal as journals
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.journal import Journal
from jaxclf.inference.shard import Shard
from jaxclf.signals import shielded
from jaxclf.terminal import show_progress
from jaxclf.text.reader import ParsedRow, stream

log = logging.getLogger(__name__)

Probs = Float[np.ndarray, "texts classes"]

# A chunk is kept in memory, and lost by a kill. It is large enough that its last batch, which is
# rarely full, hardly matters; long texts make it shorter.
CHUNK_ROWS, CHUNK_CHARACTERS = 4096, 2**19


WHOLE_FILE = Shard(0, 1)


class Layout(NamedTuple):
    """Options of the output.

    model_column: whether rows name the model and jaxclf's version. escape_formulas: write ids to
        CSV so that a spreadsheet does not compute them, as label names always are.
    """

    model_column: bool = True
    escape_formulas: bool = False


PLAIN = Layout()


def predict_file(
    classifier: Classifier,
    source: Path,
    target: Path,
    shard: Shard = WHOLE_FILE,
    resume: str = "auto",
    layout: Layout = PLAIN,
) -> int:
    """Label every row of a data file, or of a shard of it, in order; returns the number of rows.

    The file is checked before any row is scored, and the target is written atomically. `resume`
    "auto" continues stopped work and ends in the same bytes; "never" starts again.

    Raises DataError for rows without a text, and if what the stopped work left is damaged;
    ConfigError if that work had another input, model, shard or layout.
    """
    writer = _find_writer(source, target, layout)
    with lock(target):
        stamp = _stamp(source)
        model = fingerprint(classifier)
        work = Journal(sha256(source), model, f"{shard.index}/{shard.count}", _to_json(layout))
        journal = _open_journal(source, target, work, resume)
        first, last = (
            journal.total * index // shard.count for index in (shard.index, shard.index + 1)
        )
        if journal.rows == last - first and journals.is_finished(target, journal):
            journals.journal_path(target).unlink()
            return journal.rows
        with (
            journals.open_part(target, journal) as part,
            show_progress("labeling", last - first, "texts", journal.rows) as advance,
        ):
            if journal.size == 0:
                header = writer.header(classifier, layout).encode()
                journal = journals.append(part, target, journal, header, 0)
            for chunk in chunks(islice(stream(source), first + journal.rows, last)):
                probs = classifier.predict_proba([row.text for row in chunk])
                block = writer.rows(classifier, layout, [row.id for row in chunk], probs).encode()
                with shielded():
                    journal = journals.append(part, target, journal, block, len(chunk))
                advance(len(chunk), "")
        if journal.rows != last - first or _stamp(source) != stamp:
            raise DataError(f"{source}: changed while it was read; {journals.ADVICE}")
        with shielded():
            journals.finish(target)
    return journal.rows


def _to_json(layout: Layout) -> str:
    return json.dumps(layout._asdict())


def _open_journal(source: Path, target: Path, work: Journal, resume: str) -> Journal:
    """The journal of stopped work, or a new one after all rows of the file are checked."""
    if resume == "auto" and (journal := journals.load_journal(target, work)):
        return journal
    log.info("checking %s", source)
    return work._replace(total=sum(1 for _ in stream(source)))


def chunks(rows: Iterable[ParsedRow]) -> Iterator[list[ParsedRow]]:
    """Split rows into chunks. Chunk boundaries depend only on the rows of the chunk, so a resumed
    job produces the same chunks."""
    chunk: list[ParsedRow] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text)
        if len(chunk) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def fingerprint(classifier: Classifier) -> str:
    """SHA-256 of everything that a classifier's predictions depend on."""
    digest = hashlib.sha256(importlib.metadata.version("jaxclf").encode())
    for part in _iter_bytes(vars(classifier)):
        digest.update(part)
    return digest.hexdigest()


def _iter_bytes(value: Any) -> Iterator[bytes]:
    """The content of nested values. Functions are skipped: they are made from the rest."""
    if isinstance(value, np.ndarray | jax.Array):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.asarray(value).tobytes()
    elif isinstance(value, Tokenizer):
        yield value.to_str().encode()
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield f"{key}:".encode()
            yield from _iter_bytes(value[key])
    elif isinstance(value, list | tuple):
        yield f"{len(value)}:".encode()
        for element in value:
            yield from _iter_bytes(element)
    elif is_dataclass(value):
        yield from _iter_bytes(vars(value))
    elif isinstance(value, str | int | float | None):
        yield repr(value).encode()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _jsonl_rows(classifier: Classifier, layout: Layout, ids: Sequence[str], probs: Probs) -> str:
    """One object a row: id, predicted labels, every probability, the model."""
    lines = []
    model = {"model": classifier.identifier} if layout.model_column else {}
    decisions = decide(probs, classifier.thresholds)
    for row_id, row, decided in zip(ids, probs, decisions, strict=True):
        labels = [label for label, yes in zip(classifier.labels, decided, strict=True) if yes]
        scores = {label: float(f"{p:.6f}") for label, p in zip(classifier.labels, row, strict=True)}
        line = {"id": row_id, "labels": labels, "probabilities": scores, **model}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _csv_header(classifier: Classifier, layout: Layout) -> str:
    names = [escape_name(name) for name in classifier.labels]
    model = ["model"] * layout.model_column
    return _to_csv([["id", *names, *[f"probability_{name}" for name in names], *model]])


def _csv_rows(classifier: Classifier, layout: Layout, ids: Sequence[str], probs: Probs) -> str:
    """A column per label with 0 or 1, one per label with its probability, and the model."""
    decisions = decide(probs, classifier.thresholds)
    model = [classifier.identifier] * layout.model_column
    if layout.escape_formulas:
        ids = [escape_cell(row_id) for row_id in ids]
    return _to_csv(
        [row_id, *decided.astype(int).tolist(), *[f"{p:.6f}" for p in row], *model]
        for row_id, row, decided in zip(ids, probs, decisions, strict=True)
    )


def _to_csv(rows: Iterable[list]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


class Writer(NamedTuple):
    """An output format: the text before the rows, and the text of rows."""

    header: Callable[[Classifier, Layout], str]
    rows: Callable[[Classifier, Layout, Sequence[str], Probs], str]


WRITERS = {".jsonl": Writer(lambda *_: "", _jsonl_rows), ".csv": Writer(_csv_header, _csv_rows)}


def _find_writer(source: Path, target: Path, layout: Layout) -> Writer:
    if target.suffix not in WRITERS:
        raise ConfigError(f"--output {target}: the name must end in {' or '.join(WRITERS)}")
    if not target.parent.is_dir():
        raise ConfigError(f"--output {target}: the folder {target.parent} does not exist")
    if not source.is_file():
        raise DataError(f"{source}: no such file")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"--output {target}: is the input; give another file")
    if layout.escape_formulas and target.suffix != ".csv":
        raise ConfigError(f"--escape-formulas applies to .csv, not to --output {target}")
    return WRITERS[target.suffix]
