"""Experiment trackers: the figures of TensorBoard in Weights & Biases or MLflow.

Their libraries are imported only where `train.track` names them.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.errors import import_extra
from jaxclf.experiment.config import Experiment, Spec
from jaxclf.experiment.overrides import iter_fields
from jaxclf.files.json_file import read_json, write_json

ID = "tracker.json"  # of the tracker's run, so that a resumed run goes on there
PROJECT = "jaxclf"
REFUSED = re.compile(r"[^\w./: -]")  # in the names of MLflow's metrics


class Tracker(NamedTuple):
    """log: (figures by name, step). finish: called at the end."""

    log: Callable[[Mapping[str, float], int], object]
    finish: Callable[[], object]


def hyperparameters(experiment: Experiment) -> dict[str, Any]:
    """The values of an experiment under dotted keys: numbers, strings and booleans."""
    flat = {}
    for key, value in iter_fields(experiment):
        named = isinstance(value, Spec)
        options = value.options.items() if named else ()
        flat[key] = value.name if named else value
        flat |= {f"{key}.{option}": setting for option, setting in options}
    return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in flat.items()}


def open_tracker(run: Path, experiment: Experiment) -> Tracker | None:
    """The tracker that `train.track` names. Raises ConfigError if its library is not installed."""
    name = experiment.train.track
    if name == "none":
        return None
    known = read_json(run / ID).get(name) if (run / ID).is_file() else None
    tracker, run_id = TRACKERS[name](run.name, known, hyperparameters(experiment))
    write_json(run / ID, {name: run_id})
    return tracker


def _open_wandb(name: str, run_id: str | None, values: dict[str, Any]) -> tuple[Tracker, str]:
    wandb = import_extra("wandb", "wandb")
    session = wandb.init(project=PROJECT, name=name, id=run_id, resume="allow", config=values)
    return Tracker(lambda figures, step: session.log(dict(figures), step=step), session.finish), (
        session.id
    )


def _open_mlflow(name: str, run_id: str | None, values: dict[str, Any]) -> tuple[Tracker, str]:
    mlflow = import_extra("mlflow", "mlflow")
    if run_id is None:
        mlflow.set_experiment(PROJECT)
    session = mlflow.start_run(run_id=run_id, run_name=name, nested=True)
    if run_id is None:
        mlflow.log_params(values)

    def log(figures: Mapping[str, float], step: int) -> None:
        named = {REFUSED.sub("_", figure): value for figure, value in figures.items()}
        mlflow.log_metrics(named, step=step)

    return Tracker(log, mlflow.end_run), session.info.run_id


TRACKERS = {"wandb": _open_wandb, "mlflow": _open_mlflow}
