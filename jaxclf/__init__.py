"""Multi-label text classification with BERT encoders in JAX and Flax."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxclf.inference.classifier import Classifier
    from jaxclf.inference.load import load

__version__ = importlib.metadata.version("jaxclf")
__all__ = ["Classifier", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxclf' has no attribute {name!r}")
    # Importing jax takes seconds: only when a model is loaded.
    from jaxclf.inference import classifier, load

    return {"Classifier": classifier.Classifier, "load": load.load}[name]
