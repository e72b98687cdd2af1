"""Tensors that lie in files, described and not yet read."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

# Kinds of numbers that weights may be stored as.
FLOATS = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}

# The leaf of a Flax module -> its name in a torch state dict, and whether it is stored transposed.
TORCH_PARAM_NAMES = {
    "kernel": ("weight", True),
    "bias": ("bias", False),
    "scale": ("weight", False),
    "embedding": ("weight", False),
}


class LazyTensor(NamedTuple):
    """A tensor that lies in a file, not yet read. dtype: as the file names it."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
