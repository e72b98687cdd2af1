"""Files of any size -> labels and probabilities: read, scored and written a window at a time."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer
from tqdm import tqdm

from jaxclf import __version__
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError
from jaxclf.inference import journal as kept
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.journal import Journal, Work
from jaxclf.text.reader import Parsed, stream

Probs = Float[np.ndarray, "texts classes"]

# A window is what is held at a time, and what a kill loses. It has rows enough that its last batch,
# which is seldom full, hardly counts; fewer where texts are long.
WINDOW_ROWS, WINDOW_CHARACTERS = 4096, 2**19


class Shard(NamedTuple):
    """Part `index`, from 0, of `count`: consecutive rows, so that the outputs of all shards one
    after another are that of the whole."""

    index: int
    count: int


WHOLE = Shard(0, 1)


def predict_file(
    classifier: Classifier,
    source: Path,
    target: Path,
    shard: Shard = WHOLE,
    resume: str = "auto",
) -> int:
    """Label every row of a data file, or of a shard of it, in order; the number of rows.

    The whole file is checked before a row is scored, and the target is written whole or not at
    all. Where this was cut short, `resume` "auto" goes on, to the same bytes, and "never" begins
    anew. Raises DataError for rows without a text, ConfigError where what was begun is another
    input, model or shard.
    """
    writer = _writer(source, target)
    before = _stamp(source)
    work = Work(_sha256(source), fingerprint(classifier), f"{shard.index}/{shard.count}")
    journal = kept.load_journal(target, work) if resume == "auto" else None
    if journal is None:
        journal = Journal(*work, total=_count(source))
    first, last = (journal.total * index // shard.count for index in (shard.index, shard.index + 1))
    if journal.rows == last - first and kept.was_finished(target, journal):
        kept.journal_of(target).unlink()
        return last - first

    with kept.open_part(target, journal) as part, progress(last - first, journal.rows) as bar:
        if journal.size == 0:
            journal = kept.append(part, target, journal, writer.header(classifier).encode(), 0)
        rows = islice(stream(source), first + journal.rows, last)
        for window in chunks(rows):
            probs = classifier.predict_proba([row.text for row in window])
            block = writer.rows(classifier, [row.id for row in window], probs).encode()
            journal = kept.append(part, target, journal, block, len(window))
            bar.update(len(window))
        if journal.rows != last - first or _stamp(source) != before:
            raise DataError(f"{source}: changed while it was read; {kept.ADVICE}")
        kept.finish(target)
    return last - first


def chunks(rows: Iterable[Parsed]) -> Iterator[list[Parsed]]:
    """Rows in parts that are scored at once. Where a part ends depends on its own rows alone, so
    that work which goes on after one has the parts of work that never stopped."""
    held: list[Parsed] = []
    characters = 0
    for row in rows:
        held.append(row)
        characters += len(row.text)
        if len(held) >= WINDOW_ROWS or characters >= WINDOW_CHARACTERS:
            yield held
            held, characters = [], 0
    if held:
        yield held


def fingerprint(classifier: Classifier) -> str:
    """SHA-256 of all that its answers depend on: every number, word and tokenizer in it."""
    digest = hashlib.sha256(__version__.encode())
    for part in _parts(vars(classifier)):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray | jax.Array):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.asarray(value).tobytes()
    elif isinstance(value, Tokenizer):
        yield value.to_str().encode()
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield f"{key}:".encode()
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        yield f"{len(value)}:".encode()
        for one in value:
            yield from _parts(one)
    elif is_dataclass(value):
        yield from _parts(vars(value))
    elif isinstance(value, str | int | float | None):
        yield repr(value).encode()
    # What else there is are functions, made of the above.


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _count(source: Path) -> int:
    """Rows of a file, all of which were found to be good."""
    return sum(1 for _ in tqdm(stream(source), "checking", unit=" rows", leave=False, delay=2))


def progress(total: int, done: int) -> tqdm:
    """A bar with rate and time left."""
    return tqdm(
        total=total,
        initial=done,
        unit=" texts",
        dynamic_ncols=True,
        mininterval=0.5,
        bar_format="{desc}{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} texts, "
        "{rate_noinv_fmt}, {remaining} left",
    )


def _jsonl_rows(classifier: Classifier, ids: Sequence[str], probs: Probs) -> str:
    """One object a row: id, the labels given, every probability."""
    lines = []
    for name, row, given in zip(ids, probs, decide(probs, classifier.thresholds), strict=True):
        labels = [label for label, yes in zip(classifier.labels, given, strict=True) if yes]
        scores = {label: float(f"{p:.6f}") for label, p in zip(classifier.labels, row, strict=True)}
        line = {"id": name, "labels": labels, "probabilities": scores}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _csv_header(classifier: Classifier) -> str:
    names = classifier.labels
    return _in_csv([["id", *names, *[f"probability_{name}" for name in names]]])


def _csv_rows(classifier: Classifier, ids: Sequence[str], probs: Probs) -> str:
    """A column per label with 0 or 1, and one per label with its probability."""
    decided = decide(probs, classifier.thresholds)
    return _in_csv(
        [name, *given.astype(int).tolist(), *[f"{p:.6f}" for p in row]]
        for name, row, given in zip(ids, probs, decided, strict=True)
    )


def _in_csv(rows: Iterable[list]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


class Writer(NamedTuple):
    """A form of output: what stands before the rows, and rows."""

    header: Callable[[Classifier], str]
    rows: Callable[[Classifier, Sequence[str], Probs], str]


WRITERS = {".jsonl": Writer(lambda _: "", _jsonl_rows), ".csv": Writer(_csv_header, _csv_rows)}


def _writer(source: Path, target: Path) -> Writer:
    if target.suffix not in WRITERS:
        raise ConfigError(f"--output {target}: the ending must be {' or '.join(WRITERS)}")
    if not target.parent.is_dir():
        raise ConfigError(f"--output {target}: the folder {target.parent} does not exist")
    if not source.is_file():
        raise DataError(f"{source}: no such file")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"--output {target}: is the input; give another")
    return WRITERS[target.suffix]
