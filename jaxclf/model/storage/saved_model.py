"""Read and write a trained model's folder, in Hugging Face's layout.

config.json tokenizer.json    of the encoder
model.safetensors             the encoder, under the names of its family
head.safetensors              pool and head, under our paths
row_hashes.npz                of the texts of the splits
jaxclf.json                   experiment, labels in order, thresholds, calibration, provenance; the
                              SHA-256 of all files above, and the model's digest
README.md                     the model card
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy
from tokenizers import Tokenizer

from jaxclf.decisions.provenance import Provenance
from jaxclf.decisions.row_hashes import ROW_HASHES, save_row_hashes
from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import from_dict, to_dict
from jaxclf.experiment.validation import check
from jaxclf.files.atomic import write_folder
from jaxclf.files.digest import DIGEST
from jaxclf.files.json_file import write_json
from jaxclf.files.untrusted import has_entry, printable
from jaxclf.model.classifier import family_of, param_shapes
from jaxclf.model.storage.encoder_config import CONFIG, read_hf_config
from jaxclf.model.storage.metadata import read_calibration, read_labels, read_provenance
from jaxclf.model.storage.sealing import FILES, read_sealed, write_sealed
from jaxclf.model.storage.tensor_files import SINGLE, open_safetensors
from jaxclf.model.storage.weights import (
    flatten_params,
    match_tensors,
    open_network,
    raise_if_any,
    read_all,
    read_params,
    to_tensors,
)
from jaxclf.text.tokenizer.tokenize import TOKENIZER, check_copy, largest_id, load_tokenizer

HEAD, META = "head.safetensors", "jaxclf.json"
FORMAT = 4


class SavedModel(NamedTuple):
    """The content of a model folder.

    thresholds, calibration, provenance: plain JSON values, as `decisions` makes them.
    digest: SHA-256 of the folder's content; empty before it is saved.
    """

    experiment: Experiment
    hf_config: dict[str, Any]
    labels: tuple[str, ...]
    thresholds: dict[str, dict[str, Any]]
    calibration: dict[str, Any]
    provenance: Provenance
    params: dict[str, Any]
    digest: str = ""


def _read_config(folder: Path) -> tuple[dict[str, Any], Any]:
    """config.json, and the values that the encoder is built from.

    Raises DataError, also if the weights end before the config's last layer: tracing a network of
    many layers is slow.
    """
    hf_config = read_hf_config(folder)
    family = family_of(hf_config)
    config = family.from_hf(hf_config)
    last = str(config.num_hidden_layers - 1)
    prefixes = tuple(
        name.replace("{i}", last) + "." for name in family.names.values() if "{i}" in name
    )
    if not any(name.startswith(prefixes) for name in open_network(folder, family)[0]):
        raise DataError(f"{folder}: the weights do not fit the encoder: missing {prefixes[0]}*")
    return hf_config, config


def open_encoder(folder: Path) -> tuple[dict[str, Any], Tokenizer]:
    """Read the config and the tokenizer of an encoder's folder.

    Raises DataError if they do not fit each other or the weights.
    """
    hf_config, config = _read_config(folder)
    tokenizer = load_tokenizer(folder)
    last, largest = config.vocab_size - 1, largest_id(tokenizer)
    if largest > last:
        raise DataError(
            f"{folder}: the tokenizer has ids up to {largest}, the encoder's table ends at {last}; "
            "copy both from the same model, or save the encoder after resize_token_embeddings"
        )
    check_copy(tokenizer, folder)
    return hf_config, tokenizer


def pretrained_params(folder: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Read the parameters that an encoder's folder holds: all of the encoder, and of the head the
    pretrained layers."""
    family = family_of(read_hf_config(folder))
    return read_params(folder, shapes, family, is_complete=False)


