"""Calibration curves: from a logit to the calibrated logit, for numpy and jax alike.

A curve takes the functions of an array library, the logits, and its parameters by keyword.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_expit


class ArrayFunctions(NamedTuple):
    """What curves need of an array library beyond arithmetic.

    log_expit: (z) -> log(sigmoid(z)). interp: (z, knots, values) -> linear interpolation.
    """

    log_expit: Callable[[Any], Any]
    interp: Callable[[Any, tuple[float, ...], tuple[float, ...]], Any]


NUMPY = ArrayFunctions(log_expit, np.interp)


def identity(xp: ArrayFunctions, z):
    return z


def temperature(xp: ArrayFunctions, z, *, temperature: float):
    return z / temperature


def platt(xp: ArrayFunctions, z, *, slope: float, intercept: float):
    return slope * z + intercept


def isotonic(xp: ArrayFunctions, z, *, knots: tuple[float, ...], values: tuple[float, ...]):
    return xp.interp(z, knots, values)


def beta(xp: ArrayFunctions, z, *, a: float, b: float, c: float):
    return a * xp.log_expit(z) - b * xp.log_expit(-z) + c


# The keyword-only parameters of a curve are what a Calibration holds for every label.
CURVES: Mapping[str, Callable[..., Any]] = {
    "none": identity,
    "temperature": temperature,
    "platt": platt,
    "isotonic": isotonic,
    "beta": beta,
}
