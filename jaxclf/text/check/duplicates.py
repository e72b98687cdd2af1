"""Rows with equal or nearly equal texts, within a split and across splits."""

from collections.abc import Iterable, Iterator

import numpy as np

from jaxclf.text.check.findings import Finding, Rows, count
from jaxclf.text.check.near_duplicates import near_duplicates

Pair = tuple[int, int]


def find_duplicates(rows: Rows) -> Iterator[Finding]:
    """Equal texts (normalized), and groups that several splits share."""
    of_text = _rows_of(rows.keys)
    pairs = [(same[0], later) for same in of_text.values() for later in same[1:]]
    yield from _describe(rows, _across(rows, of_text), pairs, "equal", "")
    groups = {group: same for group, same in _rows_of(rows.groups).items() if group}
    shared = list(_across(rows, groups))
    if shared:
        yield Finding(
            "shared group",
            f"{count(len(shared), 'row')} of a group that another split has too; scores are "
            "optimistically biased",
            _places(rows, shared),
        )


def find_near_duplicates(rows: Rows) -> Iterator[Finding]:
    """Texts that are nearly equal. It takes about 20 seconds for 100,000 rows on an idle core."""
    unique = list({key: row for row, key in reversed(list(enumerate(rows.keys)))}.items())[::-1]
    texts, firsts = zip(*unique, strict=True) if unique else ((), ())
    of_text = _rows_of(rows.keys)
    pairs, across = [], []
    for left, right, _ in near_duplicates(texts):
        pairs.append((firsts[left], firsts[right]))
        for first in of_text[texts[left]]:
            across += [
                (first, second) if _order(rows, first) < _order(rows, second) else (second, first)
                for second in of_text[texts[right]]
                if rows.splits[first] != rows.splits[second]
            ][:1]
    yield from _describe(rows, across, pairs, "nearly equal", "near")


def _describe(
    rows: Rows, across: Iterable[Pair], pairs: list[Pair], alike: str, prefix: str
) -> Iterator[Finding]:
    """The findings of pairs of rows: across splits, with other labels, within a split."""
    across = list(across)
    conflicts = [pair for pair in pairs if _differ(rows, pair)]
    repeated = [
        (first, second)
        for first, second in pairs
        if rows.splits[first] == rows.splits[second] and not _differ(rows, (first, second))
    ]
    if across:
        yield Finding(
            f"{prefix} leak".strip(),
            f"{count(len(across), 'text')} of one split {'is' if len(across) == 1 else 'are'} "
            f"{alike} to one of another; scores are optimistically biased",
            _places(rows, across),
        )
    if conflicts:
        yield Finding(
            f"{prefix} conflict".strip(),
            f"{count(len(conflicts), 'pair')} of {alike} texts with different labels; decide which "
            "labels hold",
            _places(rows, conflicts),
        )
    if repeated:
        yield Finding(
            f"{prefix}ly repeated" if prefix else "repeated",
            f"{count(len(repeated), 'text')} {alike} to an earlier one of the same split",
            _places(rows, repeated),
        )


def _rows_of(keys: Iterable[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows


def _order(rows: Rows, row: int) -> int:
    return {"train": 0, "val": 1, "test": 2}[rows.splits[row]]


def _across(rows: Rows, sets: dict[str, list[int]]) -> Iterator[Pair]:
    """For each row of a later split, the first row of an earlier split in the same set."""
    for same in sets.values():
        for row in same:
            if rows.splits[same[0]] != rows.splits[row]:
                yield same[0], row


def _differ(rows: Rows, pair: Pair) -> bool:
    """Whether a label that both rows know differs."""
    first, second = rows.labels[list(pair)]
    return bool(np.any((first != second) & ~np.isnan(first) & ~np.isnan(second)))


def _places(rows: Rows, pairs: Iterable[Pair]) -> tuple[tuple[str, ...], ...]:
    return tuple((rows.places[first], rows.places[second]) for first, second in pairs)
