"""Parameters by their paths: which are held fixed, how fast each layer learns, which start anew.

All encoders share one vocabulary of paths (`encoder/embeddings`, `encoder/layer_0/attention/query`,
`pool`, `head`), so one rule serves them all.
"""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Optim
from jaxclf.types import LabelStats


def check_groups(optim: Optim, params: Mapping[str, Any]) -> None:
    """ConfigError where a pattern names no parameter, where nothing is left to train, and where
    more layers should start anew than there are."""
    paths = list(_paths(params))
    for pattern in optim.freeze:
        if not any(_matches(path, pattern) for path in paths):
            parts = sorted({"/".join(path.split("/")[:2]) for path in paths})
            raise ConfigError(f"optim.freeze={pattern!r} matches none of: {', '.join(parts)}, …")
    if all(is_frozen(path, optim.freeze) for path in paths):
        raise ConfigError("optim.freeze holds every parameter fixed; nothing is left to train")
    if optim.reinit_layers > (layers := count_layers(paths)):
        raise ConfigError(
            f"optim.reinit_layers={optim.reinit_layers}: the encoder has {layers} layers"
        )


def is_frozen(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern fits the path or what it lies in."""
    return any(_matches(path, pattern) for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path, pattern + "/*")


def stop_gradient_on(
    apply: Callable[..., jax.Array], patterns: tuple[str, ...]
) -> Callable[..., jax.Array]:
    """`apply` with no gradient to frozen parameters: the backward pass ends above them."""

    def held(params: dict, *rest: Any) -> jax.Array:
        kept = _map(
            lambda path, leaf: jax.lax.stop_gradient(leaf) if is_frozen(path, patterns) else leaf,
            params,
        )
        return apply(kept, *rest)

    return held if patterns else apply


def freeze(
    transform: optax.GradientTransformation, patterns: tuple[str, ...]
) -> optax.GradientTransformation:
    """`transform` for the others; a frozen parameter is not moved, nor decayed, and has no
    moments."""
    if not patterns:
        return transform

    def groups(params: Any) -> Any:
        return _map(lambda path, _: "frozen" if is_frozen(path, patterns) else "trained", params)

    return optax.partition({"trained": transform, "frozen": optax.set_to_zero()}, groups)


def scale_by_depth(layer_decay: float, head_rate: float) -> optax.GradientTransformation:
    """Updates of each layer a share `layer_decay` of those of the one above (Howard and Ruder 2018,
    arXiv 1801.06146), the embeddings' least; those of pool and head, which pretraining did not
    make, times `head_rate`."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        layers = count_layers(_paths(updates))

        def scaled(path: str, leaf: Any) -> Any:
            level = depth(path, layers)
            return leaf * (head_rate if level > layers else layer_decay ** (layers + 1 - level))

        return _map(scaled, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def depth(path: str, layers: int) -> int:
    """0 for the embeddings, absolute or relative, i + 1 for layer i, `layers` for the norm that
    ends an encoder, one more for pool and head."""
    if not path.startswith("encoder/"):
        return layers + 1
    number = re.match(r"encoder/layer_(\d+)/", path)
    if number:
        return int(number[1]) + 1
    return layers if path.startswith("encoder/norm/") else 0


def without_last_layers(params: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Pretrained params without the last layers, which then start at random (Zhang et al. 2021,
    arXiv 2006.05987)."""
    layers = count_layers(_paths(params))
    last = tuple(f"encoder/layer_{index}/" for index in range(layers - count, layers))
    kept = {path: leaf for path, leaf in _paths(params).items() if not path.startswith(last)}
    return flax.traverse_util.unflatten_dict(kept, sep="/")


def init_bias_from_prior(params: Mapping[str, Any], stats: LabelStats) -> dict[str, Any]:
    """Params whose last bias gives each label its share of the training rows, in log odds, so that
    nothing has to be learned before the texts matter (Lin et al. 2017, arXiv 1708.02002). One
    positive and one negative more than there are keep it finite."""
    given = np.log((stats.positives + 1) / (stats.known - stats.positives + 1))

    def start(path: str, leaf: Any) -> Any:
        return jnp.asarray(given, leaf.dtype) if path == "head/classifier/bias" else leaf

    return _map(start, params)


def count_layers(paths: Any) -> int:
    return len({found[0] for path in paths if (found := re.match(r"encoder/layer_\d+/", path))})


def _paths(params: Mapping[str, Any]) -> dict[str, Any]:
    return dict(flax.traverse_util.flatten_dict(dict(params), sep="/"))


def _map(function: Callable[[str, Any], Any], params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function("/".join(part.key for part in path), leaf), params
    )
