"""Label files of any size: rows are read, scored and written in chunks."""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError
from jaxclf.files.atomic import lock, sha256
from jaxclf.inference import journal as journals
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.journal import Counts, Journal
from jaxclf.inference.output_formats import (
    ENDINGS,
    Layout,
    Predicted,
    ending_of,
    is_table,
    make_writer,
)
from jaxclf.inference.shard import Shard
from jaxclf.signals import shielded
from jaxclf.terminal import show_progress
from jaxclf.text.parsed_rows import ParsedRow
from jaxclf.text.reader import stream

log = logging.getLogger(__name__)

# A chunk is kept in memory, and lost by a kill. It is large enough that its last batch, which is
# rarely full, hardly matters; long texts make it shorter.
CHUNK_ROWS, CHUNK_CHARACTERS = 4096, 2**19


WHOLE_FILE = Shard(0, 1)
PLAIN = Layout()


def predict_file(
    classifier: Classifier,
    source: Path,
    target: Path,
    shard: Shard = WHOLE_FILE,
    resume: str = "auto",
    layout: Layout = PLAIN,
) -> Counts:
    """Write every row of a data file, or of a shard of it, in order and with its predictions.

    A row keeps its columns, or the keys of its object. Earlier predictions are replaced. The file
    is checked before any row is scored, and the target is written atomically. `resume` "auto"
    continues stopped work and ends in the same bytes; "never" starts again.

    Raises DataError for rows that cannot be read, and if what the stopped work left is damaged;
    ConfigError if that work had another input, model, shard or layout.
    """
    _check_names(source, target, layout)
    with lock(target):
        stamp = _stamp(source)
        model = fingerprint(classifier)
        options = json.dumps(layout._asdict())
        work = Journal(sha256(source), model, f"{shard.index}/{shard.count}", options)
        journal = _open_journal(source, target, work, resume, layout)
        first, last = (
            journal.total * index // shard.count for index in (shard.index, shard.index + 1)
        )
        if journal.rows == last - first and journals.is_finished(target, journal):
            journals.journal_path(target).unlink()
            return journal.counts
        writer = make_writer(classifier, source, target, layout, json.loads(journal.columns))
        with (
            journals.open_part(target, journal) as part,
            show_progress("labeling", last - first, "texts", journal.rows) as advance,
        ):
            if journal.size == 0:
                header = writer.header + writer.footer * (last == first)
                block = writer.encode(header, is_header=True)
                journal = journals.append(part, target, journal, block, Counts())
            rows = islice(stream(source, layout.text_column), first + journal.rows, last)
            for chunk in chunks(rows):
                predicted = _predict(classifier, chunk)
                is_last = journal.rows + len(chunk) == last - first
                end = writer.footer if is_last else writer.separator
                text = writer.separator.join(writer.format_rows(chunk, predicted)) + end
                with shielded():
                    counts = _count(predicted)
                    journal = journals.append(part, target, journal, writer.encode(text), counts)
                advance(len(chunk), "")
        if journal.rows != last - first or _stamp(source) != stamp:
            raise DataError(f"{source}: changed while it was read; {journals.ADVICE}")
        with shielded():
            journals.finish(target)
    return journal.counts


def _predict(classifier: Classifier, rows: Sequence[ParsedRow]) -> Predicted:
    has_text = np.array([bool(row.text) for row in rows])
    texts = [row.text for row in rows if row.text]
    probs = np.full((len(rows), len(classifier.labels)), np.nan, np.float32)
    probs[has_text] = classifier.predict_proba(texts)
    cut = np.zeros(len(rows), bool)
    cut[has_text] = classifier.is_cut(texts)
    return Predicted(probs, decide(probs, classifier.thresholds), cut)


def _count(predicted: Predicted) -> Counts:
    has_text = ~np.isnan(predicted.probs).any(axis=1)
    has_label = predicted.decided.any(axis=1)
    return Counts(
        len(predicted.cut),
        int((~has_text).sum()),
        int((has_text & ~has_label).sum()),
        int(predicted.cut.sum()),
    )


def _open_journal(
    source: Path, target: Path, work: Journal, resume: str, layout: Layout
) -> Journal:
    """The journal of stopped work, or a new one after all rows of the file are checked."""
    if resume == "auto" and (journal := journals.load_journal(target, work)):
        return journal
    log.info("checking %s", source)
    total, names = 0, {}
    for row in stream(source, layout.text_column):
        total += 1
        if is_table(target):
            names |= dict.fromkeys(row.fields)
    return work._replace(total=total, columns=json.dumps([*names]))


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


def _check_names(source: Path, target: Path, layout: Layout) -> None:
    if ending_of(target) not in ENDINGS:
        raise ConfigError(f"--output {target}: the name must end in {', '.join(ENDINGS)}")
    if not target.parent.is_dir():
        raise ConfigError(f"--output {target}: the folder {target.parent} does not exist")
    if not source.exists():
        raise DataError(f"{source}: no such file")
    if source.is_dir():
        raise DataError(f"{source}: a folder; write a file of it with Dataset.to_parquet")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"--output {target}: is the input; give another file")
    if layout.escape_formulas and not is_table(target):
        raise ConfigError(f"--escape-formulas applies to .csv and .tsv, not to --output {target}")