def save_model(
    folder: Path,
    model: SavedModel,
    tokenizer: Tokenizer,
    card: str,
    as_transformers: bool = False,
) -> None:
    """Write a model folder atomically; replaces an older one.

    as_transformers: write encoder and head to one file, under the names of the family's classifier
        in transformers. Only for a model that `is_transformers_classifier`. In any other folder
        that class would start with a random head: an empty tensor makes it refuse the folder.
    """
    params = jax.tree.map(np.asarray, model.params)
    family = family_of(model.hf_config)
    head_params = {key: value for key, value in params.items() if key != "encoder"}
    tensors = to_tensors({"encoder": params["encoder"]}, family.names)
    head = {"/".join(path): leaf for path, leaf in flatten_params(head_params).items()}
    config = model.hf_config | {"dtype": "float32"}  # the encoder's file may have had another
    config.pop("torch_dtype", None)
    if as_transformers:
        tensors = {family.prefix + name: tensor for name, tensor in tensors.items()}
        tensors |= to_tensors(head_params, family.names)
    else:
        tensors[family.names["head/classifier"] + ".weight"] = np.zeros(0, np.float32)
        # A pipeline that is refused tries the classes that `architectures` names.
        config.pop("architectures", None)
    meta = {
        "format": FORMAT,
        "experiment": to_dict(model.experiment),
        "labels": list(model.labels),
        "thresholds": model.thresholds,
        "calibration": model.calibration,
        "provenance": model.provenance.record,
    }
    if model.digest:
        meta["exported_from"] = model.digest
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    with write_folder(folder, size) as part:
        tokenizer.save(str(part / TOKENIZER))
        mode = (part / TOKENIZER).stat().st_mode
        safetensors.numpy.save_file(tensors, part / SINGLE, metadata={"format": "pt"})
        (part / SINGLE).chmod(mode)  # safetensors writes for the owner alone
        if not as_transformers:
            safetensors.numpy.save_file(head, part / HEAD)
            (part / HEAD).chmod(mode)
        write_json(part / CONFIG, config)
        if model.provenance.row_hashes:
            save_row_hashes(part / ROW_HASHES, model.provenance.row_hashes)
        write_sealed(part, META, meta, card)


def is_transformers_classifier(experiment: Experiment) -> bool:
    """Whether transformers has the same classifier: first token, the family's own head."""
    return experiment.pool.name == "cls" and experiment.head.name == "native"


def load_model(folder: Path, verify: bool = True) -> SavedModel:
    """Read a model folder.

    verify: whether to check the SHA-256 of all files.
    Raises DataError for a missing or damaged file, another version's folder, and tensors that do
    not fit.
    """
    file = folder / META
    if not has_entry(folder, META):
        raise DataError(f"{file}: no such file; give the folder of a finished run or its model/")
    meta = read_sealed(folder, META, FORMAT, verify)
    if missing := {CONFIG, TOKENIZER, SINGLE} - meta[FILES].keys():
        raise DataError(f"{file}: has no SHA-256 of {min(missing)}")
    labels = read_labels(meta, file)
    hf_config, config = _read_config(folder)
    experiment = _read_experiment(meta, file, config.max_positions)
    shapes = param_shapes(experiment, hf_config, len(labels))
    is_single = is_transformers_classifier(experiment) and HEAD not in meta[FILES]
    stored = shapes if is_single else {"encoder": shapes["encoder"]}
    params = read_params(folder, stored, family_of(hf_config), is_complete=True)
    if not is_single:
        params |= _read_head(folder, {key: shapes[key] for key in shapes.keys() - stored})
    calibration = read_calibration(meta, file, len(labels))
    provenance = read_provenance(meta, folder, file)
    return SavedModel(
        experiment,
        hf_config,
        labels,
        meta["thresholds"],
        calibration,
        provenance,
        params,
        meta[DIGEST],
    )


def _read_experiment(meta: Mapping[str, Any], file: Path, max_positions: int) -> Experiment:
    try:
        if not isinstance(meta.get("experiment"), dict):
            raise ConfigError("experiment is not an object")
        experiment = check(from_dict(meta["experiment"]), specs=("pool", "head"))
    except ConfigError as error:
        raise DataError(f"{file}: {printable(str(error), 300)}") from None
    length = experiment.data.max_length
    if not 0 < length <= max_positions:
        raise DataError(
            f"{file}: data.max_length={length} is not in 1 to the encoder's {max_positions}"
        )
    return experiment


def _read_head(folder: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    tensors = open_safetensors(folder, HEAD)
    expected = {"/".join(path): leaf.shape for path, leaf in flatten_params(shapes).items()}
    matching, errors = match_tensors(tensors, expected)
    errors += [f"unexpected {printable(name)}" for name in tensors if name not in expected]
    raise_if_any(errors, str(folder / HEAD))
    arrays = read_all(matching, str(folder / HEAD))
    return flax.traverse_util.unflatten_dict(arrays, sep="/")
