"""Splits of a data set: a smaller one, and what two must not share."""

import hashlib
from typing import Any

import numpy as np

from jaxclf.types import Examples


def shared_texts(one: Examples, other: Examples) -> int:
    """Texts of `other` that stand in `one` too, but for case and white space: a test of memory,
    not of skill."""
    seen = {_plain(text) for text in one.texts}
    return sum(_plain(text) in seen for text in other.texts)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def fingerprint(examples: Examples) -> str:
    """SHA-256 of texts, labels and what is known of them, whatever the file's form, names or
    order of rows."""
    rows = sorted(
        hashlib.sha256(text.encode() + labels.tobytes() + known.tobytes()).digest()
        for text, labels, known in zip(examples.texts, examples.labels, examples.known, strict=True)
    )
    return hashlib.sha256(b"".join(rows)).hexdigest()


def describe(examples: Examples, file: str) -> dict[str, Any]:
    """A split's entry in the ledger."""
    return {"file": file, "rows": len(examples.ids), "sha256": fingerprint(examples)}


def sample(examples: Examples, count: int) -> Examples:
    """So many examples drawn once and for all, in their order; all of them where count is 0 or
    more than there are."""
    if not 0 < count < len(examples.ids):
        return examples
    chosen = np.sort(np.random.default_rng(0).permutation(len(examples.ids))[:count])
    return examples._replace(
        ids=tuple(examples.ids[row] for row in chosen),
        texts=tuple(examples.texts[row] for row in chosen),
        labels=examples.labels[chosen],
        known=examples.known[chosen],
        form=f"{examples.form}; {count:,} of its rows are taken",
    )
