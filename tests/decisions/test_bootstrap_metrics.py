"""A weight of n equals n copies of an example, for every metric."""

import numpy as np
import pytest
from counting import all_metrics, count
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from label_tables import DEGENERATE, random_table, tables

from jaxclf.decisions.intervals import resampled_metric, smoothed_f1, weighted_metrics
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.weighted_counts import count_examples


@st.composite
def weighted_tables(draw):
    """(labels, probs, decided, weights)."""
    labels, probs = draw(tables())
    return (
        labels,
        probs,
        draw(arrays(np.bool_, labels.shape)),
        draw(arrays(np.int64, (len(labels), 3), elements=st.integers(0, 3))),
    )


def check(labels, probs, decided, weights, atol) -> None:
    metrics = weighted_metrics(count_examples(labels, probs, decided), weights.astype(np.float32))
    for column, copies in zip(metrics.T, weights.T, strict=True):
        rows = np.repeat(np.arange(len(labels)), copies)
        expected = all_metrics(labels[rows], probs[rows], decided[rows])
        np.testing.assert_allclose(column, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", METRICS)
def test_resampling_equals_the_weighted_form_of_every_metric(name):
    outputs = random_table(0, 1000, 0.1)
    weights = np.random.default_rng(2).integers(0, 4, (1000, 3)).astype(np.float32)
    examples = count_examples(*outputs)
    row = list(METRICS).index(name)
    weighted = weighted_metrics(examples, weights)[row]
    resampled = resampled_metric(METRICS[name], examples, weights)
    np.testing.assert_allclose(resampled, weighted, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(weighted_tables())
def test_a_weight_is_a_number_of_copies(case):
    *outputs, weights = case
    check(*outputs, weights, 1e-9)
    check(*outputs, np.ones_like(weights), 1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_a_weight_is_a_number_of_copies_in_a_large_table(missing, decimals):
    outputs = random_table(1, 1000, missing, decimals)
    weights = np.random.default_rng(2).multinomial(1000, np.full(1000, 1 / 1000), 5).T
    check(*outputs, weights, 1e-9)
    check(*outputs, np.ones((1000, 1), np.int64), 1e-12)


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("decision", [False, True])
def test_weights_of_degenerate_tables(kind, decision):
    labels, probs = DEGENERATE[kind]
    weights = np.stack([np.ones(len(labels)), np.arange(len(labels)), np.zeros(len(labels))], 1)
    check(labels, probs, np.full(labels.shape, decision), weights.astype(np.int64), 1e-12)


def test_smoothed_f1_adds_gamma_draws_to_the_counts():
    labels, _, decided = random_table(3, 1000, 0.1)
    weights = np.random.default_rng(4).integers(0, 3, (1000, 2)).astype(np.float32)
    examples = count_examples(labels, labels, decided)
    smoothed = smoothed_f1(examples, np.repeat(weights, 4000, axis=1), np.random.default_rng(5))
    rng = np.random.default_rng(6)
    for resample, draws in enumerate(np.split(smoothed, 2, axis=1)):
        rows = np.repeat(np.arange(1000), weights[:, resample].astype(int))
        counts = count(labels[rows], decided[rows])
        tp, fp, fn = (cell[:, None] + rng.gamma(0.5, 1, (6, 4000)) for cell in counts[:3])
        expected = 2 * tp / (2 * tp + fp + fn)
        quantiles = [np.quantile(x, [0.025, 0.5, 0.975], axis=1) for x in (draws, expected)]
        np.testing.assert_allclose(*quantiles, atol=0.03)


def test_smoothed_f1_of_a_label_without_positives_is_nan():
    labels, probs, decided = random_table(3, 1000)
    labels[:, 1] = 0
    examples, no_weight = count_examples(labels, probs, decided), np.zeros((1000, 1), np.float32)
    f1 = smoothed_f1(examples, no_weight, np.random.default_rng(0))[:, 0]
    assert np.isnan(f1[1])
    assert (np.delete(f1, 1) > 0).all()
