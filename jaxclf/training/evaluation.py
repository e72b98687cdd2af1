"""Predictions of a split, and the validation metrics that choose the epoch."""

import logging
from collections.abc import Callable

import numpy as np

from jaxclf.decisions.evaluation import calibrate, fit_thresholds
from jaxclf.decisions.metrics import compute_metrics, log_loss
from jaxclf.decisions.predictions import with_unknown
from jaxclf.decisions.thresholds import decide
from jaxclf.model.inference import gather, make_predict_step, prediction_shape, score
from jaxclf.training.checkpoint import Metrics
from jaxclf.training.setup import RunSetup
from jaxclf.types import Predictions

log = logging.getLogger(__name__)


def make_predict(setup: RunSetup) -> Callable[[dict, str], Predictions]:
    """Make (params, split) -> predictions with the network's probabilities, not calibrated."""
    windows, classes = setup.experiment.data.windows, len(setup.names)
    shape = prediction_shape(windows)
    predict_step = make_predict_step(setup.apply)

    def predict(params: dict, split: str) -> Predictions:
        examples = setup.splits[split]
        scored = score(predict_step, params, setup.tokens[split], shape, classes)
        probs = gather(scored, len(examples.ids), classes)
        labels = with_unknown(examples.labels, examples.label_mask)
        return Predictions(np.array(examples.ids), probs, labels, split)

    return predict


def make_evaluate(
    setup: RunSetup, predict: Callable[[dict, str], Predictions]
) -> Callable[[dict], Metrics]:
    """Make params -> validation metrics with thresholds fitted on the same split.

    `score` is the value of `train.metric`.
    """
    experiment = setup.experiment
    metric = experiment.train.metric

    def evaluate(params: dict) -> Metrics:
        calibrated, _ = calibrate({"val": predict(params, "val")}, experiment.calibration)
        val = calibrated["val"]
        thresholds = fit_thresholds(val, experiment.threshold, setup.names)
        metrics = compute_metrics(val.labels, val.probs, decide(val.probs, thresholds))
        loss = log_loss(val.labels, val.probs)
        log.info("  val %s %.4f, log loss %.4f", metric, metrics[metric], loss)
        return {"score": metrics[metric], **metrics}

    return evaluate
