"""jaxclf: multi-label text classification one can trust."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxclf.inference.classifier import Classifier, load

__version__ = importlib.metadata.version("jaxclf")
__all__ = ["Classifier", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # jax is imported when a model is loaded, not before.
    if name in ("Classifier", "load"):
        from jaxclf.inference import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module 'jaxclf' has no attribute {name!r}")
