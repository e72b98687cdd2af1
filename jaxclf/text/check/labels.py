"""What the labels of a data set say about it: constant, equal, rare, misspelled, shifted."""

import itertools
import re
from collections.abc import Iterator, Mapping

import numpy as np
import scipy.stats
from jaxtyping import Bool, Int
from scipy.sparse import csr_array

from jaxclf.errors import printable
from jaxclf.text.check.findings import Finding, Rows, count
from jaxclf.text.data_splits import MIN_JUDGED
from jaxclf.text.splits import normalize

MIN_LEARNED = 10  # positives in train, to learn a label
MIN_SHORTCUT = 20  # rows with a word that alone decides a label
NO_LABEL = re.compile(
    r"(unnamed: ?\d+|index|row|(\w+_)?id|date|time(stamp)?|user(name)?|author|source|lang(uage)?|"
    r"score|confidence|comment|notes?|url|file(name)?|annotator|length)",
    re.IGNORECASE,
)
WORD = re.compile(r"\w+")


def find_label_faults(rows: Rows) -> Iterator[Finding]:
    """The findings about labels; where they concern single rows, with their lines."""
    names = [printable(name) for name in rows.names]
    positive, splits = rows.labels >= 0.5, np.array(rows.splits)
    known = ~np.isnan(rows.labels)
    counts = {name: positive[splits == name].sum(axis=0) for name in dict.fromkeys(rows.splits)}
    for column, name in enumerate(names):
        values = rows.labels[known[:, column], column]
        if len(values) and (values == values[0]).all():
            sentence = f"label {name} is {values[0]:g} in every row; nothing can be learned"
            yield Finding("constant label", sentence)
        if NO_LABEL.fullmatch(rows.names[column].strip()):
            sentence = f"label {name} has the name of another kind of column; is it a label?"
            yield Finding("suspicious label", sentence)
    for first, second in itertools.combinations(range(len(names)), 2):
        if len(rows.texts) and positive[:, first].any():
            yield from _compare(rows, names, first, second)
    yield from _rare(counts, names)
    yield from _unknown(rows, names, known)
    yield from _shift(counts, splits, known, names)
    yield from _shortcuts(rows, positive, names)


def _compare(rows: Rows, names: list[str], first: int, second: int) -> Iterator[Finding]:
    left, right = rows.labels[:, first], rows.labels[:, second]
    pair = f"labels {names[first]} and {names[second]}"
    if np.array_equal(left, right, equal_nan=True):
        yield Finding("equal labels", f"{pair} are equal in every row; leave one out")
    elif np.array_equal(left, 1 - right, equal_nan=True):
        yield Finding("equal labels", f"{pair} are opposites in every row; leave one out")
    plain = [re.sub(r"[\W_]+", "", normalize(rows.names[column])) for column in (first, second)]
    if plain[0] == plain[1]:
        yield Finding("similar names", f"{pair} differ only in case, spaces or signs")


def _rare(counts: Mapping[str, Int[np.ndarray, " classes"]], names: list[str]) -> Iterator[Finding]:
    for split, positives in counts.items():
        least, kind = (
            (MIN_LEARNED, "too rare to learn")
            if split == "train"
            else (MIN_JUDGED, "too rare to judge")
        )
        few = [
            f"{names[label]} ({positives[label]})" for label in np.flatnonzero(positives < least)
        ]
        if few:
            sentence = f"labels with fewer than {least} positives in {split}: {', '.join(few)}"
            yield Finding(kind, sentence)


def _unknown(
    rows: Rows, names: list[str], known: Bool[np.ndarray, "rows classes"]
) -> Iterator[Finding]:
    shares = 1 - known.mean(axis=0)
    mostly = [f"{names[label]} ({shares[label]:.0%})" for label in np.flatnonzero(shares > 0.5)]
    if mostly:
        yield Finding("unknown labels", f"labels that most rows leave empty: {', '.join(mostly)}")
    blank = np.flatnonzero(~known.any(axis=1))
    if len(blank):
        sentence = f"{count(len(blank), 'row')} without a value for any label"
        yield Finding("unlabeled", sentence, tuple((rows.places[row],) for row in blank))


def _shift(
    counts: Mapping[str, Int[np.ndarray, " classes"]],
    splits: np.ndarray,
    known: Bool[np.ndarray, "rows classes"],
    names: list[str],
) -> Iterator[Finding]:
    """Labels whose share differs between train and another split beyond chance (Fisher's exact
    test, Bonferroni over all labels)."""
    sizes = {split: known[splits == split].sum(axis=0) for split in counts}
    for split in counts.keys() - {"train"}:
        for label, name in enumerate(names):
            pairs = [(counts[key][label], sizes[key][label]) for key in ("train", split)]
            table = [[positive, size - positive] for positive, size in pairs]
            _, p = np.asarray(scipy.stats.fisher_exact(table), float)
            if p < 0.001 / len(names):
                shares = [positive / max(size, 1) for positive, size in pairs]
                yield Finding(
                    "shift",
                    f"label {name} has {shares[0]:.1%} of the train rows and {shares[1]:.1%} of "
                    f"the {split} rows; the splits differ beyond chance",
                )


def _shortcuts(
    rows: Rows, positive: Bool[np.ndarray, "rows classes"], names: list[str]
) -> Iterator[Finding]:
    """Labels that a single word decides: nearly all rows with the label have it, and no others."""
    index: dict[str, int] = {}
    words = [
        {index.setdefault(word, len(index)) for word in WORD.findall(key)} for key in rows.keys
    ]
    ends = np.cumsum([0, *map(len, words)])
    columns = np.array([word for of_row in words for word in of_row], np.int64)
    matrix = csr_array(
        (np.ones(len(columns)), columns, ends), shape=(len(words), max(len(index), 1))
    )
    totals = np.asarray(matrix.sum(axis=0)).ravel()
    hits = matrix.T @ positive.astype(np.float64)
    for label, name in enumerate(names):
        size = positive[:, label].sum()
        decides = (hits[:, label] >= 0.98 * size) & (hits[:, label] >= 0.98 * totals)
        if size >= MIN_SHORTCUT and size < len(words) and decides.any():
            chosen = np.flatnonzero(positive[:, label])[:1]
            yield Finding(
                "shortcut",
                f"label {name}: one word is in nearly all of its {size:,} texts and in no others; "
                "was the label made from it? It is in the first",
                tuple((rows.places[row],) for row in chosen),
            )
