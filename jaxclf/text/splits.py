"""Splits of a data set: a smaller one, what two must not share, and what must stay together."""

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
        for text, labels, known in zip(
            examples.texts, examples.labels, examples.label_mask, strict=True
        )
    )
    return hashlib.sha256(b"".join(rows)).hexdigest()


def describe(examples: Examples, file: str) -> dict[str, Any]:
    """A split's entry in the provenance."""
    return {"file": file, "rows": len(examples.ids), "sha256": fingerprint(examples)}


def select(examples: Examples, rows: Int[np.ndarray, " rows"], form: str) -> Examples:
    """Some of the examples, with words for what they are."""
    return examples._replace(
        ids=tuple(examples.ids[row] for row in rows),
        texts=tuple(examples.texts[row] for row in rows),
        labels=examples.labels[rows],
        label_mask=examples.label_mask[rows],
        groups=tuple(examples.groups[row] for row in rows) if examples.groups else (),
        source=f"{examples.source}; {form}",
    )


def subsample(examples: Examples, count: int) -> Examples:
    """So many examples drawn once and for all, in their order; all of them where count is 0 or
    more than there are."""
    if not 0 < count < len(examples.ids):
        return examples
    chosen = np.sort(np.random.default_rng(0).permutation(len(examples.ids))[:count])
    return select(examples, chosen, f"{count:,} of its rows are taken")


def connected_groups(examples: Examples) -> Int[np.ndarray, " examples"]:
    """A number for each example, equal for those of one group or one text (but for case and white
    space), directly or through others: what no two folds may share."""
    groups = examples.groups or ("",) * len(examples.ids)
    nodes: dict[tuple[str, str], int] = {}
    edges = [
        (row, nodes.setdefault(key, len(nodes)))
        for row, (text, group) in enumerate(zip(examples.texts, groups, strict=True))
        for key in [("text", _plain(text)), ("group", group)]
        if key[1]
    ]
    rows, keys = np.array(edges, np.int64).reshape(-1, 2).T
    size = len(examples.ids) + len(nodes)
    graph = coo_array((np.ones(len(rows)), (rows, len(examples.ids) + keys)), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(examples.ids)].astype(np.int64)
