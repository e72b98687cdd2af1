"""The training, validation and test rows of an experiment: from its files, a `split` column, or by
chance."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jaxclf.errors import ConfigError, DataError, printable
from jaxclf.experiment.config import Data
from jaxclf.files.json_file import read_json, write_json
from jaxclf.text.folds import assign_parts
from jaxclf.text.reader import read
from jaxclf.text.splits import connected_groups, hash_text, select, stratified_share, subsample
from jaxclf.types import Examples

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
SPLIT_FILE = "split.json"  # of a run: split -> {id: hash of the text}
MIN_JUDGED = 5  # positives of a label in val, to choose its threshold, and in test, to score it


def read_data(data: Data) -> dict[str, Examples]:
    """Read train, val and test with the same order of labels.

    A `split` column of the training file comes first. A split that it does not name is read from
    its own file. A split without a file is taken from the training rows: those that `data.split`
    lists, or else a share by chance, stratified over labels, with equal texts and groups together.

    Raises ConfigError for an empty `data.train`, and DataError for an invalid file.
    """
    if not data.train:
        raise ConfigError("data.train is empty; name your file, as in --data mine.csv")
    rows = read(data.train, data.labels, **data.columns)
    splits = {name: _rows_of(rows, name) for name in SPLITS if name in rows.splits}
    splits = splits or {"train": rows}
    if "train" not in splits:
        raise DataError(f"{data.train}: the split column names no train rows")
    for name in SPLITS[1:]:
        file = getattr(data, name)
        if name in splits and file not in ("", data.train):
            log.warning(
                "data.%s=%s is not read: the split column of %s has %s rows",
                *(name, file, data.train, name),
            )
        if name not in splits and file:
            splits[name] = _rows_of(read(file, rows.names, **data.columns), name)
    if missing := [name for name in SPLITS[1:] if name not in splits]:
        splits |= _take(splits["train"], data, missing)
    return {name: splits[name] for name in SPLITS}


def used_training_rows(train: Examples, data: Data) -> Examples:
    """The training rows that `data.max_train_examples` and `data.train_share` leave."""
    return stratified_share(subsample(train, data.max_train_examples), data.train_share)


def _rows_of(examples: Examples, split: str) -> Examples:
    """The rows that the split column names; all where there is no such column."""
    if not examples.splits:
        return examples
    chosen = np.flatnonzero(np.array(examples.splits) == split)
    if not len(chosen):
        raise DataError(f"{examples.file}: the split column names no {split} rows")
    return select(examples, chosen, f"{len(chosen):,} rows by its split column")


def _take(examples: Examples, data: Data, names: Sequence[str]) -> dict[str, Examples]:
    """Divide the training rows into train and the named splits."""
    parts = ("train", *names)
    shares = [getattr(data, f"{name}_share") for name in names]
    if sum(shares) >= 1:
        raise ConfigError("data.val_share and data.test_share must leave rows for training")
    shares = [1 - sum(shares), *shares]
    if data.split:
        assigned, rule = _assign_listed(examples, Path(data.split), parts), f"as in {data.split}"
    else:
        labels = np.where(examples.label_mask > 0, examples.labels, np.nan)
        groups = connected_groups(examples)
        assigned = assign_parts(labels, groups, shares, data.split_seed)
        together = "equal texts and groups" if examples.groups else "equal texts"
        rule = (
            f"{'/'.join(f'{100 * share:g}' for share in shares)} %, stratified over labels, "
            f"{together} together, seed {data.split_seed}"
        )
    taken = {}
    for part, name in enumerate(parts):
        chosen = np.flatnonzero(assigned == part)
        taken[name] = select(examples, chosen, f"{len(chosen):,} of its rows are taken")
    counts = ", ".join(f"{len(taken[name].ids):,} {name}" for name in parts)
    log.info("split of %s: %s (%s)", examples.file, counts, rule)
    return taken


def _assign_listed(
    examples: Examples, path: Path, parts: Sequence[str]
) -> Int[np.ndarray, " examples"]:
    """The part of each row as a split.json lists its text. A text that is not listed is a train
    row, unless one of its group or an equal text is listed."""
    listed = read_json(path)
    if not isinstance(listed, Mapping) or not all(isinstance(listed.get(p), dict) for p in parts):
        raise DataError(f"{path}: must list {', '.join(parts)}, as {SPLIT_FILE} of a run does")
    part_of = {digest: part for part, name in enumerate(parts) for digest in listed[name].values()}
    by_text = np.array([part_of.get(hash_text(text).hex(), 0) for text in examples.texts])
    groups = connected_groups(examples)
    by_group = np.zeros(groups.max(initial=-1) + 1, np.int64)
    np.maximum.at(by_group, groups, by_text)
    return by_group[groups]


def write_split(run: Path, splits: Mapping[str, Examples]) -> None:
    """Write split.json, which `data.split` reads."""
    listed = {
        name: {id: hash_text(text).hex() for id, text in zip(part.ids, part.texts, strict=True)}
        for name, part in splits.items()
    }
    write_json(run / SPLIT_FILE, listed)


def count_positives(examples: Examples) -> Int[np.ndarray, " classes"]:
    """The positives of each label."""
    return ((examples.labels >= 0.5) & (examples.label_mask > 0)).sum(axis=0)


def describe_unjudged(splits: Mapping[str, Examples]) -> str:
    """A sentence on the labels with too few positives in val or test; empty if there are none."""
    counts = {name: count_positives(splits[name]) for name in SPLITS[1:]}
    few = [
        f"{printable(label)} ({val} val, {test} test)"
        for label, val, test in zip(splits["train"].names, *counts.values(), strict=True)
        if min(val, test) < MIN_JUDGED
    ]
    if not few:
        return ""
    return (
        f"note: labels with fewer than {MIN_JUDGED} positives in val or test: {', '.join(few)}; "
        "their thresholds and scores cannot be judged"
    )
