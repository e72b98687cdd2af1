"""Each example is blended, calibrated and decided by what was fitted on the other folds."""

from itertools import product

import numpy as np
import pytest
from goemotions_like import draw_members
from label_tables import NAN

from jaxclf.decisions.blending import blend, blend_out_of_fold, simplex
from jaxclf.decisions.calibration import (
    CALIBRATION_FOLDS,
    apply_calibration,
    calibrate_out_of_fold,
    platt,
)
from jaxclf.decisions.evaluation import FOLDS, decide_crossfit
from jaxclf.decisions.folds import assign_folds
from jaxclf.decisions.thresholds import decide, per_label
from jaxclf.errors import ConfigError

# (the function, what it fits, how a fit is applied, its folds)
CASES = {
    "blend": (blend_out_of_fold, simplex, lambda fit, probs: blend(probs, fit), CALIBRATION_FOLDS),
    "calibrate": (calibrate_out_of_fold, platt, apply_calibration, CALIBRATION_FOLDS),
    "decide": (decide_crossfit, per_label, lambda fit, probs: decide(probs, fit), FOLDS),
}


def table(name):
    """(labels, probs), of several members where they are blended."""
    labels, probs = draw_members(0, (1.0, 0.6, 1.3), (1.0, 1.2, 2.0), rows=400)
    labels, probs = labels[:, -3:], probs[..., -3:]
    labels[::9] = NAN
    return labels, probs if name == "blend" else probs[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [*product(CASES, [{}, {"folds": 4}]), *product(["blend", "calibrate"], [{"seed": 1}])],
    ids=str,
)
def test_an_example_has_what_the_other_folds_fitted(name, options):
    out_of_fold, fitter, apply, folds = CASES[name]
    labels, probs = table(name)
    result = out_of_fold(labels, probs, fitter, **options)
    fold_of = assign_folds(labels, options.get("folds", folds), options.get("seed", 0))
    for fold in set(fold_of):
        held_out = fold_of == fold
        fit = fitter(labels[~held_out], probs[..., ~held_out, :])
        np.testing.assert_array_equal(result[held_out], apply(fit, probs[..., held_out, :]))


@pytest.mark.parametrize("name", ["blend", "calibrate"])
def test_a_single_fold_is_refused(name):
    with pytest.raises(ConfigError, match="at least 2"):
        CASES[name][0](*table(name), CASES[name][1], folds=1)
