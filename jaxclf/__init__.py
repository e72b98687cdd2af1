"""jaxclf: multi-label text classification one can trust."""

__version__ = "0.1.0"
