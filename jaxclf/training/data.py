"""An experiment's texts: the splits it reads, and the batches of its epochs."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxclf.decisions.folds import grouped_folds
from jaxclf.decisions.predictions import load_predictions, with_unknown
from jaxclf.errors import DataError
from jaxclf.experiment.config import Experiment
from jaxclf.text.augment import AUGMENTERS
from jaxclf.text.packing import Placement, fill, plan, training_shape
from jaxclf.text.reader import read
from jaxclf.text.sampling import SAMPLERS, EpochOrder
from jaxclf.text.splits import connected_groups, select, shared_texts, subsample
from jaxclf.types import Batch, Examples, Tokens

HELD_OUT = "held_out"

# What tells the draws of a text's variation from those of an epoch's order.
VARIATION = 1


class Epochs(NamedTuple):
    """The batches of a run as a pure function: epoch -> its batches, from the one of an index
    on."""

    sizes: list[int]  # batches of each epoch
    batches: Callable[[int, int], Iterator[Batch]]


def read_splits(experiment: Experiment, say: Callable[[str], None]) -> dict[str, Examples]:
    """The splits under one label order, with what is worth saying of them said. With folds, one of
    them is a split of its own.

    Raises DataError for a bad file and for a split without a label.
    """
    data = experiment.data
    first = read(data.train, data.labels)
    splits = {
        "train": subsample(first, data.max_train_examples),
        "val": read(data.val, first.names),
        "test": read(data.test, first.names),
    }
    if data.folds:
        splits["train"], splits[HELD_OUT] = hold_out(splits["train"], data.folds, data.fold)
    for name, split in splits.items():
        say(f"{name:<5} {split.source}")
        if not split.labels.any():
            raise DataError(
                f"{file_of(experiment, name)}: no example has a label; nothing can be learned or "
                "measured"
            )
    say(f"labels, in this order: {', '.join(first.names)}")
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = shared_texts(splits[one], splits[other])
        if shared:
            say(
                f"note: {shared} of {len(splits[other].ids)} {other} texts stand in {one} too; "
                "scores flatter"
            )
    return splits


def file_of(experiment: Experiment, split: str) -> str:
    """The file that a split comes from."""
    return getattr(experiment.data, "train" if split == HELD_OUT else split)


def hold_out(examples: Examples, folds: int, fold: int) -> tuple[Examples, Examples]:
    """All but one fold, and that fold. Folds are the same for every seed; examples of one group or
    one text share one."""
    labels = with_unknown(examples.labels, examples.label_mask)
    within = grouped_folds(labels, connected_groups(examples), folds) == fold
    return (
        select(examples, np.flatnonzero(~within), f"all but fold {fold} of {folds}"),
        select(examples, np.flatnonzero(within), f"fold {fold} of {folds}"),
    )


def make_epochs(
    experiment: Experiment, examples: Examples, tokenize: Callable[[tuple[str, ...]], Tokens]
) -> Epochs:
    """Every epoch's batches, a pure function of (seed, epoch); each epoch ends with a whole
    update."""
    data, train = experiment.data, experiment.train
    sampler = SAMPLERS[experiment.sampler.name]
    accumulate = experiment.optim.gradient_accumulation_steps
    labels, known = targets(experiment, examples)
    plain = tokenize(examples.texts)
    varied = experiment.augment.name != "none"
    # A variation may have more tokens than its text.
    shape = training_shape(
        plain, train.batch_size, data.max_length, data.max_windows if varied else 1
    )

    @functools.lru_cache(maxsize=1)
    def tokens(epoch: int) -> Tokens:
        return tokenize(vary(experiment, examples.texts, epoch)) if varied else plain

    @functools.lru_cache(maxsize=1)
    def drawn(epoch: int) -> EpochOrder:
        rng = np.random.default_rng([experiment.seed, epoch])
        return sampler(examples.labels, rng, **experiment.sampler.options)

    def placements(epoch: int) -> list[Placement | None]:
        order = drawn(epoch).order.tolist()
        placed: list[Placement | None] = list(plan(tokens(epoch), order, shape))
        return placed + [None] * (-len(placed) % accumulate)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        weights = drawn(epoch).weights
        for placement in placements(epoch)[first:]:
            yield fill(tokens(epoch), labels, known, placement, shape, weights)

    return Epochs([len(placements(epoch)) for epoch in range(train.epochs)], batches)


def targets(experiment: Experiment, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """(labels, known) that are learned: the examples' own, or a teacher's probabilities, in which
    every label is known. Raises DataError where the teacher lacks a row or a label."""
    if not experiment.data.soft_labels:
        return examples.labels, examples.label_mask
    path, share = Path(experiment.data.soft_labels), experiment.data.soft_label_weight
    teacher = load_predictions(path)
    row_of = {str(name): row for row, name in enumerate(teacher.ids)}
    if missing := [name for name in examples.ids if name not in row_of]:
        raise DataError(f"{path}: lacks {len(missing)} training rows, {missing[0]!r} first")
    if teacher.probs.shape[1] != len(examples.names):
        raise DataError(f"{path}: {teacher.probs.shape[1]} labels for {len(examples.names)}")
    probs = teacher.probs[[row_of[name] for name in examples.ids]]
    mixed = share * probs + (1 - share) * examples.labels
    soft = np.where(examples.label_mask > 0, mixed, probs).astype(np.float32)
    return soft, np.ones_like(examples.label_mask)


def vary(experiment: Experiment, texts: tuple[str, ...], epoch: int) -> tuple[str, ...]:
    """An epoch's variation of each text, a pure function of (seed, epoch, row)."""
    augmenter = functools.partial(AUGMENTERS[experiment.augment.name], **experiment.augment.options)
    return tuple(
        augmenter(text, np.random.default_rng([experiment.seed, epoch, row, VARIATION]))
        for row, text in enumerate(texts)
    )
