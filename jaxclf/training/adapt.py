"""Choose what an experiment leaves to the data: row length, batch size, number of epochs."""

import logging

import numpy as np
from tokenizers import Tokenizer

from jaxclf.errors import printable
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override
from jaxclf.text.splits import subsample
from jaxclf.text.tokenizer.tokenize import lengths, tokenize
from jaxclf.types import Examples, Windows

log = logging.getLogger(__name__)

ROW_LENGTHS = (64, 128, 256, 512)  # longer rows cost more for each token
FITTING = 0.95  # share of the texts that fit in one row
MEASURED_TEXTS = 5000

LARGE = 2000  # training texts from which a batch of 32 gives enough updates
# (training texts, epochs): with fewer texts than the first number, so many epochs.
EPOCHS = ((1000, 6), (5000, 5), (20_000, 4))
LAST_EPOCHS = 3

FEW_POSITIVES = 10


def adapt(
    experiment: Experiment, train: Examples, tokenizer: Tokenizer, max_positions: int
) -> Experiment:
    """Replace 0 in `data.max_length`, `train.batch_size` and `train.epochs`; says each choice.

    max_positions: most tokens that the encoder reads at once.
    """
    count, changes = len(train.ids), {}
    if not experiment.data.max_length:
        length, reason = choose_row_length(experiment, train, tokenizer, max_positions)
        changes["data.max_length"] = length
        log.info("chosen: data.max_length=%d: %s", length, reason)
    if not experiment.train.batch_size:
        changes["train.batch_size"] = 32 if count >= LARGE else 16
        log.info("chosen: train.batch_size=%d: %d texts", changes["train.batch_size"], count)
    if not experiment.train.epochs:
        fitting = (epochs for rows, epochs in EPOCHS if count < rows)
        changes["train.epochs"] = next(fitting, LAST_EPOCHS)
        log.info("chosen: train.epochs=%d: %d texts", changes["train.epochs"], count)
    return override(experiment, changes)


def choose_row_length(
    experiment: Experiment, train: Examples, tokenizer: Tokenizer, max_positions: int
) -> tuple[int, str]:
    """(tokens in a row, the reason): the shortest row that holds nearly all training texts."""
    texts = subsample(train, MEASURED_TEXTS).texts
    choices = [length for length in ROW_LENGTHS if length <= max_positions] or [max_positions]
    windows = Windows(choices[-1], experiment.data.max_windows, experiment.data.window_overlap)
    sizes = lengths(tokenize(tokenizer, texts, windows))
    shares = [float(np.mean(sizes <= length)) for length in choices]
    length, share = next(
        (pair for pair in zip(choices, shares, strict=True) if pair[1] >= FITTING),
        (choices[-1], shares[-1]),
    )
    return length, f"{share:.1%} of the texts fit in one row"


def describe_rare_labels(train: Examples) -> str:
    """A sentence on the labels with few positives; empty where there are none."""
    positives = (train.labels * train.label_mask).sum(axis=0)
    pairs = zip(train.names, positives, strict=True)
    rare = [f"{printable(name)} ({count:.0f})" for name, count in pairs if count < FEW_POSITIVES]
    if not rare:
        return ""
    return (
        f"labels with fewer than {FEW_POSITIVES} training positives: {', '.join(rare)}; expect "
        "little of them until more of their texts are labeled"
    )
