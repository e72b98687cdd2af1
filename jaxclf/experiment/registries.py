"""The registries: the names that a key of an experiment may take, and the functions behind them.

A registry is a dict literal beside its functions, `{"focal": focal, …}`; a function's keyword-only
parameters are the options of its name. This module is below those, so it imports them by name.
"""

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Key of an experiment or ensemble -> "module:NAME" of the registry.
REGISTRIES = {
    "pool": "jaxclf.model.heads:POOLS",
    "head": "jaxclf.model.heads:HEADS",
    "loss": "jaxclf.training.losses:LOSSES",
    "sampler": "jaxclf.text.sampling:SAMPLERS",
    "augment": "jaxclf.text.augment:AUGMENTERS",
    "optim.schedule": "jaxclf.training.schedules:SCHEDULES",
    "regularization.adversarial": "jaxclf.training.adversarial:ADVERSARIES",
    "regularization.weight_averaging": "jaxclf.training.averaging:AVERAGES",
    "train.metric": "jaxclf.decisions.metrics:SELECTION_METRICS",
    "calibration": "jaxclf.decisions.calibration:CALIBRATORS",
    "threshold": "jaxclf.decisions.thresholds:THRESHOLDS",
    "blend": "jaxclf.decisions.blending:BLENDERS",
}


def load_registry(key: str) -> Any:
    """Import the module of a registry; a dict of functions, or the names of the metrics."""
    module, _, name = REGISTRIES[key].partition(":")
    return getattr(importlib.import_module(module), name)


def signatures(key: str) -> list[str]:
    """`focal (gamma=2.0, alpha=None)` of every name, read from the source: for help, which must not
    wait for an import of jax."""
    module, _, registry = REGISTRIES[key].partition(":")
    package, _, path = module.partition(".")
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0], *path.split(".")).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if registry in names:
            return [_signature(name, functions) for name in _names(node.value)]  # type: ignore
    raise LookupError(f"{file} defines no {registry}")


def _names(registry: ast.expr) -> list[tuple[str, str]]:
    """(name, name of its function) of a dict literal, or of a tuple of strings."""
    if isinstance(registry, ast.Dict):
        pairs = zip(registry.keys, registry.values, strict=True)
        return [(ast.literal_eval(key), getattr(value, "id", "")) for key, value in pairs if key]
    return [(name, "") for name in ast.literal_eval(registry)]


def _signature(name: tuple[str, str], functions: Mapping[str, ast.FunctionDef]) -> str:
    arguments = functions[name[1]].args if name[1] in functions else None
    if arguments is None or not arguments.kwonlyargs:
        return name[0]
    options = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    texts = [f"{option.arg}={ast.unparse(default)}" for option, default in options if default]
    return f"{name[0]} ({', '.join(texts)})"
