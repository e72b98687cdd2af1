"""Splits of a data set: subsamples, texts that two splits share, groups that stay together."""

import hashlib
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from jaxtyping import Int, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxclf.text.folds import rare_first, rarest_positive
from jaxclf.types import Examples


def shared_texts(train: Examples, test: Examples) -> int:
    """The number of texts of `test` that are in `train` too, normalized."""
    seen = {normalize(text) for text in train.texts}
    return sum(normalize(text) in seen for text in test.texts)


def normalize(text: str) -> str:
    """The text without case, with single spaces, and with one form for each character (NFKC)."""
    if text.isascii():  # the same, faster
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def hash_texts(texts: Sequence[str]) -> UInt64[np.ndarray, " texts"]:
    """A 64-bit hash of each normalized text, sorted."""
    return np.sort(np.frombuffer(b"".join(map(hash_text, texts)), "<u8").astype(np.uint64))


def hash_text(text: str) -> bytes:
    """The 8 bytes of the hash of a normalized text."""
    return blake2b(normalize(text).encode(), digest_size=8).digest()


def fingerprint(examples: Examples) -> dict[str, str]:
    """SHA-256 of each column of the rows, in their order. The file's format does not matter."""
    arrays = hashlib.sha256(examples.labels.tobytes() + examples.label_mask.tobytes())
    return {
        "texts": _digest(examples.texts),
        "labels": arrays.hexdigest(),
        "label names": _digest(examples.names),
        "ids": _digest(examples.ids),
    }


def _digest(strings: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for string in strings:
        digest.update(f"{len(string)}:{string}".encode())
    return digest.hexdigest()


def describe(examples: Examples) -> dict[str, Any]:
    """A split's entry in the provenance."""
    return {"file": examples.file, "rows": len(examples.ids), "sha256": fingerprint(examples)}


def select(examples: Examples, rows: Int[np.ndarray, " rows"], description: str) -> Examples:
    """Some of the examples. The description is appended to their source."""
    return examples._replace(
        ids=tuple(examples.ids[row] for row in rows),
        texts=tuple(examples.texts[row] for row in rows),
        labels=examples.labels[rows],
        label_mask=examples.label_mask[rows],
        groups=tuple(examples.groups[row] for row in rows) if examples.groups else (),
        splits=tuple(examples.splits[row] for row in rows) if examples.splits else (),
        lines=tuple(examples.lines[row] for row in rows) if examples.lines else (),
        source=f"{examples.source}; {description}",
    )


def subsample(examples: Examples, count: int) -> Examples:
    """The same random examples at every call, in their order; all of them where count is 0 or
    exceeds their number."""
    if not 0 < count < len(examples.ids):
        return examples
    chosen = np.sort(np.random.default_rng(0).permutation(len(examples.ids))[:count])
    return select(examples, chosen, f"{count:,} of its rows are taken")


def stratified_share(examples: Examples, share: float) -> Examples:
    """The same share of the examples at every call, in their order, stratified by the rarest label
    of each; a smaller share lies in a larger one. All of them where the share is 1."""
    if share == 1:
        return examples
    stratum = rarest_positive(rare_first(examples.labels > 0))
    shuffled = np.random.default_rng(0).permutation(len(stratum))
    grouped = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    # The k-th of the m examples in a stratum has the position (k + 1/2) / m.
    _, starts, sizes = np.unique(stratum[grouped], return_index=True, return_counts=True)
    ranks = np.arange(len(grouped)) - np.repeat(starts, sizes)
    positions = (ranks + 0.5) / np.repeat(sizes, sizes)
    count = max(round(share * len(grouped)), 1)
    chosen = np.sort(grouped[np.argsort(positions, kind="stable")[:count]])
    return select(examples, chosen, f"{count:,} of its rows are taken, stratified")


def connected_groups(examples: Examples) -> Int[np.ndarray, " examples"]:
    """A number for each example, equal where two folds must not share them: examples with the same
    group or the same text (normalized), and their connected components."""
    groups = examples.groups or ("",) * len(examples.ids)
    nodes: dict[tuple[str, str], int] = {}
    edges = [
        (row, nodes.setdefault(key, len(nodes)))
        for row, (text, group) in enumerate(zip(examples.texts, groups, strict=True))
        for key in [("text", normalize(text)), ("group", group)]
        if key[1]
    ]
    rows, keys = np.array(edges, np.int64).reshape(-1, 2).T
    size = len(examples.ids) + len(nodes)
    graph = coo_array((np.ones(len(rows)), (rows, len(examples.ids) + keys)), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(examples.ids)].astype(np.int64)
