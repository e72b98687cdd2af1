"""Predictions of a split, the validation metrics that choose the epoch, and the results of a
finished run: predictions, thresholds, the model and its card, the report."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import logit

from jaxclf.decisions.calibration import calibration_to_json
from jaxclf.decisions.evaluation import calibrate, make_rule, score_run
from jaxclf.decisions.metrics import compute_label_metrics, compute_metrics
from jaxclf.decisions.predictions import save_predictions, with_unknown
from jaxclf.decisions.selection import as_score, calibrated_log_loss, format_metric
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DivergedError
from jaxclf.files.json_file import write_json
from jaxclf.model.inference import gather, make_predict_step, prediction_shape, score
from jaxclf.model.storage.saved_model import SavedModel, save_model
from jaxclf.reports.diagnosis import diagnose
from jaxclf.reports.html_report import write_page
from jaxclf.reports.model_card import make_card
from jaxclf.text.tokenizer.tokenize import lengths
from jaxclf.training.losses import LOSSES
from jaxclf.training.manifest import Metrics
from jaxclf.training.setup import RunSetup
from jaxclf.types import Predictions

log = logging.getLogger(__name__)

SMALLEST = 1e-7  # of a probability, so that its logit is finite
SHOWN = ("calibrated_log_loss", "macro_f1", "map")  # after each epoch

# (params, split) -> predictions with the network's probabilities, not calibrated.
Predict = Callable[[dict, str], Predictions]


def make_predict(setup: RunSetup) -> Predict:
    shape, classes = prediction_shape(setup.experiment.data.windows), len(setup.names)
    predict_step = make_predict_step(setup.apply)

    def predict(params: dict, split: str) -> Predictions:
        examples = setup.splits[split]
        scored = score(predict_step, params, setup.tokens[split], shape, classes)
        probs = gather(scored, len(examples.ids), classes)
        if count := int((~np.isfinite(probs).all(axis=1)).sum()):
            raise DivergedError(
                f"{split}: the predictions of {count} of {len(probs)} examples are not finite; "
                "lower optim.lr or optim.max_grad_norm"
            )
        labels = with_unknown(examples.labels, examples.label_mask)
        return Predictions(np.array(examples.ids), probs, labels, split)

    return predict


def evaluate(setup: RunSetup, predict: Predict, params: dict) -> Metrics:
    """Validation metrics with thresholds fitted on the same split.

    `score` is higher for a better value of `train.metric`. `loss` is the training loss on
    validation, without dropout and other regularization. `f1/LABEL` is that of a label.
    """
    experiment, metric = setup.experiment, setup.experiment.train.metric
    network = predict(params, "val")
    calibrated, _ = calibrate({"val": network}, experiment.calibration)
    val = calibrated["val"]
    thresholds = make_rule(experiment.threshold, setup.names)(val.labels, val.probs)
    decided = decide(val.probs, thresholds)
    rows = compute_label_metrics(val.labels, val.probs, decided, setup.names)
    metrics = {
        "loss": _validation_loss(setup, network),
        "calibrated_log_loss": calibrated_log_loss(network.labels, network.probs),
        **compute_metrics(val.labels, val.probs, decided),
        **{f"f1/{name}": row["f1"] for name, row in rows.items()},
    }
    shown = dict.fromkeys((metric, *SHOWN))
    log.info("  val %s", ", ".join(format_metric(name, metrics[name]) for name in shown))
    return {"score": as_score(metric, metrics[metric]), **metrics}


def _validation_loss(setup: RunSetup, network: Predictions) -> float:
    """The mean loss of the validation examples under the network's probabilities."""
    loss, is_known = setup.experiment.loss, ~np.isnan(network.labels)
    probs = np.clip(network.probs.astype(np.float64), SMALLEST, 1 - SMALLEST)
    matrices = (logit(probs), np.nan_to_num(network.labels), is_known)
    values = LOSSES[loss.name](
        *(jnp.asarray(matrix, jnp.float32) for matrix in matrices), setup.stats, **loss.options
    )
    return float(values.mean())


def write_results(
    out: Path, setup: RunSetup, params: dict[str, Any], predict: Predict, history: list[Metrics]
) -> dict[str, Any]:
    """Calibrate, fit thresholds, score validation and test, and write all results but the page.

    params: the trained parameters.
    report.json marks a finished run and is written last. Returns its content.
    """
    experiment, names, provenance = setup.experiment, setup.names, setup.provenance
    predictions = {split: predict(params, split) for split in setup.tokens}
    predictions, calibration = calibrate(predictions, experiment.calibration)
    for split, split_predictions in predictions.items():
        save_predictions(out / "predictions" / f"{split}.npz", split_predictions)
    reported = {split: predictions[split] for split in ("val", "test")}
    report, thresholds = score_run(reported, experiment.threshold, names, provenance)
    write_json(out / "thresholds.json", thresholds)
    model_card = make_card(
        out.name,
        [experiment.encoder],
        report,
        experiment.threshold.name,
        experiment.calibration.name,
        {split: len(examples.ids) for split, examples in setup.splits.items()},
        experiment.data.label_descriptions,
    )
    model = SavedModel(
        experiment,
        setup.hf_config,
        names,
        thresholds,
        calibration_to_json(calibration),
        provenance,
        params,
    )
    save_model(out / "model", model, setup.tokenizer, model_card)
    positives = dict(zip(names, setup.stats.positives.tolist(), strict=True))
    write_json(out / "diagnosis.json", diagnose(history, report, experiment, positives))
    write_json(out / "report.json", report)
    return report


def write_html_report(out: Path, setup: RunSetup, include_texts: bool) -> None:
    """Write report.html and its figures; `include_texts` shows the hardest test examples' texts."""
    texts = setup.splits["test"].texts if include_texts else None
    write_page(out, lengths(setup.tokens["test"]), texts)
