"""Parts that encoders share, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit

from jaxclf.model.encoders.common import ACTIVATIONS, Dropout


def by_tanh(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


DEFINITIONS = {
    **dict.fromkeys(["gelu", "gelu_python"], lambda x: x * (1 + erf(x / np.sqrt(2))) / 2),
    **dict.fromkeys(["gelu_new", "gelu_accurate", "gelu_fast"], by_tanh),
    **dict.fromkeys(["gelu_python_tanh", "gelu_pytorch_tanh"], by_tanh),
    "relu": lambda x: np.maximum(x, 0),
    **dict.fromkeys(["silu", "swish"], lambda x: x * expit(x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_the_mean(rate):
    x = jnp.ones((400, 500))
    y = np.asarray(Dropout(rate).apply({}, x, False, rngs={"dropout": jax.random.key(0)}))
    zeros = (y == 0).mean()
    # Five standard errors of a proportion of 200,000 draws.
    assert abs(zeros - rate) < 5 * np.sqrt(rate * (1 - rate) / y.size)
    np.testing.assert_allclose(y[y > 0], 1 / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_the_same_name(name):
    x = np.linspace(-9, 9, 1001, dtype=np.float32)
    expected = DEFINITIONS[name](x.astype(np.float64))
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), expected, atol=2e-6, rtol=0)
