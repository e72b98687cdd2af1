"""Uncertainty is highest at the threshold, wherever that lies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxclf.decisions.label_next import confidence, uncertainty

PROBABILITY = st.floats(0, 1, width=32)


@given(prob=PROBABILITY, nearer=st.floats(0, 1), threshold=st.floats(0, 2))
def test_uncertainty_grows_toward_the_threshold(prob, nearer, threshold):
    target = min(threshold, 1.0)
    probs = np.array([[0.0], [1.0], [prob], [prob + nearer * (target - prob)]])
    zero, whole, far, near = uncertainty(probs, np.array([threshold]))[:, 0]
    assert 0 <= far <= near + 1e-9
    assert near <= 1 + 1e-9
    if 1e-3 < threshold < 1 - 1e-3:
        assert zero == whole == 0
        assert uncertainty(np.array([[threshold]]), np.array([threshold])) == 1


def test_confidence_is_that_of_the_least_certain_label():
    probs, thresholds = np.array([[0.0, 0.1], [1.0, 0.2]]), np.array([0.5, 0.2])
    np.testing.assert_allclose(confidence(probs, thresholds), [0.5, 0.0])
