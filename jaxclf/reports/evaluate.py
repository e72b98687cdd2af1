"""The scores of a finished run: on a labeled file, or on its own predictions again."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.decisions.evaluation import calibrate, evaluate_split, score_run
from jaxclf.decisions.members import MEMBERS
from jaxclf.decisions.predictions import load_predictions, with_unknown
from jaxclf.decisions.provenance import (
    PROVENANCE,
    join_provenances,
    make_provenance,
    read_provenance,
    used_rows,
    with_fitted,
)
from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.experiment.overrides import iter_fields, override
from jaxclf.experiment.validation import check_labels, check_spec
from jaxclf.files.json_file import read_json
from jaxclf.inference.cascade.summary import STAGES
from jaxclf.inference.load import load
from jaxclf.reports.html_report import write_page
from jaxclf.text.data_splits import read_data
from jaxclf.text.reader import read
from jaxclf.text.splits import hash_texts
from jaxclf.text.tokenizer.tokenize import describe_cut, is_cut, lengths, tokenize
from jaxclf.types import Predictions

log = logging.getLogger(__name__)


def evaluate_file(run: Path, data: Path) -> dict[str, Any]:
    """Score a labeled file with the model of a run. The scores count the rows whose texts were used
    for fitting, whatever the file's name, format and order."""
    classifier = load(run)
    examples = read(data, classifier.labels, **classifier.experiment.data.columns)
    windows = classifier.experiment.data.windows
    cut = int(is_cut(classifier.tokenizer, examples.texts, windows).sum())
    if sentence := describe_cut(cut, len(examples.texts), windows):
        log.info("note: %s", sentence)
    probs = classifier.predict_proba(examples.texts)
    labels = with_unknown(examples.labels, examples.label_mask)
    predictions = Predictions(np.array(examples.ids), probs, labels, data.stem)
    scores = evaluate_split(predictions, classifier.thresholds, classifier.labels)
    return scores | {"used_rows": used_rows(classifier.provenance, hash_texts(examples.texts))}


def evaluate_predictions(run: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Compute report.json again from the predictions of a run: calibrate, fit thresholds on val,
    score val and test.

    changes: `calibration` and `threshold` in place of the run's own. Predictions of another
    program, which have no config.json, get the defaults of an experiment.
    """
    path = run / "labels.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; is it the folder of a run?")
    names = tuple(read_json(path))
    experiment = _load_experiment(run)
    is_run = (run / "config.json").is_file()
    # The predictions of a run are calibrated already.
    calibration = Spec("none") if is_run else experiment.calibration
    before = Experiment(Data("", "", ""), calibration=calibration, threshold=experiment.threshold)
    after = override(before, changes or {})
    fields = dict(iter_fields(before))
    if changed := [key for key, value in iter_fields(after) if value != fields[key]]:
        if fixed := [key for key in changed if key not in ("calibration", "threshold")]:
            raise ConfigError(f"{fixed[0]}: only calibration and threshold apply after training")
        if "calibration" in changed and is_run and experiment.calibration.name != "none":
            raise ConfigError("calibration: the predictions of this run are calibrated already")
        check_spec("calibration", after.calibration)
        check_spec("threshold", after.threshold)
        check_labels(after, names)
    predictions = {
        split: load_predictions(run / "predictions" / f"{split}.npz") for split in ("val", "test")
    }
    predictions, _ = calibrate(predictions, after.calibration)
    is_recorded = (run / PROVENANCE).is_file()
    average = experiment.regularization.weight_averaging.name
    rules = {"average": average, "calibration": "none", "threshold": "fixed"}
    provenance = read_provenance(run) if is_recorded else make_provenance({}, rules)
    if changes or not is_recorded:
        provenance = join_provenances([provenance])  # without the thresholds
        for what, spec in (("calibration", after.calibration), ("thresholds", after.threshold)):
            if spec.name not in ("none", "fixed"):
                provenance = with_fitted(provenance, f"the {what} ({spec.name})", ["val"])
    return score_run(predictions, after.threshold, names, provenance)[0]


def rewrite_report(run: Path, include_texts: bool = False) -> Path:
    """Write report.html of a run again.

    Texts and their lengths come from the test file that config.json names. The lengths are left out
    if that file or the model is missing. Raises DataError if texts are requested and missing.
    """
    if not (run / "config.json").is_file() or not (run / "model").is_dir():
        if include_texts:
            raise DataError(f"{run}: no config.json and model/, so the texts cannot be read")
        return write_page(run)
    classifier = load(run)
    data = classifier.experiment.data
    if not Path(data.test or data.train).is_file() and not include_texts:
        return write_page(run)
    examples = read_data(replace(data, labels=classifier.labels))["test"]
    if list(examples.ids) != list(load_predictions(run / "predictions" / "test.npz").ids):
        raise DataError(f"{examples.file}: its rows are not the test examples of {run}")
    tokens = tokenize(classifier.tokenizer, examples.texts, data.windows)
    return write_page(run, lengths(tokens), examples.texts if include_texts else None)


def _load_experiment(run: Path) -> Experiment:
    """The experiment of a run; of an ensemble or a cascade, what is known of it; of another
    program, the defaults."""
    if (run / "config.json").is_file():
        return catalog.load(str(run / "config.json"))
    experiment = Experiment(Data("", "", ""))
    for name in (MEMBERS, STAGES):
        if (run / name).is_file():
            rule = read_json(run / name)["threshold"]
            return override(experiment, {"calibration": "none", "threshold": rule})
    return experiment
