"""What a finished run leaves: predictions, thresholds, the model with its card, the report."""

from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from jaxclf.config import Experiment
from jaxclf.decisions.calibration import to_json
from jaxclf.decisions.card import card
from jaxclf.decisions.diagnosis import diagnose
from jaxclf.decisions.predictions import save_predictions
from jaxclf.decisions.report import calibrate, score_run, write_json
from jaxclf.model.handover import Handover, save_model
from jaxclf.training.checkpoint import Figures
from jaxclf.types import Predictions


class Made(NamedTuple):
    """A trained network and what it was made of."""

    experiment: Experiment
    hf_config: dict[str, Any]
    tokenizer: Tokenizer
    names: tuple[str, ...]
    params: dict[str, Any]
    ledger: dict[str, Any]  # of splits: which fitted what


def write_results(
    out: Path,
    made: Made,
    found: dict[str, Predictions],
    sizes: dict[str, int],
    history: list[Figures],
) -> dict[str, Any]:
    """Calibrate, fit thresholds, score validation and test, and write all of it; report.json, which
    marks a finished run, last. Returns what it holds.

    found: the network's own probabilities of each split but train. sizes: rows of each split.
    """
    experiment, names, ledger = made.experiment, made.names, made.ledger
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
        sizes,
        experiment.data.meanings,
    )
    curves = to_json(calibration)
    handover = Handover(experiment, made.hf_config, names, record, curves, ledger, made.params)
    save_model(out / "model", handover, made.tokenizer, text)
    write_json(out / "diagnosis.json", diagnose(history, report))
    write_json(out / "report.json", report)
    return report
