"""An experiment's texts: the splits it reads and the batches of its epochs."""

import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxclf.decisions.predictions import HELD_OUT, load_predictions, with_unknown
from jaxclf.errors import DataError, printable
from jaxclf.experiment.config import Data, Spec, Train
from jaxclf.text.augment import AUGMENTERS
from jaxclf.text.data_splits import describe_unjudged, read_data, used_training_rows
from jaxclf.text.folds import assign_grouped_folds
from jaxclf.text.packing import Placement, fill, plan, training_shape
from jaxclf.text.sampling import SAMPLERS, EpochOrder
from jaxclf.text.splits import connected_groups, select, shared_texts
from jaxclf.types import Batch, Examples, Tokens

log = logging.getLogger(__name__)

AUGMENTATION = 1  # separates the random draws of an augmented text from those of an epoch's order


class Epochs(NamedTuple):
    """The batches of a run, as a pure function."""

    sizes: list[int]  # batches of each epoch
    batches: Callable[[int, int], Iterator[Batch]]  # (epoch, index of the first batch) -> batches


def read_splits(data: Data) -> dict[str, Examples]:
    """Read train, val and test with the same order of labels; with folds also `held_out`.

    Raises DataError for an invalid file and for a split without any label.
    """
    splits = read_data(data)
    splits["train"] = used_training_rows(splits["train"], data)
    if data.folds:
        splits["train"], splits[HELD_OUT] = hold_out(splits["train"], data.folds, data.fold)
    for name, examples in splits.items():
        log.info("%-5s %s", name, examples.source)
        if not examples.labels.any():
            raise DataError(
                f"{examples.file}: no example of {name} has a label; nothing can be learned or "
                "measured"
            )
    log.info("labels, in this order: %s", ", ".join(map(printable, splits["train"].names)))
    if sentence := describe_unjudged(splits):
        log.info(sentence)
    for first, second in itertools.combinations(("train", "val", "test"), 2):
        if count := shared_texts(splits[first], splits[second]):
            log.warning(
                "%d of %d %s texts also occur in %s; scores on %s are optimistically biased",
                *(count, len(splits[second].ids), second, first, second),
            )
    return splits


def hold_out(examples: Examples, folds: int, fold: int) -> tuple[Examples, Examples]:
    """Separate one fold from the others.

    Folds do not depend on the seed. Examples of one group or with the same text share a fold.
    """
    labels = with_unknown(examples.labels, examples.label_mask)
    is_held_out = assign_grouped_folds(labels, connected_groups(examples), folds) == fold
    return (
        select(examples, np.flatnonzero(~is_held_out), f"all but fold {fold} of {folds}"),
        select(examples, np.flatnonzero(is_held_out), f"fold {fold} of {folds}"),
    )


def make_epochs(
    examples: Examples,
    tokenize: Callable[[tuple[str, ...]], Tokens],
    data: Data,
    sampler: Spec,
    augment: Spec,
    train: Train,
    accumulation_steps: int,
    seed: int,
) -> Epochs:
    """Make the batches of every epoch, a pure function of (seed, epoch).

    Empty batches are appended to an epoch whose size `accumulation_steps` does not divide, so that
    it ends with an update.
    """
    labels, label_mask = make_targets(data, examples)
    original_tokens = tokenize(examples.texts)
    is_augmented = augment.name != "none"
    # An augmented text may have more tokens than the original.
    min_rows = data.max_windows if is_augmented else 1
    shape = training_shape(original_tokens, train.batch_size, data.max_length, min_rows)

    @functools.lru_cache(maxsize=1)
    def tokens(epoch: int) -> Tokens:
        if not is_augmented:
            return original_tokens
        return tokenize(augment_texts(augment, examples.texts, seed, epoch))

    @functools.lru_cache(maxsize=1)
    def epoch_order(epoch: int) -> EpochOrder:
        rng = np.random.default_rng([seed, epoch])
        return SAMPLERS[sampler.name](examples.labels, rng, **sampler.options)

    def placements(epoch: int) -> list[Placement | None]:
        order = epoch_order(epoch).order.tolist()
        planned: list[Placement | None] = list(plan(tokens(epoch), order, shape))
        return planned + [None] * (-len(planned) % accumulation_steps)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        weights = epoch_order(epoch).weights
        for placement in placements(epoch)[first:]:
            yield fill(tokens(epoch), labels, label_mask, placement, shape, weights)

    return Epochs([len(placements(epoch)) for epoch in range(train.epochs)], batches)


def make_targets(data: Data, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """The (labels, label_mask) to learn: the examples' own or mixed with soft labels.

    Soft labels are defined for every label. Raises DataError if they lack a row or a label, or
    have a value outside [0, 1].
    """
    if not data.soft_labels:
        return examples.labels, examples.label_mask
    path, weight = Path(data.soft_labels), data.soft_label_weight
    soft_labels = load_predictions(path)
    row_of = {str(example_id): row for row, example_id in enumerate(soft_labels.ids)}
    missing = [example_id for example_id in examples.ids if example_id not in row_of]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} training rows are missing, first '{printable(missing[0])}'"
        )
    if soft_labels.probs.shape[1] != len(examples.names):
        raise DataError(
            f"{path}: {soft_labels.probs.shape[1]} labels; the data have {len(examples.names)}"
        )
    probs = soft_labels.probs[[row_of[example_id] for example_id in examples.ids]]
    wrong = np.argwhere(~((probs >= 0) & (probs <= 1)))  # NaN too
    if len(wrong):
        row, column = wrong[0]
        example_id, label = examples.ids[row], printable(examples.names[column])
        raise DataError(
            f"{path}: row {row_of[example_id] + 1}, id '{printable(example_id)}', label '{label}': "
            f"{probs[row, column]} is not in [0, 1] ({len(wrong):,} such values); write the soft "
            "labels again"
        )
    mixed = weight * probs + (1 - weight) * examples.labels
    targets = np.where(examples.label_mask > 0, mixed, probs).astype(np.float32)
    return targets, np.ones_like(examples.label_mask)


def augment_texts(augment: Spec, texts: tuple[str, ...], seed: int, epoch: int) -> tuple[str, ...]:
    """Augment each text, as a pure function of (seed, epoch, row)."""
    augmenter = functools.partial(AUGMENTERS[augment.name], **augment.options)
    return tuple(
        augmenter(text, np.random.default_rng([seed, epoch, row, AUGMENTATION]))
        for row, text in enumerate(texts)
    )
