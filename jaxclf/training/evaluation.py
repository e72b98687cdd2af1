"""A network's probabilities of a whole split, and its figures on validation."""

from collections.abc import Callable

import numpy as np

from jaxclf.decisions.evaluation import calibrate, fit_thresholds
from jaxclf.decisions.metrics import aggregate, log_loss
from jaxclf.decisions.predictions import with_unknown
from jaxclf.decisions.thresholds import decide
from jaxclf.model.inference import gather, make_predict_step, prediction_shape, score
from jaxclf.training.checkpoint import Figures
from jaxclf.training.setup import RunSetup
from jaxclf.types import Predictions


def make_predict(prepared: RunSetup) -> Callable[[dict, str], Predictions]:
    """(params, split) -> the network's own probabilities, before calibration."""
    data, classes = prepared.experiment.data, len(prepared.names)
    shape = prediction_shape(data.windows)
    predict_step = make_predict_step(prepared.apply)

    def predict(params: dict, split: str) -> Predictions:
        examples = prepared.splits[split]
        scored = score(predict_step, params, prepared.tokens[split], shape, classes)
        probs = gather(scored, len(examples.ids), classes)
        labels = with_unknown(examples.labels, examples.label_mask)
        return Predictions(np.array(examples.ids), probs, labels, split)

    return predict


def make_evaluate(
    prepared: RunSetup,
    predict: Callable[[dict, str], Predictions],
    say: Callable[[str], None],
) -> Callable[[dict], Figures]:
    """params -> figures of validation with thresholds fitted on it, and `score`, the one that
    chooses."""
    experiment = prepared.experiment
    metric = experiment.train.metric

    def evaluate(params: dict) -> Figures:
        calibrated, _ = calibrate({"val": predict(params, "val")}, experiment.calibration)
        found = calibrated["val"]
        thresholds = fit_thresholds(found, experiment.threshold, prepared.names)
        figures = aggregate(found.labels, found.probs, decide(found.probs, thresholds))
        say(
            f"  val {metric} {figures[metric]:.4f}, "
            f"log loss {log_loss(found.labels, found.probs):.4f}"
        )
        return {"score": figures[metric], **figures}

    return evaluate
