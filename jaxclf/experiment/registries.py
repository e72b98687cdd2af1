"""The registries: the names that a key of an experiment may take, and the functions behind them.

A registry is a dict literal beside its functions, `{"focal": focal, …}`; a function's keyword-only
parameters are the options of its name. This module is below those, so it imports them by name.
"""

import ast
import importlib
from pathlib import Path
from typing import Any

# Key of an experiment or ensemble -> "module:NAME" of the registry.
REGISTRIES = {
    "pool": "jaxclf.model.heads:POOLS",
    "head": "jaxclf.model.heads:HEADS",
    "loss": "jaxclf.training.losses:LOSSES",
    "sampler": "jaxclf.text.sampling:SAMPLERS",
    "augment": "jaxclf.text.augment:AUGMENTERS",
    "optim.schedule": "jaxclf.training.optimizer:SCHEDULES",
    "regularization.adversarial": "jaxclf.training.regularization:ADVERSARIES",
    "regularization.weight_averaging": "jaxclf.training.regularization:AVERAGES",
    "train.metric": "jaxclf.decisions.selection:SELECTION_METRICS",
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
    file = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    functions, tables = {}, {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = node.args
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            tables[ast.unparse(target)] = node.value
    table = tables[registry]
    return [
        _signature(ast.literal_eval(name), functions.get(ast.unparse(function)))
        for name, function in zip(table.keys, table.values, strict=True)
    ]


def _signature(name: str, arguments: ast.arguments | None) -> str:
    if arguments is None or not arguments.kwonlyargs:
        return name
    options = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    texts = [f"{option.arg}={ast.unparse(default)}" for option, default in options if default]
    return f"{name} ({', '.join(texts)})"
