"""Everything a run needs before its first update. Reads files and builds the network; writes
nothing."""

import difflib
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.traverse_util import unflatten_dict
from tokenizers import Tokenizer

from jaxclf.decisions.provenance import Provenance, make_provenance, with_earlier
from jaxclf.experiment.config import Data, Experiment
from jaxclf.experiment.validation import check_labels
from jaxclf.files.atomic import sha256
from jaxclf.model.classifier import build, family_of
from jaxclf.model.pretrained import encoder_files
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.check.run import find_first
from jaxclf.text.splits import describe, hash_texts
from jaxclf.text.tokenizer.tokenize import describe_cut, is_cut, tokenize
from jaxclf.training.adapt import adapt, describe_rare_labels
from jaxclf.training.data import Epochs, make_epochs, read_splits
from jaxclf.training.param_groups import check_groups, init_bias_from_prior, without_last_layers
from jaxclf.training.start import Start, initial_params, open_start
from jaxclf.types import Batch, Examples, LabelStats, Tokens

log = logging.getLogger(__name__)


class RunSetup(NamedTuple):
    experiment: Experiment  # with the encoder's commit
    splits: dict[str, Examples]
    tokens: dict[str, Tokens]  # of every split but train
    epochs: Epochs
    first_batch: Batch
    stats: LabelStats
    hf_config: dict[str, Any]
    tokenizer: Tokenizer
    init: Callable[[jax.Array, Batch], dict]
    apply: Callable[..., jax.Array]
    pretrained: dict[str, Any]  # the parameters that are not random
    provenance: Provenance

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in order."""
        return self.splits["train"].names


def make_setup(experiment: Experiment) -> RunSetup:
    """Read the data and the encoder, and check that they fit the experiment. Raises JaxclfError."""
    splits = read_splits(experiment.data)
    train = splits["train"]
    names = train.names
    start, experiment = open_start(experiment)
    check_labels(experiment, names)
    max_positions = family_of(start.hf_config).from_hf(start.hf_config).max_positions
    experiment = adapt(experiment, train, start.tokenizer, max_positions)
    if sentence := describe_rare_labels(train):
        log.info(sentence)
    _describe_texts(splits, start.tokenizer, experiment.data)
    init, apply = build(experiment, start.hf_config, len(names))
    data, optim = experiment.data, experiment.optim
    _check_label_descriptions(data.label_descriptions, names)
    tokenize_texts = functools.partial(tokenize, start.tokenizer, windows=data.windows)
    epochs = make_epochs(
        train,
        tokenize_texts,
        data,
        experiment.sampler,
        experiment.augment,
        experiment.train,
        optim.gradient_accumulation_steps,
        experiment.seed,
    )
    first_batch = next(epochs.batches(0, 0))
    shapes = jax.eval_shape(init, jax.random.key(0), first_batch)
    check_groups(optim, shapes)
    pretrained = initial_params(start, experiment, names, shapes)
    return RunSetup(
        experiment,
        splits,
        {name: tokenize_texts(split.texts) for name, split in splits.items() if name != "train"},
        epochs,
        first_batch,
        LabelStats(train.labels.sum(axis=0), train.label_mask.sum(axis=0)),
        start.hf_config,
        start.tokenizer,
        init,
        apply,
        without_last_layers(pretrained, optim.reinit_layers),
        _make_provenance(experiment, splits, start),
    )


def _describe_texts(splits: Mapping[str, Examples], tokenizer: Tokenizer, data: Data) -> None:
    """Say how many texts are cut, and the most important findings of a check."""
    texts = [text for part in splits.values() for text in part.texts]
    cut = int(is_cut(tokenizer, texts, data.windows).sum())
    if sentence := describe_cut(cut, len(texts), data.windows):
        log.info("note: %s; data.max_windows=… reads more", sentence)
    for finding in find_first(splits):
        log.info("note: %s (all findings: jaxclf check)", finding)


def _make_provenance(
    experiment: Experiment, splits: Mapping[str, Examples], start: Start
) -> Provenance:
    soft_labels, model = experiment.data.soft_labels, start.model
    provenance = make_provenance(
        {name: describe(part) for name, part in splits.items()},
        {
            "average": experiment.regularization.weight_averaging.name,
            "calibration": experiment.calibration.name,
            "threshold": experiment.threshold.name,
        },
        {
            "encoder": encoder_files(start.folder),
            "data.soft_labels": {soft_labels: sha256(Path(soft_labels))} if soft_labels else {},
            "train.init_from": {experiment.train.init_from: model.digest} if model else {},
        },
        {name: hash_texts(part.texts) for name, part in splits.items()},
    )
    return with_earlier(provenance, model.provenance) if model else provenance


def _check_label_descriptions(descriptions: Mapping[str, str], names: tuple[str, ...]) -> None:
    """Warn of a described label that is probably a misspelled label of the data.

    The descriptions may be those of another data set, so an unknown label alone is no mistake.
    """
    undescribed = [name for name in names if name not in descriptions]
    for label in sorted(descriptions.keys() - set(names)):
        if matches := difflib.get_close_matches(label, undescribed, 1, cutoff=0.8):
            log.warning(
                "data.label_descriptions: unknown label %r; did you mean %r?", label, matches[0]
            )


def init_params(setup: RunSetup) -> dict[str, Any]:
    """The initial parameters: those that a model or the encoder's folder has, the others random by
    the seed."""
    optim, seed = setup.experiment.optim, setup.experiment.seed
    pretrained = flatten_params(setup.pretrained)

    def init_missing(key: jax.Array, batch: Batch) -> dict[tuple[str, ...], jax.Array]:
        leaves = flatten_params(setup.init(key, batch))
        return {path: leaf for path, leaf in leaves.items() if path not in pretrained}

    leaves = {**jax.jit(init_missing)(jax.random.key(seed), setup.first_batch), **pretrained}
    params = jax.tree.map(jax.numpy.asarray, unflatten_dict(leaves))
    has_trained_bias = ("head", "classifier", "bias") in pretrained
    if has_trained_bias or not optim.init_bias_from_prior:
        return params
    return init_bias_from_prior(params, setup.stats)
