"""Tensors in files, described but not read."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

# safetensors' names of the dtypes that weights may be stored in.
FLOATS = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}

# Parameter of a Flax module -> its name in a torch state dict, and whether it is stored transposed.
TORCH_PARAM_NAMES = {
    "kernel": ("weight", True),
    "bias": ("bias", False),
    "scale": ("weight", False),
    "embedding": ("weight", False),
}


class LazyTensor(NamedTuple):
    """A tensor of a file, not read yet. dtype: a key of `FLOATS`, or another name in the file."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
