"""Calibrators find the miscalibration that was put in, keep every label's ranking, and lean on the
pooled curve as far as `prior_strength` says."""

import functools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
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
from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.overrides import options_of

NAN, INF = float("nan"), float("inf")
FITTED = ("temperature", "platt", "isotonic", "beta")


def drawn(seed: int, probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Labels that are 1 as often as `truth` says."""
    return (np.random.default_rng(seed).random(probs.shape) < truth).astype(np.float32)


def spread(seed: int, rows: int, *means: float) -> np.ndarray:
    """Probabilities whose logits lie around the means."""
    logits = np.random.default_rng(seed).normal(means, 1.5, (rows, len(means)))
    return expit(logits).astype(np.float32)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def parameters(calibration: Calibration) -> np.ndarray:
    return np.array([list(curve.values()) for curve in calibration.curves])


@functools.cache
def focal_like(rows: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, probs, truth) of five labels, frequent to rare, as focal loss at gamma 2 leaves
    them: for each probability of the truth, that which has the least expected loss."""
    grid = np.linspace(-9, 9, 20001)
    p, q = expit(grid), expit(-grid)
    rises = q**2 / p - 2 * q * np.log(p)  # minus the derivatives of both halves of the loss
    falls = p**2 / q - 2 * p * np.log(q)
    truth = spread(0, rows, 0.0, -1.0, -2.0, -3.0, -4.5)
    probs = np.interp(logit(truth), np.log(falls / rises), p).astype(np.float32)
    return drawn(1, probs, truth), probs, truth


# What was put in


def test_temperature_is_recovered():
    p, truth = spread(0, 20000, 0.0, -1.5, 1.0), np.array([0.5, 1.8, 1.0])
    found = temperature(drawn(1, p, expit(logit(p) / truth)), p)
    np.testing.assert_allclose(parameters(found)[:, 0], truth, rtol=0.04)


def test_platt_slope_and_intercept_are_recovered():
    p, slopes, intercepts = spread(2, 20000, 0.0, -1.5, 1.0), [0.5, 1.6, 1.0], [-1.0, 0.7, 0.0]
    found = platt(drawn(3, p, expit(slopes * logit(p) + intercepts)), p)
    np.testing.assert_allclose(parameters(found), np.stack([slopes, intercepts], 1), atol=0.08)


def test_beta_parameters_are_recovered():
    p, (a, b, c) = spread(4, 60000, 0.0, -0.5), np.array([[0.6, 1.8], [1.5, 0.7], [-0.5, 0.4]])
    found = beta(drawn(5, p, expit(a * np.log(p) - b * np.log1p(-p) + c)), p)
    np.testing.assert_allclose(parameters(found), np.stack([a, b, c], 1), atol=0.1)


def test_isotonic_is_near_any_rising_truth():
    p = spread(6, 20000, 0.0)
    truth = 0.1 + 0.5 * (p > 0.3) + 0.3 * p**3  # a step, which no line of logits has
    error = np.abs(apply_calibration(isotonic(drawn(7, p, truth), p), p) - truth)
    assert error.mean() < 0.015


@pytest.mark.parametrize("kind", FITTED)
def test_out_of_fold_the_error_of_focal_loss_is_more_than_halved(kind):
    labels, probs, _ = focal_like()
    after = calibrate_out_of_fold(labels, probs, CALIBRATORS[kind])
    raw = expected_calibration_error(labels, probs)
    assert raw > 0.1
    assert expected_calibration_error(labels, after) < 0.2 * raw
    for index in range(3):  # of rarer ones the frequency itself is hardly known
        one = slice(index, index + 1)
        before = expected_calibration_error(labels[:, one], probs[:, one])
        assert expected_calibration_error(labels[:, one], after[:, one]) < 0.5 * before


# What stays


@st.composite
def tables(draw):
    """(labels, probs), some labels not known, with ties, 0 and 1."""
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 3)))
    some = st.one_of(st.sampled_from([0, 1e-30, 0.25, 0.5, 1]), st.floats(0, 1, width=32))
    return (
        draw(arrays(np.float32, shape, elements=st.sampled_from((0.0, 1.0, NAN)))),
        draw(arrays(np.float32, shape, elements=some.map(np.float32))),
    )


