"""What a check of the data may find, and the rows that it looks at."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxclf.errors import printable
from jaxclf.text.splits import normalize
from jaxclf.types import Examples

MAX_SHOWN = 5  # places that a sentence names
# The kinds of findings, the most important first.
KINDS = (
    "leak", "near leak", "shared group", "conflict", "near conflict", "constant label",
    "equal labels", "too rare to learn", "too rare to judge", "shortcut", "repeated",
    "nearly repeated", "similar names", "suspicious label", "unknown labels", "unlabeled",
    "shift", "cut texts", "exact length", "broken characters", "markup", "no words", "very short",
)  # fmt: skip


class Finding(NamedTuple):
    """kind: of KINDS. places: `file:line` of each row, or of each pair of rows; empty where the
    finding is about labels."""

    kind: str
    sentence: str
    places: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(" = ".join(pair) for pair in self.places[:MAX_SHOWN])
        more = ", …" * (len(self.places) > MAX_SHOWN)
        return f"{self.sentence}: {shown}{more}" if shown else self.sentence


class Rows(NamedTuple):
    """The rows of all splits as columns. labels: NaN where not known. places: `file:line`."""

    texts: tuple[str, ...]
    keys: tuple[str, ...]  # the texts, normalized
    splits: tuple[str, ...]
    groups: tuple[str, ...]  # "" for a row without one
    places: tuple[str, ...]
    labels: Float[np.ndarray, "rows classes"]
    names: tuple[str, ...]
    agreement: tuple[float, ...]  # of the annotators of the training file, as in Examples


def gather(splits: Mapping[str, Examples]) -> Rows:
    """Join the splits."""
    parts = splits.values()
    texts = tuple(text for part in parts for text in part.texts)
    return Rows(
        texts,
        tuple(map(normalize, texts)),
        tuple(name for name, part in splits.items() for _ in part.ids),
        tuple(group for part in parts for group in part.groups or ("",) * len(part.ids)),
        tuple(itertools.chain.from_iterable(map(_places, parts))),
        np.concatenate([np.where(part.label_mask > 0, part.labels, np.nan) for part in parts]),
        next(iter(parts)).names,
        next(iter(parts)).agreement,
    )


def _places(examples: Examples) -> list[str]:
    """Where each row is: `file:line`, or its id where the rows come from no file."""
    if examples.lines:
        return [f"{examples.file}:{line}" for line in examples.lines]
    return [f"id {printable(id)}" for id in examples.ids]


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
