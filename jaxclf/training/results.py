"""What a finished run leaves: predictions, thresholds, the model with its card, the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxclf.decisions.calibration import to_json
from jaxclf.decisions.evaluation import calibrate, score_run
from jaxclf.decisions.predictions import save_predictions
from jaxclf.files.json_file import write_json
from jaxclf.model.storage.saved_model import SavedModel, save_model
from jaxclf.reports.diagnosis import diagnose
from jaxclf.reports.model_card import card
from jaxclf.training.checkpoint import Figures
from jaxclf.training.setup import RunSetup
from jaxclf.types import Predictions


def write_results(
    out: Path,
    prepared: RunSetup,
    params: dict[str, Any],
    predict: Callable[[dict, str], Predictions],
    history: list[Figures],
) -> dict[str, Any]:
    """Calibrate, fit thresholds, score validation and test, and write all of it; report.json, which
    marks a finished run, last. Returns what it holds.

    params: of the trained network. predict: (params, split) -> its own probabilities.
    """
    experiment, names, ledger = prepared.experiment, prepared.names, prepared.provenance
    found = {split: predict(params, split) for split in prepared.tokens}
    found, calibration = calibrate(found, experiment.calibration)
    for split, predictions in found.items():
        save_predictions(out / "predictions" / f"{split}.npz", predictions)
    reported = {split: found[split] for split in ("val", "test")}
    report, record = score_run(reported, experiment.threshold, names, ledger)
    write_json(out / "thresholds.json", record)
    text = card(
        out.name,
        experiment.encoder.name,
        report,
        experiment.threshold.name,
        experiment.calibration.name,
        {name: len(split.ids) for name, split in prepared.splits.items()},
        experiment.data.label_descriptions,
    )
    curves = to_json(calibration)
    handover = SavedModel(experiment, prepared.hf_config, names, record, curves, ledger, params)
    save_model(out / "model", handover, prepared.tokenizer, text)
    write_json(out / "diagnosis.json", diagnose(history, report))
    write_json(out / "report.json", report)
    return report
