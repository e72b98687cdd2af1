"""Convert Hugging Face weight files to params and back through a table of names.

Missing and unexpected tensors of the encoder are errors. Names, shapes and dtypes are checked
before a tensor is read.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np

from jaxclf.errors import DataError
from jaxclf.files.untrusted import printable
from jaxclf.model.encoders.common import Family
from jaxclf.model.storage.tensor_files import FLOATS, TORCH_PARAM_NAMES, LazyTensor, open_tensors

log = logging.getLogger(__name__)

MAX_LISTED_ERRORS = 200  # a file with more errors belongs to another model
MAX_LISTED_PARTS = 8


def flatten_params(params: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Nested dicts as one dict by path."""
    return dict(flax.traverse_util.flatten_dict(dict(params)))


def file_name(path: tuple[str, ...], names: Mapping[str, str]) -> str | None:
    """The torch name of a parameter, or None if the table has none.

    A row of the table names a module or a single parameter, of every layer or of one.
    """
    full, module = "/".join(path), "/".join(path[:-1])
    for row, suffix in ((full, ""), (module, "." + TORCH_PARAM_NAMES[path[-1]][0])):
        if row in names:
            return names[row] + suffix
        layer = re.search(r"layer_(\d+)", row)
        if layer and (template := row.replace(layer[0], "layer_{i}", 1)) in names:
            return names[template].replace("{i}", layer[1]) + suffix
    return None


def open_network(folder: Path, family: Family) -> tuple[dict[str, LazyTensor], list[str]]:
    """The tensors of a model folder under the family's names, without its prefix, and the names of
    tensors outside the network.

    Wrappers such as torch.compile and DistributedDataParallel put a prefix before the names of a
    network (`_orig_mod.`, `module.`). It is dropped. Raises DataError for two networks.
    """
    stored, words = open_tensors(folder), family.names["encoder/embeddings/word"] + ".weight"
    prefixes = {
        name.removesuffix(words).removesuffix(family.prefix)
        for name in stored
        if f".{name}".endswith(f".{words}")
    }
    if len(prefixes) > 1:
        listed = ", ".join(repr(printable(prefix)) for prefix in sorted(prefixes)[:5])
        raise DataError(
            f"{folder}: holds {len(prefixes)} encoders, under the prefixes {listed}; save the "
            "right one alone with save_pretrained"
        )
    wrapper = prefixes.pop() if prefixes else ""
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in stored.items():
        if name.startswith(wrapper):
            bare = _current_name(name.removeprefix(wrapper).removeprefix(family.prefix))
            if bare in tensors:
                raise DataError(f"{folder}: duplicate {printable(name)}")
            tensors[bare] = tensor
    return tensors, [name for name in stored if not name.startswith(wrapper)]


def read_params(
    folder: Path, shapes: Mapping[str, Any], family: Family, is_complete: bool
) -> dict[str, Any]:
    """Read the parameters that a model folder holds, as float32.

    shapes: the network's parameters, a nested dict of values with `.shape`.
    is_complete: the folder holds all of them. Otherwise the result has no classifier, and of the
        head the layers that the folder holds; the log names what is not used.

    Raises DataError that lists every missing, unexpected and misshapen tensor, or else every tensor
    with NaN or infinity.
    """
    by_name, unused = open_network(folder, family)
    params = flatten_params(shapes)
    paths: dict[str, tuple[str, ...]] = {}
    for path in params:
        name = file_name(path, family.names)
        if name is None or (path[:2] == ("head", "classifier") and not is_complete):
            continue
        name = name.removeprefix(family.prefix)
        if name in by_name or is_complete or path[0] != "head":
            paths[name] = path
    is_transposed = {name: TORCH_PARAM_NAMES[path[-1]][1] for name, path in paths.items()}
    expected = {
        name: params[path].shape[::-1] if is_transposed[name] else params[path].shape
        for name, path in paths.items()
    }
    matching, mismatches = match_tensors(by_name, expected)
    encoder = {
        name.removeprefix(family.prefix).partition(".")[0]
        for row, name in family.names.items()
        if row.startswith("encoder/")
    }
    surplus = [name for name in by_name.keys() - paths if not name.startswith(family.ignored_keys)]
    unexpected = [
        f"unexpected {printable(name)}" for name in surplus if name.partition(".")[0] in encoder
    ]
    raise_if_any(mismatches + unexpected, f"{folder}: the weights do not fit the encoder")
    if not is_complete and (parts := sorted({name.partition(".")[0] for name in surplus + unused})):
        listed = ", ".join(printable(part) for part in parts[:MAX_LISTED_PARTS])
        more = f" and {len(parts) - MAX_LISTED_PARTS:,} more" * (len(parts) > MAX_LISTED_PARTS)
        log.info("%s: not used of the weights: %s%s", folder, listed, more)
    arrays = read_all(matching, str(folder))
    return flax.traverse_util.unflatten_dict(
        {
            path: np.ascontiguousarray(arrays[name].T if is_transposed[name] else arrays[name])
            for name, path in paths.items()
        }
    )


def match_tensors(
    tensors: Mapping[str, LazyTensor], expected: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, LazyTensor], list[str]]:
    """The tensors of the expected names and shapes, and an error for each name without one."""
    matching, errors = {}, []
    for name, shape in expected.items():
        if name not in tensors:
            errors.append(f"missing {name}")
            continue
        tensor = tensors[name]
        if tensor.shape != shape:
            errors.append(f"{name} has shape {tensor.shape}, expected {shape}")
        elif tensor.dtype not in FLOATS:
            errors.append(f"{name} has dtype {tensor.dtype}; choose from: {', '.join(FLOATS)}")
        else:
            matching[name] = tensor
    return matching, errors


def read_all(tensors: Mapping[str, LazyTensor], source: str) -> dict[str, np.ndarray]:
    """Read tensors as float32. Raises DataError that lists those with NaN or infinity."""
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinity
        arrays = {name: tensor.read().astype(np.float32) for name, tensor in tensors.items()}
    not_finite = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    raise_if_any([f"{name} holds NaN or infinity" for name in not_finite], source)
    return arrays


def raise_if_any(errors: list[str], source: str) -> None:
    """Raise DataError that lists the errors, if there are any."""
    if errors:
        hidden = len(errors) - MAX_LISTED_ERRORS
        more = f"; and {hidden:,} more" if hidden > 0 else ""
        raise DataError(f"{source}: " + "; ".join(errors[:MAX_LISTED_ERRORS]) + more)


def _current_name(name: str) -> str:
    """Files from before 2019 call the weights of a layer norm gamma and beta."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name).replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def to_tensors(params: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The parameters that the table names, under their torch names."""
    tensors = {}
    for path, param in flatten_params(params).items():
        name = file_name(path, names)
        if name is not None:
            array = np.asarray(param)
            is_transposed = TORCH_PARAM_NAMES[path[-1]][1]
            tensors[name] = np.ascontiguousarray(array.T if is_transposed else array)
    return tensors
