"""Multi-label text classification with BERT encoders in JAX and Flax."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxclf.fitting import fit
    from jaxclf.inference.classifier import Classifier
    from jaxclf.inference.load import load

__version__ = importlib.metadata.version("jaxclf")
__all__ = ["Classifier", "__version__", "fit", "load"]

# Importing jax takes seconds: only when a model is loaded or trained.
MODULES = {"Classifier": "inference.classifier", "fit": "fitting", "load": "inference.load"}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'jaxclf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxclf.{MODULES[name]}"), name)
