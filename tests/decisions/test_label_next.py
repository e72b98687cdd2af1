"""Uncertain texts come first, of rare labels above all, and none that is like another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxclf.decisions.label_next import choose_batch, confidence, informativeness, uncertainty

PROBABILITY = st.floats(0, 1, width=32)


@given(prob=PROBABILITY, nearer=st.floats(0, 1), threshold=st.floats(0.001, 0.999))
def test_uncertainty_grows_toward_the_threshold(prob, nearer, threshold):
    probs = np.array([[0.0], [1.0], [prob], [prob + nearer * (threshold - prob)]])
    zero, full, far, near = uncertainty(probs, np.array([threshold]))[:, 0]
    assert 0 <= far <= near + 1e-9
    assert near <= 1 + 1e-9
    assert zero == full == 0
    assert uncertainty(np.array([[threshold]]), np.array([threshold])) == 1


def test_a_threshold_may_be_beyond_all_probabilities():
    values = uncertainty(np.array([[0.0, 0.2, 1.0]]), np.array([0.0, 2.0, 2.0]))
    assert np.isfinite(values).all()
    assert values[0, 1] < 0.21


def test_confidence_is_that_of_the_least_certain_label():
    probs, thresholds = np.array([[0.0, 0.1], [1.0, 0.2]]), np.array([0.5, 0.2])
    np.testing.assert_allclose(confidence(probs, thresholds), [0.5, 0.0])


def test_a_rare_label_weighs_more():
    probs, thresholds = np.array([[0.5, 0.0], [0.0, 0.5]]), np.array([0.5, 0.5])
    scores = informativeness(probs, thresholds, np.array([9.0, 0.0]))
    np.testing.assert_allclose(scores, [0.1, 1.0])


def test_a_batch_has_no_two_texts_alike_while_others_are_left():
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(6, 4)), 3, axis=0).astype(np.float32)
    scores = np.repeat([6.0, 5, 4, 3, 2, 1], 3) + rng.uniform(0, 0.1, 18)
    chosen = choose_batch(scores, vectors, 6)
    assert sorted(chosen // 3) == [0, 1, 2, 3, 4, 5]
    assert chosen[0] == scores.argmax()
    everything = choose_batch(scores, vectors, 99)
    assert sorted(everything) == list(range(18))
    assert list(everything[:6]) == list(chosen)


def test_without_likeness_the_scores_alone_decide():
    scores = np.random.default_rng(1).uniform(size=8)
    orthogonal = np.vstack([np.eye(4), -np.eye(4)])
    chosen = choose_batch(scores[:4], orthogonal[:4], 4)
    assert list(chosen) == list(np.argsort(-scores[:4]))
    assert len(choose_batch(scores, np.zeros((8, 3)), 3)) == 3
