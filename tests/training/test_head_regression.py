"""The head starts at a logistic regression on the pooled vectors."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from jaxclf.decisions.metrics import log_loss
from jaxclf.decisions.predictions import with_unknown
from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.model.inference import gather, make_predict_step, prediction_shape, score
from jaxclf.training.head_regression import fit_regression, regress_head
from jaxclf.training.setup import init_params, make_setup


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(2, 1, (300, 6)).astype(np.float32)
    scores = x @ rng.normal(0, 1, (6, 3)).astype(np.float32)
    labels = (scores > np.quantile(scores, 0.7, axis=0)).astype(np.float32)
    return x, labels


def test_it_is_the_regression_of_scikit_learn(problem):
    x, labels = problem
    kernel, bias = fit_regression(x, labels, np.ones_like(labels), 3.0)
    length = np.sqrt(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1)))
    for label in range(3):
        model = LogisticRegression(C=3.0, tol=1e-8, max_iter=1000)
        model.fit((x - x.mean(axis=0)) / length, labels[:, label])
        # L-BFGS stops at a relative change of 2e-9 of the loss, in float32 products.
        np.testing.assert_allclose(kernel[:, label], model.coef_[0] / length, atol=5e-3)
        expected = model.predict_proba((x - x.mean(axis=0)) / length)[:, 1]
        np.testing.assert_allclose(expit(x @ kernel + bias)[:, label], expected, atol=2e-3)


def test_unknown_labels_count_for_nothing(problem):
    x, labels = problem
    mask = np.ones_like(labels)
    mask[::3, 1] = 0
    changed = np.where(mask > 0, labels, 1 - labels)
    first, second = (fit_regression(x, y, mask, 3.0) for y in (labels, changed))
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_label_without_positives_is_improbable_everywhere(problem):
    x, labels = problem
    labels[:, 2] = 0
    kernel, bias = fit_regression(x, labels, np.ones_like(labels), 3.0)
    np.testing.assert_allclose(expit(x @ kernel + bias)[:, 2], 1 / 302, rtol=1e-4)


@pytest.fixture(scope="module")
def setup(tiny_overrides):
    return make_setup(override(catalog.load("fast"), tiny_overrides))


def test_the_head_beats_the_frequencies_and_the_encoder_stays(setup):
    params = init_params(setup)
    regressed = regress_head(setup, params)
    assert regressed["encoder"] is params["encoder"]

    def loss(params):
        step, shape = (
            make_predict_step(setup.apply),
            prediction_shape(setup.experiment.data.windows),
        )
        val, classes = setup.splits["val"], len(setup.names)
        probs = gather(score(step, params, setup.tokens["val"], shape, classes), 48, classes)
        return log_loss(with_unknown(val.labels, val.label_mask), probs)

    assert loss(regressed) < loss(params)


def test_a_head_with_more_layers_is_refused(tiny_overrides):
    changes = {**tiny_overrides, "head": "residual"}
    setup = make_setup(override(catalog.load("fast"), changes))
    with pytest.raises(ConfigError, match="head=linear"):
        regress_head(setup, init_params(setup))