@settings(deadline=None, max_examples=80)
@given(tables(), st.sampled_from(FITTED), st.sampled_from([0.0, 0.5, 20.0, 1e9, INF]))
def test_curves_rise_within_0_and_1_whatever_they_were_fitted_on(table, kind, prior):
    labels, probs = table
    found = CALIBRATORS[kind](labels, probs, prior_strength=prior)
    rising(found, probs.shape[1])
    assert calibration_from_json(json.loads(json.dumps(calibration_to_json(found)))) == found


def rising(calibration: Calibration, classes: int) -> None:
    grid = np.concatenate([[0, 1e-38, 1e-9], np.linspace(1e-6, 1, 500)]).astype(np.float32)
    after = apply_calibration(calibration, np.repeat(grid[:, None], classes, axis=1))
    assert after.dtype == np.float32
    assert np.isfinite(after).all()
    assert ((after > 0) & (after < 1)).all()
    assert (np.diff(after, axis=0) >= 0).all()


@pytest.mark.parametrize("kind", FITTED)
def test_ranking_is_kept(kind):
    labels, probs, _ = focal_like()
    after = apply_calibration(CALIBRATORS[kind](labels, probs), probs)
    np.testing.assert_allclose(auc(labels, after), auc(labels, probs), atol=1e-6)
    kept = [len(np.unique(one)) / len(np.unique(two)) for one, two in zip(after.T, probs.T)]  # noqa: B905
    assert min(kept) > 0.99  # but for what float32 no longer tells apart


def test_plateaus_would_cost_auc():
    labels, probs, _ = focal_like()
    flat = (
        IsotonicRegression(out_of_bounds="clip")
        .fit(probs[::2, 3], labels[::2, 3])
        .predict(probs[1::2, 3])
    )
    curve = isotonic(labels[::2, 3:4], probs[::2, 3:4])
    tied, kept = (
        auc(labels[1::2, 3:4], p)[0]
        for p in (flat[:, None], apply_calibration(curve, probs[1::2, 3:4]))
    )
    assert tied < kept


def test_none_changes_no_bit():
    probs = np.array([[0.0, 1.0, 1e-40, 1 / 3]], np.float32)
    found = none(np.zeros_like(probs), probs)
    assert apply_calibration(found, probs).tobytes() == probs.tobytes()
    assert calibrate_out_of_fold(np.zeros_like(probs), probs, none).tobytes() == probs.tobytes()


@pytest.mark.parametrize("kind", list(CALIBRATORS))
def test_json_holds_every_bit(kind):
    labels, probs, _ = focal_like(500)
    found = CALIBRATORS[kind](labels, probs)
    plain = calibration_to_json(found)
    again = calibration_from_json(json.loads(json.dumps(plain)))
    assert again == found
    assert apply_calibration(again, probs).tobytes() == apply_calibration(found, probs).tobytes()
    assert plain == json.loads(json.dumps(plain))
    assert len(found.curves) == probs.shape[1]
    assert all(curve.keys() == options_of(CURVES[kind]).keys() for curve in found.curves)


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
def test_what_is_no_calibration_is_refused(values):
    with pytest.raises(DataError, match="not a calibration"):
        calibration_from_json(values)


def test_there_must_be_a_curve_for_each_label():
    with pytest.raises(ValueError, match="zip"):
        apply_calibration(
            Calibration("temperature", ({"temperature": 1.0},)), np.ones((1, 2), np.float32)
        )


