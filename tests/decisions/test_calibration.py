"""Calibrators fit what scikit-learn fits, keep the ranking of every label, and move toward the
pooled curve with `prior_strength`."""

import functools
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_tables import NAN, column, constant, tables
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from jaxclf.decisions.calibration import (
    CALIBRATORS,
    Calibration,
    apply_calibration,
    beta,
    calibrate_out_of_fold,
    calibration_from_json,
    calibration_to_json,
    isotonic,
    none,
    platt,
    temperature,
)
from jaxclf.decisions.calibration_curves import CURVES
from jaxclf.decisions.metrics import auc, expected_calibration_error
from jaxclf.errors import DataError
from jaxclf.experiment.overrides import options_of

INF = float("inf")
FITTED = ("temperature", "platt", "isotonic", "beta")


def draw_labels(seed: int, truth: np.ndarray) -> np.ndarray:
    """Labels that are 1 with the probability `truth`."""
    return (np.random.default_rng(seed).random(truth.shape) < truth).astype(np.float32)


def draw_probs(seed: int, rows: int, *means: float) -> np.ndarray:
    """Probabilities with normal logits around the means."""
    logits = np.random.default_rng(seed).normal(means, 1.5, (rows, len(means)))
    return expit(logits).astype(np.float32)


def through_json(value):
    return json.loads(json.dumps(value))


def parameters(calibration: Calibration) -> np.ndarray:
    return np.array([list(curve.values()) for curve in calibration.curves])


