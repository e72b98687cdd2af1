"""The Optuna study of a search: its database, its trials, and their results."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event, exc
from sqlalchemy.engine import make_url

from jaxclf.decisions.selection import SELECTION_METRICS, as_score
from jaxclf.errors import ConfigError, StorageError
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import to_dict
from jaxclf.experiment.search_space import ParamValues, Space

HEARTBEAT, GRACE = 10, 60  # seconds between signs of life, and until a silent trial counts as dead
LOCK_TIMEOUT = 180  # seconds that SQLite waits for a lock
MAX_RETRIES = 2  # of a trial whose process died: a trial that kills every process is given up
STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class TrialResult(NamedTuple):
    """What a finished trial reached."""

    number: int
    state: str  # done, pruned, failed
    score: float | None  # `train.metric` on validation; None unless done
    epochs: list[float]  # the metric after each epoch
    changes: dict[str, Any]  # to the experiment, by dotted key
    error: str  # why the trial failed
    seconds: float


def find_best(results: Sequence[TrialResult], metric: str) -> TrialResult | None:
    """The first of the results with the best score in a metric; None if no trial is done."""
    done = [result for result in results if result.score is not None]
    return max(done, key=lambda result: as_score(metric, result.score or 0.0), default=None)


def initial_score(results: Sequence[TrialResult]) -> float | None:
    """The score of the experiment itself, which is trial 0; None if that trial is not done."""
    return next((result.score for result in results if result.number == 0), None)


@contextlib.contextmanager
def raise_storage_errors(url: str) -> Iterator[None]:
    """Raise errors of the database as StorageError, without its password."""
    try:
        yield
    except (StorageInternalError, exc.SQLAlchemyError) as error:
        cause = error if isinstance(error, exc.SQLAlchemyError) else error.__cause__
        reason = getattr(cause, "orig", None) or type(error).__name__
        raise StorageError(f"{_without_password(url)}: {reason}") from error


def open_study(
    url: str, out: Path, base: Experiment, space: Space, initial: ParamValues
) -> optuna.Study:
    """Open the study of a search, or create it, under the name of the folder `out`.

    initial: the parameters of the experiment itself, which are the first trial of a new study.
    Raises ConfigError if the study belongs to another search or to another version.
    """
    is_higher_better = SELECTION_METRICS[base.train.metric].higher_is_better
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.create_study(
        study_name=out.resolve().name,
        storage=_open_storage(url),
        direction="maximize" if is_higher_better else "minimize",
        # A step is the percentage of a trial's epochs, so trials with different numbers of
        # epochs are compared at the same point of their schedules.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=30),
        load_if_exists=True,
    )
    _check_search(study, out, base, space)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(initial)
    return study


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial has a result. A trial that was killed or stopped has none."""
    has_failed = trial.state == TrialState.FAIL and "error" in trial.user_attrs
    return has_failed or trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def trial_results(study: optuna.Study) -> list[TrialResult]:
    """The results of all finished trials, in order."""
    trials = study.get_trials(deepcopy=False)
    return [result_from_trial(trial) for trial in trials if is_finished(trial)]


def result_from_trial(trial: FrozenTrial) -> TrialResult:
    """The result of a finished trial."""
    start, end = trial.datetime_start, trial.datetime_complete
    return TrialResult(
        trial.number,
        STATES[trial.state],
        trial.value if trial.state == TrialState.COMPLETE else None,
        list(trial.intermediate_values.values()),
        trial.user_attrs["changes"],
        trial.user_attrs.get("error", ""),
        (end - start).total_seconds() if start and end else 0.0,
    )


def requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the parameters of an interrupted trial again, as a new trial."""
    with ignore_experimental_warnings():
        RetryHeartbeatStaleTrialCallback(MAX_RETRIES)(study, trial)


@contextlib.contextmanager
def ignore_experimental_warnings() -> Iterator[None]:
    """Silence Optuna's notes that heartbeats and matplotlib plots are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _open_storage(url: str) -> RDBStorage:
    is_sqlite = url.startswith("sqlite")
    try:
        with ignore_experimental_warnings():
            storage = RDBStorage(
                url,
                {"connect_args": {"timeout": LOCK_TIMEOUT}} if is_sqlite else None,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MAX_RETRIES),
            )
    except (exc.ArgumentError, ImportError) as error:
        raise ConfigError(f"--storage {_without_password(url)}: {error}") from None
    if is_sqlite:
        # SQLite locks no rows. Without this, another process could write between the read and the
        # write of one transaction.
        storage.engine.dispose()
        event.listen(
            storage.engine,
            "begin",
            lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"),
        )
    return storage


def _check_search(study: optuna.Study, out: Path, base: Experiment, space: Space) -> None:
    """Record which search the study belongs to, or compare with what an existing study records."""
    if "experiment" in study.user_attrs and "jaxclf" not in study.user_attrs:
        raise ConfigError(
            f"{out} holds a search by jaxclf 0.1, whose keys have other names; give another --out"
        )
    record = {"experiment": to_dict(base), "space": repr(space)}
    for key, value in record.items():
        if study.user_attrs.get(key, value) != value:
            raise ConfigError(f"{out} holds a search of another {key}; give another --out")
    for key, value in {"jaxclf": version("jaxclf"), **record}.items():
        if key not in study.user_attrs:
            study.set_user_attr(key, value)


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except exc.ArgumentError:
        return "(not a database URL)"
