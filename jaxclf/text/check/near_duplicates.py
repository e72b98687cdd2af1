"""Pairs of texts that are nearly equal: MinHash over character shingles (Broder 1997), banded so
that only likely pairs are compared."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt32

SHINGLE = 5  # bytes
MAX_BYTES = 2000  # of a text that are compared
BANDS, ROWS = 16, 4  # a pair of Jaccard similarity s is compared with probability 1 - (1 - s^4)^16
SIMILAR = 0.8  # 0.9998 of the pairs at this similarity are compared
CHUNK = 2**22  # bytes hashed at a time, so that memory stays flat


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int, float]]:
    """(first, second, Jaccard similarity) of pairs of texts, in ascending order.

    texts: normalized and different. Of many texts that are alike, each is paired with some, not all
    with all.
    """
    encoded = [text.encode()[:MAX_BYTES] for text in texts]
    long_enough = np.array([len(text) >= SHINGLE for text in encoded], bool)
    rows = np.flatnonzero(long_enough)
    if len(rows) < 2:
        return []
    signatures = np.concatenate(list(_signatures([encoded[row] for row in rows])))
    pairs = np.unique(np.concatenate(list(_candidates(signatures))), axis=0)
    agreement = np.zeros(len(pairs))
    for column in signatures.T:
        agreement += column[pairs[:, 0]] == column[pairs[:, 1]]
    # The agreement estimates the similarity; its standard deviation is 0.05 here.
    likely = rows[pairs[agreement / (BANDS * ROWS) >= SIMILAR - 0.2]]
    return [
        (int(first), int(second), similarity)
        for first, second in likely
        if (similarity := jaccard(encoded[first], encoded[second])) >= SIMILAR
    ]


def jaccard(first: bytes, second: bytes) -> float:
    """The share of the shingles of two texts that both have."""
    left, right = (
        {text[at : at + SHINGLE] for at in range(len(text) - SHINGLE + 1)}
        for text in (first, second)
    )
    return len(left & right) / len(left | right)


def _signatures(texts: Sequence[bytes]) -> Iterator[UInt32[np.ndarray, "texts hashes"]]:
    """The least values of the hash functions over the shingles of each text, in chunks."""
    ends = np.cumsum([len(text) for text in texts])
    first = 0
    while first < len(texts):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + CHUNK, "right")), first + 1)
        yield _minhash(texts[first:last])
        first = last


def _minhash(texts: Sequence[bytes]) -> UInt32[np.ndarray, "texts hashes"]:
    content = np.frombuffer(b"".join(texts), np.uint8).astype(np.uint64)
    sizes = np.array([len(text) for text in texts])
    shingles = np.zeros(len(content) - SHINGLE + 1, np.uint64)
    for offset in range(SHINGLE):
        shingles = shingles << np.uint64(8) | content[offset : offset + len(shingles)]
    # Shingles that reach into the next text are left out.
    position = np.arange(len(content)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    within = (position <= np.repeat(sizes, sizes) - SHINGLE)[: len(shingles)]
    shingles = _mix(shingles[within])
    starts = np.cumsum(sizes - SHINGLE + 1) - (sizes - SHINGLE + 1)
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 2**32, BANDS * ROWS, np.uint32) | np.uint32(1)
    offsets = rng.integers(0, 2**32, BANDS * ROWS, np.uint32)
    signature = np.empty((len(texts), BANDS * ROWS), np.uint32)
    for column, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        signature[:, column] = np.minimum.reduceat(shingles * factor + offset, starts)
    return signature


def _mix(values: np.ndarray) -> UInt32[np.ndarray, " values"]:
    """Spread 40 bits over 32 (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (values >> np.uint64(32)).astype(np.uint32)


def _candidates(signatures: UInt32[np.ndarray, "texts hashes"]) -> Iterator[Int[np.ndarray, "p 2"]]:
    """Pairs of texts whose signatures agree in a band: each text with the one before it and with
    the first."""
    factor = np.uint64(0x9E3779B97F4A7C15)
    for band in range(BANDS):
        key = np.zeros(len(signatures), np.uint64)
        for column in signatures[:, band * ROWS : (band + 1) * ROWS].T:
            key = (key ^ column) * factor
            key ^= key >> np.uint64(29)
        order = np.argsort(key, kind="stable")
        is_new = np.append(True, key[order][1:] != key[order][:-1])
        first = np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))
        later = np.flatnonzero(~is_new)
        yield np.column_stack([order[later - 1], order[later]])
        yield np.column_stack([order[first[later]], order[later]])
