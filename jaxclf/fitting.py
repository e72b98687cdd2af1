"""From data to a classifier in one call: `jaxclf.fit`."""

import contextlib
import logging
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.load import load
from jaxclf.terminal import show_log
from jaxclf.text.in_memory import write_data
from jaxclf.training.run import train
from jaxclf.training.run_folder import DATA


def fit(
    data: Any,
    experiment: str | Experiment = catalog.DEFAULT,
    out: str | Path | None = None,
    verbose: bool = True,
    **overrides: Any,
) -> Classifier:
    """Train an experiment on data, and open the model.

    data: a file that `jaxclf train --data` takes; a DataFrame of pandas or polars, a
        `datasets.Dataset` or a list of dicts, whose rows are as those of a file; a pair (texts,
        labels), where a text has a list of names or a row of a matrix; or a dict of several such
        parts with the keys train, val and test. Without parts the rows are divided at random.
    experiment: a name of the catalog, a .py file, a run's config.json, or a value.
    out: the run folder; the same call resumes it. None: a temporary folder that is removed with the
        classifier. Keep the model with `save`.
    verbose: whether to show the log.
    overrides: changes under dotted keys: `fit(data, **{"train.epochs": 2})`.
    Raises JaxclfError.
    """
    start = experiment if isinstance(experiment, Experiment) else catalog.load(str(experiment))
    folder = Path(tempfile.mkdtemp(prefix="jaxclf-") if out is None else out)
    is_file = isinstance(data, str | Path)
    run = folder / (Path(data).stem if is_file else "model") if out is None else folder
    try:
        changed = override(start, {"data.train": str(data if is_file else run / DATA), **overrides})
        if not is_file:
            write_data(run / DATA, data, changed.data.labels)
        with show_log(logging.INFO) if verbose else contextlib.nullcontext():
            train(changed, run)
        classifier = load(run)
    except BaseException:
        if out is None:
            shutil.rmtree(folder)
        raise
    if out is None:
        weakref.finalize(classifier, shutil.rmtree, folder, ignore_errors=True)
    return classifier
