"""What a run needs before its first update: its files read, its network built, nothing written."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax.traverse_util import unflatten_dict
from tokenizers import Tokenizer

from jaxclf.decisions.provenance import make_provenance
from jaxclf.experiment.config import Experiment, override
from jaxclf.experiment.validation import check_labels
from jaxclf.model.classifier import build
from jaxclf.model.pretrained import resolve
from jaxclf.model.storage.saved_model import open_encoder, pretrained_params
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.splits import describe
from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.training.data import Epochs, file_of, make_epochs, read_splits
from jaxclf.training.param_groups import check_groups, init_bias_from_prior, without_last_layers
from jaxclf.types import Batch, Examples, LabelStats, Tokens


class RunSetup(NamedTuple):
    experiment: Experiment  # with the encoder's commit
    splits: dict[str, Examples]
    tokens: dict[str, Tokens]  # of every split but train
    epochs: Epochs
    example: Batch  # the first
    stats: LabelStats
    hf_config: dict[str, Any]
    tokenizer: Tokenizer
    init: Callable[[jax.Array, Batch], dict]
    apply: Callable[..., jax.Array]
    pretrained: dict[str, Any]  # the parameters that the encoder's folder holds
    provenance: dict[str, Any]  # of splits: what each of them fits

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in order."""
        return self.splits["train"].names


def make_setup(experiment: Experiment, say: Callable[[str], None]) -> RunSetup:
    """Read data and encoder, find them to fit the experiment and each other. Raises JaxclfError."""
    splits = read_splits(experiment, say)
    names = splits["train"].names
    resolved = resolve(experiment.encoder.name, experiment.encoder.revision)
    experiment = override(experiment, {"encoder.revision": resolved.revision})
    hf_config, tokenizer = open_encoder(resolved.folder)
    init, apply = build(experiment, hf_config, len(names))
    check_labels(experiment, names)
    data = experiment.data
    if surplus := sorted(data.label_descriptions.keys() - set(names)):
        say(
            f"note: data.label_descriptions speaks of {', '.join(surplus)}, which the data do not have"
        )
    cut = functools.partial(
        tokenize,
        tokenizer,
        windows=data.windows,
    )
    tokens = {name: cut(split.texts) for name, split in splits.items() if name != "train"}
    epochs = make_epochs(experiment, splits["train"], cut)
    example = next(epochs.batches(0, 0))
    shapes = jax.eval_shape(init, jax.random.key(0), example)
    check_groups(experiment.optim, shapes)
    pretrained = pretrained_params(resolved.folder, shapes)
    labels, known = splits["train"].labels, splits["train"].label_mask
    return RunSetup(
        experiment,
        splits,
        tokens,
        epochs,
        example,
        LabelStats(labels.sum(axis=0), known.sum(axis=0)),
        hf_config,
        tokenizer,
        init,
        apply,
        without_last_layers(pretrained, experiment.optim.reinit_layers),
        make_provenance(
            {name: describe(split, file_of(experiment, name)) for name, split in splits.items()},
            {
                "average": experiment.regularization.weight_averaging.name,
                "calibration": experiment.calibration.name,
                "threshold": experiment.threshold.name,
            },
        ),
    )


def init_params(prepared: RunSetup) -> dict[str, Any]:
    """The parameters a run begins with: what the encoder's folder holds, the rest random by the
    seed."""
    optim, seed = prepared.experiment.optim, prepared.experiment.seed
    given = flatten_params(prepared.pretrained)

    def fresh(key: jax.Array, batch: Batch) -> dict[tuple[str, ...], jax.Array]:
        made = flatten_params(prepared.init(key, batch))
        return {path: leaf for path, leaf in made.items() if path not in given}

    made = {**jax.jit(fresh)(jax.random.key(seed), prepared.example), **given}
    params = jax.tree.map(jax.numpy.asarray, unflatten_dict(made))
    return init_bias_from_prior(params, prepared.stats) if optim.init_bias_from_prior else params
