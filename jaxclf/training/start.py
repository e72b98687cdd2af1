"""What the parameters of a run start from: a pretrained encoder, or the model of another run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override
from jaxclf.model.pretrained import resolve
from jaxclf.model.storage.saved_model import SavedModel, load_model, open_encoder, pretrained_params

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """folder: of the encoder. model: that `train.init_from` names."""

    folder: Path
    hf_config: dict[str, Any]
    tokenizer: Tokenizer
    model: SavedModel | None


def open_start(experiment: Experiment) -> tuple[Start, Experiment]:
    """Open the encoder's folder. Returns the experiment with the commit of the encoder.

    Raises ConfigError if the model that `train.init_from` names has another encoder.
    """
    name, path = experiment.encoder.name, experiment.train.init_from
    if not path:
        resolved = resolve(name, experiment.encoder.revision)
        folder, revision, model = resolved.folder, resolved.revision, None
    else:
        folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
        model = load_model(folder)
        encoder = model.experiment.encoder
        revision = encoder.revision
        if encoder.name != name:
            raise ConfigError(
                f"train.init_from={path}: its encoder is {encoder.name}, not {name}; "
                f"give encoder.name={encoder.name}"
            )
    start = Start(folder, *open_encoder(folder), model)
    return start, override(experiment, {"encoder.revision": revision})


def initial_params(
    start: Start, experiment: Experiment, names: tuple[str, ...], shapes: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters that the start holds: of a model all of them if labels, pool and head are the
    same, else those of the encoder."""
    if start.model is None:
        return pretrained_params(start.folder, shapes)
    before, path = start.model, experiment.train.init_from
    compared = {
        "labels": (before.labels, names),
        "pool": (before.experiment.pool, experiment.pool),
        "head": (before.experiment.head, experiment.head),
    }
    changed = [part for part, (old, new) in compared.items() if old != new]
    if changed:
        log.info("start: the encoder of %s; another %s", path, ", ".join(changed))
        return {"encoder": before.params["encoder"]}
    log.info("start: encoder, pool and head of %s", path)
    return before.params
