"""Parameters by their paths: frozen ones, learning rates by layer, layers that start at random.

All encoders have the same paths (`encoder/embeddings`, `encoder/layer_0/attention/query`, `pool`,
`head`), so the rules hold for every encoder.
"""

import re
from collections.abc import Callable, Iterable, Mapping
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
    """Raise ConfigError if a pattern matches no parameter, if all parameters are frozen, or if more
    layers are to be reinitialized than there are."""
    paths = list(_flatten(params))
    for pattern in optim.freeze:
        if not any(is_frozen(path, (pattern,)) for path in paths):
            groups = sorted({"/".join(path.split("/")[:2]) for path in paths})
            raise ConfigError(f"optim.freeze={pattern!r} matches none of: {', '.join(groups)}, …")
    if all(is_frozen(path, optim.freeze) for path in paths):
        raise ConfigError("optim.freeze matches every parameter; nothing is left to train")
    if optim.reinit_layers > (layers := count_layers(paths)):
        raise ConfigError(
            f"optim.reinit_layers={optim.reinit_layers}: the encoder has {layers} layers"
        )


def is_frozen(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a pattern matches the path or one of its parents."""
    return any(fnmatchcase(path, p) or fnmatchcase(path, f"{p}/*") for p in patterns)


def stop_gradient_on(
    apply: Callable[..., jax.Array], patterns: tuple[str, ...]
) -> Callable[..., jax.Array]:
    """Wrap `apply` so that frozen parameters have no gradient and the backward pass ends above
    them."""

    def apply_frozen(params: dict, *args: Any) -> jax.Array:
        stopped = _map_with_path(
            lambda path, leaf: jax.lax.stop_gradient(leaf) if is_frozen(path, patterns) else leaf,
            params,
        )
        return apply(stopped, *args)

    return apply_frozen if patterns else apply


def freeze(
    transform: optax.GradientTransformation, patterns: tuple[str, ...]
) -> optax.GradientTransformation:
    """Apply `transform` to the parameters that are not frozen. Frozen ones are neither updated nor
    decayed, and have no moments."""
    if not patterns:
        return transform

    def label_params(params: Any) -> Any:
        return _map_with_path(
            lambda path, _: "frozen" if is_frozen(path, patterns) else "trained", params
        )

    return optax.partition({"trained": transform, "frozen": optax.set_to_zero()}, label_params)


def scale_by_layer(
    layerwise_lr_decay: float, head_lr_multiplier: float
) -> optax.GradientTransformation:
    """Scale updates by layer (Howard and Ruder 2018, arXiv 1801.06146).

    Each layer's updates are those of the layer above times `layerwise_lr_decay`, the embeddings'
    the smallest. Those of pool and head are multiplied by `head_lr_multiplier`.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        layers = count_layers(_flatten(updates))

        def scale(path: str, leaf: Any) -> Any:
            level = depth(path, layers)
            if level > layers:
                return leaf * head_lr_multiplier
            return leaf * layerwise_lr_decay ** (layers + 1 - level)

        return _map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def depth(path: str, layers: int) -> int:
    """The level of a parameter: 0 for embeddings, i + 1 for layer i, `layers` for the encoder's
    final norm, `layers` + 1 for pool and head."""
    if not path.startswith("encoder/"):
        return layers + 1
    if match := re.match(r"encoder/layer_(\d+)/", path):
        return int(match[1]) + 1
    return layers if path.startswith("encoder/norm/") else 0


def without_last_layers(params: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Drop the last layers of pretrained parameters, which then start at random (Zhang et al. 2021,
    arXiv 2006.05987)."""
    leaves = _flatten(params)
    layers = count_layers(leaves)
    dropped = tuple(f"encoder/layer_{index}/" for index in range(layers - count, layers))
    kept = {path: leaf for path, leaf in leaves.items() if not path.startswith(dropped)}
    return flax.traverse_util.unflatten_dict(kept, sep="/")


def init_bias_from_prior(params: Mapping[str, Any], stats: LabelStats) -> dict[str, Any]:
    """Set the last bias to the log odds of each label in the training set (Lin et al. 2017, arXiv
    1708.02002).

    An added positive and an added negative keep the odds finite.
    """
    log_odds = np.log((stats.positives + 1) / (stats.known - stats.positives + 1))

    def set_bias(path: str, leaf: Any) -> Any:
        return jnp.asarray(log_odds, leaf.dtype) if path == "head/classifier/bias" else leaf

    return _map_with_path(set_bias, params)


def count_layers(paths: Iterable[str]) -> int:
    """The number of encoder layers in the paths."""
    matches = (re.match(r"encoder/layer_\d+/", path) for path in paths)
    return len({match[0] for match in matches if match})


def _flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    return dict(flax.traverse_util.flatten_dict(dict(params), sep="/"))


def _map_with_path(function: Callable[[str, Any], Any], params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function("/".join(part.key for part in path), leaf), params
    )
