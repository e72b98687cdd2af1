"""A weight of n is n rows: every figure under weights is `metrics.aggregate` of repeated rows."""

import numpy as np
import pytest
from counting import count, f1_per_label
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxclf.decisions.bootstrap_metrics import resampled_metric, smoothed_f1, weighted_metrics
from jaxclf.decisions.metrics import METRICS, compute_metrics
from jaxclf.decisions.weighted_counts import count_examples

NAN = float("nan")
# Eighths make ties, and both ends.
PROBS = st.one_of(st.sampled_from([n / 8 for n in range(9)]), st.floats(0, 1, width=32))


@st.composite
def weighted_tables(draw):
    """(labels, probs, decided, weights)."""
    rows, classes = draw(st.integers(1, 10)), draw(st.integers(1, 4))
    return (
        draw(arrays(np.float32, (rows, classes), elements=st.sampled_from([0.0, 1.0, NAN]))),
        draw(arrays(np.float32, (rows, classes), elements=PROBS)),
        draw(arrays(np.bool_, (rows, classes))),
        draw(arrays(np.int64, (rows, 3), elements=st.integers(0, 3))),
    )


def expected(labels, probs, decided) -> list[float]:
    return [*compute_metrics(labels, probs, decided).values(), *f1_per_label(labels, decided)]


def check(labels, probs, decided, weights, atol) -> None:
    found = weighted_metrics(count_examples(labels, probs, decided), weights.astype(np.float32))
    for column, times in zip(found.T, weights.T, strict=True):
        rows = np.repeat(np.arange(len(labels)), times)
        wanted = expected(labels[rows], probs[rows], decided[rows])
        np.testing.assert_allclose(column, wanted, rtol=0, atol=atol)


def large(seed: int, missing: float, decimals: int):
    """1000 examples, 6 labels from frequent to rare, tied scores."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((1000, 6)) < [0.6, 0.4, 0.2, 0.1, 0.05, 0.003]).astype(np.float32)
    probs = np.clip(0.3 * labels + rng.normal(0.3, 0.2, labels.shape), 0, 1).round(decimals)
    labels[rng.random(labels.shape) < missing] = np.nan
    return labels, probs.astype(np.float32), probs >= 0.4


@pytest.mark.parametrize("name", METRICS)
def test_the_bootstrap_needs_no_weighted_form_of_a_metric(name):
    outputs = large(0, 0.1, 2)
    weights = np.random.default_rng(2).integers(0, 4, (1000, 3)).astype(np.float32)
    examples = count_examples(*outputs)
    row = list(METRICS).index(name)
    weighted = weighted_metrics(examples, weights)[row]
    resampled = resampled_metric(METRICS[name], examples, weights)
    np.testing.assert_allclose(resampled, weighted, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(weighted_tables())
def test_weights_of_one_give_the_figures_themselves(case):
    *outputs, weights = case
    check(*outputs, np.ones_like(weights), 1e-12)


@settings(deadline=None, max_examples=40)
@given(weighted_tables())
def test_a_weight_is_so_many_rows(case):
    check(*case, 1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_a_weight_is_so_many_rows_of_a_large_table(missing, decimals):
    outputs = large(1, missing, decimals)
    weights = np.random.default_rng(2).multinomial(1000, np.full(1000, 1 / 1000), 5).T
    check(*outputs, weights, 1e-9)
    check(*outputs, np.ones((1000, 1), np.int64), 1e-12)


@pytest.mark.parametrize("label", [0.0, 1.0, NAN])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("given", [False, True])
def test_labels_of_one_kind_and_constant_probabilities(label, rows, given):
    shape = (rows, 2)
    outputs = np.full(shape, label, np.float32), np.full(shape, 0.3, np.float32)
    weights = np.stack([np.ones(rows), np.arange(rows), np.zeros(rows)], axis=1).astype(np.int64)
    check(*outputs, np.full(shape, given), weights, 1e-12)


def test_no_rows_say_nothing():
    none = np.zeros((0, 2), np.float32)
    found = weighted_metrics(count_examples(none, none, none == 1), np.zeros((0, 3), np.float32))
    assert found.shape == (len(METRICS) + 2, 3)
    assert np.isnan(found).all()


def test_smoothed_f1_is_the_ratio_of_counts_with_gamma_draws():
    labels, _, decided = large(3, 0.1, 2)
    weights = np.random.default_rng(4).integers(0, 3, (1000, 2)).astype(np.float32)
    found = smoothed_f1(
        count_examples(labels, labels, decided),
        np.repeat(weights, 4000, axis=1),
        np.random.default_rng(5),
    )
    rng = np.random.default_rng(6)
    for resample, draws in enumerate(np.split(found, 2, axis=1)):
        rows = np.repeat(np.arange(1000), weights[:, resample].astype(int))
        counts = count(labels[rows], decided[rows])
        tp, fp, fn = (cell[:, None] + rng.gamma(0.5, 1, (6, 4000)) for cell in counts[:3])
        each = 2 * tp / (2 * tp + fp + fn)
        wanted = np.concatenate([each.mean(axis=0)[None], each])
        shares = [0.025, 0.5, 0.975]
        np.testing.assert_allclose(
            np.quantile(draws, shares, axis=1), np.quantile(wanted, shares, axis=1), atol=0.03
        )


def test_smoothed_f1_leaves_out_a_label_the_table_has_no_positives_of():
    labels, probs, decided = large(3, 0.0, 2)
    labels[:, 1] = 0
    once = np.zeros((1000, 1), np.float32)  # a weighting without positives of any label
    found = smoothed_f1(count_examples(labels, probs, decided), once, np.random.default_rng(0))[
        :, 0
    ]
    assert np.isnan(found[2])
    assert (np.delete(found, 2) > 0).all()
    np.testing.assert_allclose(found[0], np.nanmean(found[1:]), rtol=0, atol=1e-12)