@functools.cache
def focal_like(rows: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, probs, truth) of five labels, frequent to rare. The probability has the smallest
    expected focal loss (gamma 2) for the true probability."""
    grid = np.linspace(-9, 9, 20001)
    p, q = expit(grid), expit(-grid)
    # Minus the derivatives of the loss of a positive and of a negative.
    positive = q**2 / p - 2 * q * np.log(p)
    negative = p**2 / q - 2 * p * np.log(q)
    truth = draw_probs(0, rows, 0.0, -1.0, -2.0, -3.0, -4.5)
    probs = np.interp(logit(truth), np.log(negative / positive), p).astype(np.float32)
    return draw_labels(1, truth), probs, truth


@pytest.mark.parametrize("kind", FITTED)
def test_calibration_halves_the_ece_of_focal_loss_out_of_fold(kind):
    labels, probs, _ = focal_like()
    after = calibrate_out_of_fold(labels, probs, CALIBRATORS[kind])
    raw = expected_calibration_error(labels, probs)
    assert raw > 0.1
    assert expected_calibration_error(labels, after) < 0.2 * raw
    for index in range(3):  # rarer labels have too few positives
        before, calibrated = (
            expected_calibration_error(labels[:, [index]], p[:, [index]]) for p in (probs, after)
        )
        assert calibrated < 0.5 * before


@settings(deadline=None, max_examples=80)
@given(tables(max_classes=3), st.sampled_from(FITTED), st.sampled_from([0.0, 0.5, 20.0, 1e9, INF]))
def test_curves_rise_between_0_and_1(table, kind, prior):
    labels, probs = table
    calibration = CALIBRATORS[kind](labels, probs, prior_strength=prior)
    assert calibration_from_json(through_json(calibration_to_json(calibration))) == calibration
    grid = np.concatenate([[0, 1e-38, 1e-9], np.linspace(1e-6, 1, 500)]).astype(np.float32)
    after = apply_calibration(calibration, np.repeat(grid[:, None], probs.shape[1], axis=1))
    assert after.dtype == np.float32
    assert np.isfinite(after).all()
    assert ((after > 0) & (after < 1)).all()
    assert (np.diff(after, axis=0) >= 0).all()


@pytest.mark.parametrize("kind", FITTED)
def test_ranking_is_kept(kind):
    labels, probs, _ = focal_like()
    after = apply_calibration(CALIBRATORS[kind](labels, probs), probs)
    np.testing.assert_allclose(auc(labels, after), auc(labels, probs), atol=1e-6)
    # float32 rounds a few probabilities to the same value.
    distinct = [[len(np.unique(column)) for column in table.T] for table in (after, probs)]
    assert np.divide(*distinct).min() > 0.99


def test_none_changes_no_bit():
    probs = np.array([[0.0, 1.0, 1e-40, 1 / 3]], np.float32)
    calibration = none(np.zeros_like(probs), probs)
    assert apply_calibration(calibration, probs).tobytes() == probs.tobytes()
    assert calibrate_out_of_fold(np.zeros_like(probs), probs, none).tobytes() == probs.tobytes()


@pytest.mark.parametrize("kind", list(CALIBRATORS))
def test_json_keeps_every_bit(kind):
    labels, probs, _ = focal_like(500)
    calibration = CALIBRATORS[kind](labels, probs)
    record = calibration_to_json(calibration)
    loaded = calibration_from_json(through_json(record))
    assert (loaded, record) == (calibration, through_json(record))
    after = [apply_calibration(c, probs).tobytes() for c in (loaded, calibration)]
    assert after[0] == after[1]
    assert len(calibration.curves) == probs.shape[1]
    assert all(curve.keys() == options_of(CURVES[kind]).keys() for curve in calibration.curves)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"kind": "platt"},
        {"kind": "splines", "curves": [{"knots": 1.0}]},
        {"kind": "platt", "curves": [{"slope": 1.0}]},
        {"kind": "platt", "curves": [{"slope": 1.0, "intercept": "none"}]},
        {"kind": "platt", "curves": [1.0]},
        {"kind": "none", "curves": [{"slope": 1.0}]},
        {"kind": "isotonic", "curves": [{"knots": [0.0, 1.0], "values": [0.0]}]},
        {"kind": ["platt"], "curves": [{"slope": 1.0, "intercept": 0.0}]},
    ],
)
def test_an_invalid_calibration_is_refused(values):
    with pytest.raises(DataError, match="not a calibration"):
        calibration_from_json(values)


def test_every_label_needs_a_curve():
    calibration = Calibration("temperature", ({"temperature": 1.0},))
    with pytest.raises(ValueError, match="zip"):
        apply_calibration(calibration, np.ones((1, 2), np.float32))


def log_odds(p):
    return logit(p)[:, None]


def two_logarithms(p):
    return np.stack([np.log(p), -np.log1p(-p)], axis=1)


@pytest.mark.parametrize(
    ("kind", "features", "has_intercept"),
    [("temperature", log_odds, False), ("platt", log_odds, True), ("beta", two_logarithms, True)],
)
def test_curves_are_those_of_logistic_regression(kind, features, has_intercept):
    labels, probs, _ = focal_like()
    after = apply_calibration(CALIBRATORS[kind](labels, probs, prior_strength=0.0), probs)
    for index in (0, 2, 3):
        x, y = features(probs[:, index].astype(np.float64)), labels[:, index]
        if kind == "platt":  # his targets are not quite 0 and 1
            y = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
        model = LogisticRegression(C=np.inf, fit_intercept=has_intercept, tol=1e-10, max_iter=1000)
        # Each example is a positive and a negative, weighted by its target.
        model.fit(np.tile(x, (2, 1)), np.repeat([1, 0], len(x)), np.append(y, 1 - y))
        np.testing.assert_allclose(after[:, index], model.predict_proba(x)[:, 1], atol=2e-4)


def test_the_knots_of_isotonic_are_the_plateaus_of_scikit_learn():
    labels, probs, _ = focal_like()
    y, p = labels[:, 1].astype(np.float64), probs[:, 1].astype(np.float64)
    curve = isotonic(labels[:, 1:2], probs[:, 1:2], prior_strength=0.0).curves[0]
    knots, values = (np.array(curve[key])[1:-1] for key in ("knots", "values"))
    positives, negatives = y.sum(), (1 - y).sum()
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    plateaus = IsotonicRegression().fit(logit(p), y).predict(knots)
    np.testing.assert_allclose(expit(values), low + (high - low) * plateaus, atol=1e-9)
    assert len(np.unique(np.round(plateaus, 12))) == len(knots)


def test_a_label_with_a_reversed_ranking_has_the_best_rising_curve():
    p = draw_probs(8, 3000, -1.0)
    labels = draw_labels(9, expit(-0.8 * logit(p) - 0.5))
    z, y = logit(p[:, 0].astype(np.float64)), labels[:, 0].astype(np.float64)
    x = np.stack([np.log(expit(z)), -np.log(expit(-z)), np.ones_like(z)])

    def loss(params):
        z = params @ x
        return np.sum(np.logaddexp(0, z) - y * z), x @ (expit(z) - y)

    bounds = [(1e-3, None), (1e-3, None), (None, None)]
    best = minimize(loss, [1, 1, 0], jac=True, method="L-BFGS-B", bounds=bounds)
    params = parameters(beta(labels, p, prior_strength=0.0))[0]
    np.testing.assert_allclose(params, best.x, atol=1e-3)
    assert loss(params)[0] <= best.fun + 1e-6
    assert platt(labels, p, prior_strength=0.0).curves[0]["slope"] == pytest.approx(1e-3)
    reversed_labels = 1 - draw_labels(10, p)
    assert parameters(temperature(reversed_labels, p, prior_strength=0.0)) == pytest.approx(1000)


def test_isotonic_is_nearly_constant_for_a_reversed_ranking():
    p = draw_probs(19, 3000, -1.0)
    labels = draw_labels(20, expit(-0.8 * logit(p)))
    after = apply_calibration(isotonic(labels, p, prior_strength=0.0), p)
    assert np.abs(after - labels.mean()).mean() < 0.05
    assert len(np.unique(after)) > 0.99 * len(np.unique(p))


def pooled_curve(kind, labels, probs):
    """A calibration of one curve, fitted to the known cells of all labels."""
    known = ~np.isnan(labels)
    return CALIBRATORS[kind](labels[known][:, None], probs[known][:, None], prior_strength=0.0)


@pytest.mark.parametrize("kind", FITTED)
def test_the_prior_leads_from_labels_alone_to_the_pooled_curve(kind):
    labels, probs, _ = focal_like()
    alone, large, infinite = (
        apply_calibration(CALIBRATORS[kind](labels, probs, prior_strength=prior), probs)
        for prior in (0.0, 1e15, INF)
    )
    pooled = pooled_curve(kind, labels, probs)
    for index in range(labels.shape[1]):
        column = labels[:, [index]], probs[:, [index]]
        expected = apply_calibration(CALIBRATORS[kind](*column, prior_strength=0.0), column[1])
        np.testing.assert_allclose(alone[:, [index]], expected, rtol=1e-3, atol=1e-5)
        expected = apply_calibration(pooled, column[1])
        for table in (large, infinite):
            np.testing.assert_allclose(table[:, [index]], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("value", [0.0, 1.0, NAN])
def test_a_constant_label_has_the_pooled_curve(kind, value):
    labels, probs, _ = focal_like()
    labels = labels.copy()
    labels[:, 2] = value
    after = apply_calibration(CALIBRATORS[kind](labels, probs), probs)
    expected = apply_calibration(pooled_curve(kind, labels, probs), probs[:, 2:3])
    np.testing.assert_allclose(after[:, 2:3], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", FITTED)
def test_rarer_labels_are_nearer_to_the_pooled_curve(kind):
    p = np.repeat(draw_probs(11, 8000, -1.0), 3, axis=1)
    labels = draw_labels(12, expit(logit(p) / 2))
    labels[:, 1:] = draw_labels(13, expit(logit(p[:, :1]) * 1.8))  # a different curve
    labels[300:, 2] = NAN
    alone, mixed, pooled = (
        apply_calibration(CALIBRATORS[kind](labels, p, prior_strength=prior), p)
        for prior in (0.0, 50.0, INF)
    )
    moved = np.abs(mixed - alone).mean(axis=0) / np.abs(pooled - alone).mean(axis=0)
    assert moved[1] < 0.1 < moved[2] < 1


@pytest.mark.parametrize("prior", [5.0, 200.0])
def test_isotonic_mixes_logits_by_positives(prior):
    labels, probs, _ = focal_like()
    calibrations = [isotonic(labels, probs, prior_strength=value) for value in (0.0, prior, INF)]
    alone, mixed, pooled = (
        logit(apply_calibration(calibration, probs).astype(np.float64))
        for calibration in calibrations
    )
    share = labels.sum(axis=0) / (labels.sum(axis=0) + prior)
    expected = share * alone + (1 - share) * pooled
    inside = expected < 6  # float32 is too coarse near 1
    np.testing.assert_allclose(mixed[inside], expected[inside], atol=1e-3)


@pytest.mark.parametrize("prior", [5.0, 20.0, 100.0])
def test_the_prior_is_a_number_of_positives_of_the_pooled_data(prior):
    p = draw_probs(17, 4000, -1.0, -1.0, -1.0)
    labels = draw_labels(18, expit(logit(p) * [1.5, 1.0, 1.0]))
    labels[200:, 0] = NAN
    known = ~np.isnan(labels)
    z = np.concatenate([logit(p[:200, 0]), logit(p[known])])[:, None]
    y = np.concatenate([labels[:200, 0], labels[known]])
    weights = np.append(np.ones(200), np.full(known.sum(), prior / labels[known].sum()))
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(z, y, weights)
    alone, mixed, pooled = (
        1 / parameters(temperature(labels, p, prior_strength=value))[0, 0]
        for value in (0.0, prior, INF)
    )
    assert alone - pooled > 0.3
    assert abs(mixed - model.coef_[0, 0]) < 0.05 * (alone - pooled)  # equal to second order


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("labels", [column(0), column(1), column(NAN), np.zeros((0, 1), "f4")])
def test_too_little_data_leaves_probabilities_unchanged(kind, labels):
    probs = np.linspace(1e-4, 1 - 1e-4, 99, dtype=np.float32)[:, None]
    calibration = CALIBRATORS[kind](*constant(labels))
    np.testing.assert_allclose(apply_calibration(calibration, probs), probs, rtol=1e-5)


@pytest.mark.parametrize("kind", FITTED[1:])
@pytest.mark.parametrize("prob", [0.0, 0.2, 1.0])
def test_a_constant_probability_becomes_the_frequency(kind, prob):
    labels = np.repeat(column(1, 0, 0, 0), 300, axis=0)
    probs = np.full_like(labels, prob)
    after = apply_calibration(CALIBRATORS[kind](labels, probs), probs)
    np.testing.assert_allclose(after, 0.25, atol=2e-3)


@pytest.mark.parametrize("kind", FITTED)
def test_separated_classes_have_a_steep_curve(kind):
    probs = np.linspace(0.01, 0.99, 200, dtype=np.float32)[:, None]
    labels = (probs > 0.5).astype(np.float32)
    after = apply_calibration(CALIBRATORS[kind](labels, probs, prior_strength=0.0), probs)
    assert after[labels == 0].max() < 0.5 < after[labels == 1].min()
    assert np.abs(after - labels).mean() < 0.5 * np.abs(probs - labels).mean()


@pytest.mark.parametrize("kind", FITTED)
def test_unknown_labels_are_ignored(kind):
    labels, probs = (table[:, :1].copy() for table in focal_like()[:2])
    labels[::3] = NAN
    known = ~np.isnan(labels[:, 0])
    assert CALIBRATORS[kind](labels, probs) == CALIBRATORS[kind](labels[known], probs[known])


@pytest.mark.parametrize("kind", FITTED)
def test_degenerate_labels_beside_ordinary_labels(kind):
    rng = np.random.default_rng(14)
    probs = draw_probs(15, 1000, *np.linspace(-6, 1, 28))
    labels = draw_labels(16, probs)
    labels[rng.random(labels.shape) < 0.1] = NAN
    labels[:, :4] = [0, 1, NAN, 0]
    labels[7, 3] = 1
    probs[rng.random(probs.shape) < 0.01], probs[rng.random(probs.shape) < 0.01] = 0, 1
    probs[:, 5] = 0.5
    after = calibrate_out_of_fold(labels, probs, CALIBRATORS[kind])
    assert ((after > 0) & (after < 1)).all()


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("kind", list(CALIBRATORS))
def test_fewer_rows_than_folds(rows, kind):
    labels, probs, _ = focal_like(400)
    after = calibrate_out_of_fold(labels[:rows], probs[:rows], CALIBRATORS[kind])
    assert np.isfinite(after).all()


@pytest.mark.parametrize("kind", FITTED)
def test_prior_strength_is_an_option(kind):
    labels, probs, _ = focal_like(1000)
    assert options_of(CALIBRATORS[kind]).keys() == {"prior_strength"}
    priors = (0.0, 20.0, 40.0)
    calibrations = [CALIBRATORS[kind](labels, probs, prior_strength=prior) for prior in priors]
    assert calibrations[1] == CALIBRATORS[kind](labels, probs)
    assert all(a != b for a, b in itertools.combinations(calibrations, 2))
    assert not options_of(none)