# References


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose decision is its only feature."""

    def fit(self, x, y):
        self.classes_ = np.array([0, 1])
        return self

    def decision_function(self, x):
        return x[:, 0]

    def predict(self, x):
        return (x[:, 0] > 0).astype(int)


@pytest.mark.parametrize(("kind", "method"), [("platt", "sigmoid"), ("temperature", "temperature")])
def test_scikit_learn_finds_the_same_line(kind, method):
    labels, probs, _ = focal_like()
    for index in (0, 3):
        y, p = labels[:, index : index + 1], probs[:, index : index + 1]
        z = logit(p.astype(np.float64))
        model = CalibratedClassifierCV(FrozenEstimator(Given().fit(None, None)), method=method)
        theirs = model.fit(z, y[:, 0]).predict_proba(z)[:, 1]
        ours = apply_calibration(CALIBRATORS[kind](y, p, prior_strength=0.0), p)[:, 0]
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_beta_is_logistic_regression_on_two_logarithms():
    labels, probs, _ = focal_like()
    found = beta(labels, probs, prior_strength=0.0).curves
    for index in (0, 2):
        p = probs[:, index].astype(np.float64)
        x = np.stack([np.log(p), -np.log1p(-p)], axis=1)
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, labels[:, index])
        theirs = [*model.coef_[0], *model.intercept_]
        np.testing.assert_allclose(list(found[index].values()), theirs, rtol=1e-3, atol=1e-3)


def test_isotonic_has_the_plateaus_of_scikit_learn_as_knots():
    labels, probs, _ = focal_like()
    y, p = labels[:, 1].astype(np.float64), probs[:, 1].astype(np.float64)
    curve = isotonic(labels[:, 1:2], probs[:, 1:2], prior_strength=0.0).curves[0]
    knots, values = (np.array(curve[key])[1:-1] for key in ("knots", "values"))
    positives, negatives = y.sum(), (1 - y).sum()
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    plateaus = IsotonicRegression().fit(logit(p), y).predict(knots)
    np.testing.assert_allclose(expit(values), low + (high - low) * plateaus, atol=1e-9)
    assert len(np.unique(np.round(plateaus, 12))) == len(knots)


def test_a_label_ranked_the_wrong_way_round_has_the_best_curve_that_rises():
    p = spread(8, 3000, -1.0)
    labels = drawn(9, p, expit(-0.8 * logit(p) - 0.5))
    z, y = logit(p[:, 0].astype(np.float64)), labels[:, 0].astype(np.float64)
    x = np.stack([np.log(expit(z)), -np.log(expit(-z)), np.ones_like(z)])

    def loss(at):
        return np.sum(np.logaddexp(0, at @ x) - y * (at @ x)), x @ (expit(at @ x) - y)

    bounds = [(1e-3, None), (1e-3, None), (None, None)]
    best = minimize(loss, [1, 1, 0], jac=True, method="L-BFGS-B", bounds=bounds)
    found = list(beta(labels, p, prior_strength=0.0).curves[0].values())
    np.testing.assert_allclose(found, best.x, atol=1e-3)
    assert loss(np.array(found))[0] <= best.fun + 1e-6
    assert platt(labels, p, prior_strength=0.0).curves[0]["slope"] == pytest.approx(1e-3)
    assert parameters(temperature(1 - drawn(10, p, p), p, prior_strength=0.0)) == pytest.approx(
        1000
    )


def test_isotonic_is_nearly_flat_where_the_ranking_says_nothing():
    p = spread(19, 3000, -1.0)
    labels = drawn(20, p, expit(-0.8 * logit(p)))
    after = apply_calibration(isotonic(labels, p, prior_strength=0.0), p)
    assert np.abs(after - labels.mean()).mean() < 0.05
    assert len(np.unique(after)) > 0.99 * len(np.unique(p))


# What rare labels borrow


@pytest.mark.parametrize("kind", FITTED)
def test_without_prior_a_label_stands_alone(kind):
    labels, probs, _ = focal_like()
    together = apply_calibration(CALIBRATORS[kind](labels, probs, prior_strength=0.0), probs)
    for index in range(labels.shape[1]):
        one = slice(index, index + 1)
        alone = CALIBRATORS[kind](labels[:, one], probs[:, one], prior_strength=0.0)
        np.testing.assert_allclose(
            together[:, one], apply_calibration(alone, probs[:, one]), rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("prior", [1e15, INF])
def test_with_all_the_prior_labels_share_the_pooled_curve(kind, prior):
    labels, probs, _ = focal_like()
    pooled = CALIBRATORS[kind](labels.reshape(-1, 1), probs.reshape(-1, 1), prior_strength=0.0)
    expected = apply_calibration(pooled, probs.reshape(-1, 1)).reshape(probs.shape)
    after = apply_calibration(CALIBRATORS[kind](labels, probs, prior_strength=prior), probs)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("value", [0.0, 1.0, NAN])
def test_a_label_of_one_kind_of_rows_has_the_pooled_curve(kind, value):
    labels, probs, _ = focal_like()
    labels = labels.copy()
    labels[:, 2] = value
    after = apply_calibration(CALIBRATORS[kind](labels, probs), probs)
    known = ~np.isnan(labels)
    pooled = CALIBRATORS[kind](labels[known][:, None], probs[known][:, None], prior_strength=0.0)
    np.testing.assert_allclose(after[:, 2:3], apply_calibration(pooled, probs[:, 2:3]), rtol=1e-5)


@pytest.mark.parametrize("kind", FITTED)
def test_the_rarer_a_label_the_more_it_borrows(kind):
    p = np.repeat(spread(11, 8000, -1.0), 3, axis=1)
    labels = drawn(12, p, expit(logit(p) / 2))
    labels[:, 1] = drawn(13, p[:, :1], expit(logit(p[:, :1]) * 1.8))[:, 0]  # unlike the others
    labels[:, 2] = labels[:, 1]
    labels[300:, 2] = NAN  # and known of few
    own, borrowed, pooled = (
        apply_calibration(CALIBRATORS[kind](labels, p, prior_strength=prior), p)
        for prior in (0.0, 50.0, INF)
    )
    moved = np.abs(borrowed - own).mean(axis=0) / np.abs(pooled - own).mean(axis=0)
    assert moved[1] < 0.1 < moved[2] < 1


@pytest.mark.parametrize("prior", [5.0, 200.0])
def test_isotonic_mixes_logits_by_positives(prior):
    labels, probs, _ = focal_like()
    own, mixed, pooled = (
        logit(
            apply_calibration(isotonic(labels, probs, prior_strength=one), probs).astype(np.float64)
        )
        for one in (0.0, prior, INF)
    )
    share = labels.sum(axis=0) / (labels.sum(axis=0) + prior)
    expected = share * own + (1 - share) * pooled
    inside = expected < 6  # nearer to 1 float32 has few logits
    np.testing.assert_allclose(mixed[inside], expected[inside], atol=1e-3)


@pytest.mark.parametrize("prior", [5.0, 20.0, 100.0])
def test_the_prior_weighs_as_so_many_positives_of_the_pooled_data(prior):
    p = spread(17, 4000, -1.0, -1.0, -1.0)
    labels = drawn(18, p, expit(logit(p) * [1.5, 1.0, 1.0]))
    labels[200:, 0] = NAN
    known = ~np.isnan(labels)
    z = np.concatenate([logit(p[:200, 0]), logit(p[known])])[:, None]
    y = np.concatenate([labels[:200, 0], labels[known]])
    weights = np.append(np.ones(200), np.full(known.sum(), prior / labels[known].sum()))
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(z, y, weights)
    own, mixed, pooled = (
        1 / parameters(temperature(labels, p, prior_strength=one))[0, 0]
        for one in (0.0, prior, INF)
    )
    assert own - pooled > 0.3
    assert abs(mixed - model.coef_[0, 0]) < 0.05 * (own - pooled)  # to second order


# Little to go by


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("labels", [column(0), column(1), column(NAN), np.zeros((0, 1), "f4")])
def test_where_nothing_is_known_probabilities_stay(kind, labels):
    probs = np.linspace(1e-4, 1 - 1e-4, 99, dtype=np.float32)[:, None]
    found = CALIBRATORS[kind](labels, np.full_like(labels, 0.3))
    np.testing.assert_allclose(apply_calibration(found, probs), probs, rtol=1e-5)


@pytest.mark.parametrize("kind", FITTED[1:])
@pytest.mark.parametrize("prob", [0.0, 0.2, 1.0])
def test_a_constant_probability_becomes_the_frequency(kind, prob):
    labels = np.repeat(column(1, 0, 0, 0), 300, axis=0)
    probs = np.full_like(labels, prob)
    after = apply_calibration(CALIBRATORS[kind](labels, probs), probs)
    np.testing.assert_allclose(after, 0.25, atol=2e-3)


@pytest.mark.parametrize("kind", FITTED)
def test_classes_that_do_not_overlap_have_a_steep_curve(kind):
    probs = np.linspace(0.01, 0.99, 200, dtype=np.float32)[:, None]
    labels = (probs > 0.5).astype(np.float32)
    after = apply_calibration(CALIBRATORS[kind](labels, probs, prior_strength=0.0), probs)
    assert after[labels == 0].max() < 0.5 < after[labels == 1].min()
    assert np.abs(after - labels).mean() < 0.5 * np.abs(probs - labels).mean()


@pytest.mark.parametrize("kind", FITTED)
def test_unknown_labels_are_as_absent_rows(kind):
    labels, probs, _ = focal_like()
    labels, one = labels.copy(), slice(0, 1)
    labels[::3, 0] = NAN
    there = ~np.isnan(labels[:, 0])
    some = CALIBRATORS[kind](labels[:, one], probs[:, one])
    assert some == CALIBRATORS[kind](labels[there, one], probs[there, one])


@pytest.mark.parametrize("kind", FITTED)
def test_many_rows_and_labels_of_all_sorts_make_no_trouble(kind):
    rng = np.random.default_rng(14)
    probs = spread(15, 1000, *np.linspace(-6, 1, 28))
    labels = drawn(16, probs, probs)
    labels[rng.random(labels.shape) < 0.1] = NAN
    labels[:, :4] = [0, 1, NAN, 0]
    labels[7, 3] = 1
    probs[rng.random(probs.shape) < 0.01], probs[rng.random(probs.shape) < 0.01] = 0, 1
    probs[:, 5] = 0.5
    after = calibrate_out_of_fold(labels, probs, CALIBRATORS[kind])
    assert ((after > 0) & (after < 1)).all()


# Out of fold


@pytest.mark.parametrize("kind", FITTED)
def test_no_row_has_a_hand_in_its_own_curve(kind):
    labels, probs, _ = focal_like(400)
    labels = labels[:, :2].copy()
    labels[:, 1] = np.arange(400) % 2  # folds follow the rarest label: hold its place
    probs = probs[:, :2]
    rows = np.flatnonzero(labels[:, 0] == 0)[:1]
    before = calibrate_out_of_fold(labels, probs, CALIBRATORS[kind])
    seen = labels.copy()
    seen[rows, 0] = NAN  # never in the fold of a positive, so every fold stays
    after = calibrate_out_of_fold(seen, probs, CALIBRATORS[kind])
    np.testing.assert_array_equal(after[rows], before[rows])
    assert (after != before).any()


def test_folds_and_seed_matter_and_are_all_that_does():
    labels, probs, _ = focal_like(400)
    five = calibrate_out_of_fold(labels, probs, platt)
    assert five.tobytes() == calibrate_out_of_fold(labels, probs, platt, folds=5, seed=0).tobytes()
    assert (five != calibrate_out_of_fold(labels, probs, platt, folds=4)).any()
    assert (five != calibrate_out_of_fold(labels, probs, platt, seed=1)).any()
    with pytest.raises(ConfigError, match="at least 2"):
        calibrate_out_of_fold(labels, probs, platt, folds=1)


def test_rare_positives_are_in_every_fold():
    labels = np.zeros((1000, 3), np.float32)
    labels[:500, 0] = labels[490:510, 1] = labels[495:505, 2] = 1
    counts = []

    def counting(labels, probs):
        counts.append(labels.sum(axis=0))
        return none(labels, probs)

    calibrate_out_of_fold(labels, np.full_like(labels, 0.5), counting)
    assert [one[2] for one in counts] == [8] * 5
    assert np.ptp(counts, axis=0).max() <= 2


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("kind", list(CALIBRATORS))
def test_fewer_rows_than_folds(rows, kind):
    labels, probs, _ = focal_like(400)
    after = calibrate_out_of_fold(labels[:rows], probs[:rows], CALIBRATORS[kind])
    assert np.isfinite(after).all()


# Options


@pytest.mark.parametrize("kind", FITTED)
def test_prior_matters(kind):
    labels, probs, _ = focal_like(1000)
    assert options_of(CALIBRATORS[kind]).keys() == {"prior_strength"}
    found = [CALIBRATORS[kind](labels, probs, prior_strength=prior) for prior in (0.0, 20.0, 40.0)]
    assert found[1] == CALIBRATORS[kind](labels, probs)
    assert len({json.dumps(calibration_to_json(one)) for one in found}) == 3
    assert not options_of(none)
