"""The study of a search in its database: opened, read, and mended where a process died.

This module imports optuna, so it is imported where a search is made.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event, exc
from sqlalchemy.engine import make_url

from jaxclf.errors import ConfigError, StorageError
from jaxclf.experiment.config import Experiment, to_dict
from jaxclf.experiment.search_space import ParamValues, Space
from jaxclf.search.study_report import TrialResult

HEARTBEAT, GRACE = 60, 180  # seconds: a trial on another machine that is silent for long is dead
RETRIES = 2  # of a trial whose process died: one that kills every process is given up
STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@contextmanager
def database(url: str) -> Iterator[None]:
    """A database's troubles as StorageError, without its password."""
    try:
        yield
    except (StorageInternalError, exc.SQLAlchemyError) as error:
        of = error if isinstance(error, exc.SQLAlchemyError) else error.__cause__
        said = getattr(of, "orig", None) or type(error).__name__
        raise StorageError(f"{_shown(url)}: {said}") from error


def open_study(
    url: str, out: Path, base: Experiment, space: Space, own: ParamValues
) -> optuna.Study:
    """The study of this search, new or gone on with, under the name of its folder.

    own: the answers that are the experiment as it stands: the first trial of a new study.
    Raises ConfigError where it is the study of another search, StorageError.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with database(url), experimental():
        try:
            retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
            storage = RDBStorage(
                url,
                {"connect_args": {"timeout": GRACE}} if url.startswith("sqlite") else None,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=retry,
            )
        except (exc.ArgumentError, ImportError) as error:
            raise ConfigError(f"--storage {_shown(url)}: {error}") from None
        if storage.engine.dialect.name == "sqlite":
            # It locks no rows: between one process's look and its write another's could fall.
            storage.engine.dispose()
            event.listen(
                storage.engine, "begin", lambda one: one.exec_driver_sql("BEGIN IMMEDIATE")
            )
        study = optuna.create_study(
            study_name=out.resolve().name,
            storage=storage,
            direction="maximize",
            # Trials are compared at the same share of their epochs, in percent, and not before a
            # third: schedules of other lengths stand alike there, after the same epoch they do not.
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=30),
            load_if_exists=True,
        )
        about = {"experiment": to_dict(base), "space": repr(space)}
        for key, value in about.items():
            if key not in study.user_attrs:
                study.set_user_attr(key, value)
            elif study.user_attrs[key] != value:
                raise ConfigError(f"{out} holds a search of another {key}; give another --out")
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(own)
    return study


def is_finished(trial: FrozenTrial) -> bool:
    """Whether it counts as one of those asked for: a death or a signal is no result."""
    failed = trial.state == TrialState.FAIL and "error" in trial.user_attrs
    return failed or trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def outcomes(study: optuna.Study) -> list[TrialResult]:
    """What came of each finished trial, in order."""
    return [outcome_of(one) for one in study.get_trials(deepcopy=False) if is_finished(one)]


def outcome_of(trial: FrozenTrial) -> TrialResult:
    began, ended = trial.datetime_start, trial.datetime_complete
    return TrialResult(
        trial.number,
        STATES[trial.state],
        trial.value if trial.state == TrialState.COMPLETE else None,
        list(trial.intermediate_values.values()),
        dict(trial.params),
        trial.user_attrs["changes"],
        trial.user_attrs.get("error", ""),
        (ended - began).total_seconds() if began and ended else 0.0,
    )


def importances(study: optuna.Study) -> dict[str, float]:
    """Each dimension's share in reaching the best tenth of the trials (Watanabe et al. 2023, arXiv
    2304.10255), largest first; they sum to 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials, which the page says
        return optuna.importance.get_param_importances(study)


def requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial that was cut off, under a new number."""
    with experimental():
        RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, trial)


@contextmanager
def experimental() -> Iterator[None]:
    """Heartbeats are called an experiment of optuna's since its version 2.8."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except exc.ArgumentError:
        return "(not a database's URL)"
