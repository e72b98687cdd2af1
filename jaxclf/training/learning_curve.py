"""Runs on nested shares of the training rows, and the learning curves of their scores."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxclf.decisions.calibration import CALIBRATORS, calibrate_out_of_fold
from jaxclf.decisions.evaluation import decide_crossfit, make_rule
from jaxclf.decisions.learning_curve import make_record
from jaxclf.decisions.predictions import load_predictions
from jaxclf.decisions.provenance import read_provenance
from jaxclf.errors import DataError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.experiment.validation import check
from jaxclf.files.json_file import read_json
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train

log = logging.getLogger(__name__)

# These can bring knowledge of rows that a smaller share leaves out.
LEAKS = ("train.init_from", "data.soft_labels")


def train_shares(
    name: str, changes: Mapping[str, Any], shares: Iterable[float], out: Path
) -> dict[float, Path]:
    """Train an experiment on each share of its training rows, the smallest first.

    Returns the run folders, `out`/share-0.25 and so on. Finished runs are kept, and an interrupted
    one is resumed.
    """
    tune_malloc()
    experiment = check(override(catalog.load(name), changes))
    if any((experiment.train.init_from, experiment.data.soft_labels)):
        log.warning(
            "%s may know the rows that a smaller share leaves out; the curve is then too flat",
            " and ".join(LEAKS),
        )
    runs = {share: out / f"share-{share:g}" for share in sorted(shares)}
    for number, (share, run) in enumerate(runs.items(), 1):
        log.info("share %g, run %d of %d: %s", share, number, len(runs), run)
        train(override(experiment, {"data.train_share": share * experiment.data.train_share}), run)
        jax.clear_caches()  # other rows pack into other shapes
    return runs


def score_shares(runs: Mapping[float, Path]) -> dict[str, Any]:
    """The learning curves of finished runs on val: the content of curve.json.

    Decisions have thresholds fitted on other folds. Probabilities are calibrated out of fold, by
    Platt's curves where the experiment has no calibration. Raises DataError if two shares have
    equally many rows.
    """
    outputs, rows = [], []
    for run in runs.values():
        experiment = catalog.load(str(run / "config.json"))
        names = tuple(read_json(run / "labels.json"))
        val = load_predictions(run / "predictions" / "val.npz")
        probs, rule = val.probs, make_rule(experiment.threshold, names)
        decided = decide_crossfit(val.labels, probs, rule)
        if experiment.calibration.name == "none":
            probs = calibrate_out_of_fold(val.labels, probs, CALIBRATORS["platt"])
        outputs.append((probs, decided))
        rows.append(read_provenance(run).record["splits"]["train"]["rows"])
    if len(set(rows)) < len(rows):
        raise DataError(
            f"the shares have {', '.join(map(str, rows))} rows; all must differ: give fewer shares"
        )
    return {
        "shares": list(runs),
        "runs": [run.name for run in runs.values()],
        **make_record(val.labels, outputs, rows, names),
    }
