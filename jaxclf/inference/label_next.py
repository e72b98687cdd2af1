"""Choose the texts of a pool that are to be labeled next."""

import heapq
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxclf.decisions.label_next import SHORTLIST, choose_batch, confidence, informativeness
from jaxclf.decisions.predictions import load_predictions
from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.model_groups import embed
from jaxclf.inference.score_file import chunks
from jaxclf.text.annotation_tasks import Task
from jaxclf.text.parsed_rows import ParsedRow
from jaxclf.text.reader import read, stream
from jaxclf.text.splits import hash_text

log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A row of the pool. Candidates are ordered by score, then by line, the first one above."""

    score: float
    order: int  # minus the line
    row: ParsedRow
    probs: Float[np.ndarray, " classes"]


class Labeled(NamedTuple):
    """What is labeled already: positives of each label, hashes of the texts."""

    positives: Float[np.ndarray, " classes"]
    hashes: frozenset[bytes]


def read_labeled(
    classifier: Classifier, run: Path, path: Path | None, text_column: str = ""
) -> Labeled:
    """The texts that the run was fitted on, and those of a labeled file.

    The positives are those of the file, else those of the run's validation split. Raises
    ConfigError where there is neither.
    """
    hashes = {
        int(value).to_bytes(8, "little")
        for part in classifier.provenance.row_hashes.values()
        for value in part
    }
    if path is not None:
        data = replace(classifier.experiment.data, text_column=text_column)
        examples = read(path, classifier.labels, **data.columns)
        hashes |= {*map(hash_text, examples.texts)}
        return Labeled(examples.labels.sum(axis=0).astype(np.float64), frozenset(hashes))
    val = run / "predictions" / "val.npz"
    if not val.is_file():
        raise ConfigError(f"{run}: has no predictions/val.npz to count labels in; give --labeled")
    positives = np.nansum(load_predictions(val).labels, axis=0)
    return Labeled(positives.astype(np.float64), frozenset(hashes))


def choose_next(
    classifier: Classifier, pool: Path, count: int, labeled: Labeled, text_column: str = ""
) -> list[Candidate]:
    """The rows of a pool to label next, the most informative first.

    Texts without labels that are uncertain, above all of rare labels, are shortlisted; of these,
    such are chosen that differ from each other. Memory holds a chunk and the shortlist. Equal texts
    count once. Raises DataError where every text of the pool is labeled.
    """
    shortlist: dict[bytes, Candidate] = {}
    for chunk in chunks(stream(pool, text_column)):
        keys = [hash_text(row.text) for row in chunk]
        new = [
            index
            for index, row in enumerate(chunk)
            if row.text and keys[index] not in labeled.hashes
        ]
        probs = classifier.predict_proba([chunk[index].text for index in new])
        scores = informativeness(probs, classifier.thresholds, labeled.positives)
        for index, p, score in zip(new, probs, scores, strict=True):
            row = chunk[index]
            shortlist.setdefault(keys[index], Candidate(float(score), -row.line, row, p))
        best = heapq.nlargest(SHORTLIST * count, shortlist.items(), key=lambda item: item[1][:2])
        shortlist = dict(best)
        log.info("read up to line %d of %s", chunk[-1].line, pool)
    candidates = list(shortlist.values())
    if not candidates:
        raise DataError(f"{pool}: every text is labeled already")
    vectors = embed(classifier.groups[0], [candidate.row.text for candidate in candidates])
    scores = np.array([candidate.score for candidate in candidates])
    return [candidates[index] for index in choose_batch(scores, vectors, count)]


def make_tasks(
    classifier: Classifier, candidates: Sequence[Candidate], text_column: str = ""
) -> list[Task]:
    """A task for each text, with the predicted labels and the other values of its row."""
    probs = np.array([candidate.probs for candidate in candidates])
    scores = confidence(probs, classifier.thresholds)
    return [
        Task(
            candidate.row.text,
            [
                name
                for name, p, threshold in zip(
                    classifier.labels, candidate.probs, classifier.thresholds, strict=True
                )
                if p >= threshold
            ],
            float(score),
            classifier.identifier,
            _details(candidate.row.fields, text_column),
        )
        for candidate, score in zip(candidates, scores, strict=True)
    ]


def _details(fields: Mapping[str, Any], text_column: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("text", text_column)}
