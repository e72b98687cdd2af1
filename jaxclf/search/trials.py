"""Run trials of a search: claim, train, prune, retry and count them, in any number of processes.

What two processes must not do at once (count trials and claim one, fail a dead one) is one
transaction of the database.
"""

import gc
import math
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from jaxclf.errors import DivergedError, StoppedError
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override
from jaxclf.experiment.search_space import Choice, Dimension, Float, Space, draw
from jaxclf.search import study as studies
from jaxclf.search.study import TrialResult
from jaxclf.signals import interruptible, raise_if_stopped, shielded, stop_on_signals

POLL = 1.0  # seconds between looks at trials of other processes

# (experiment, folder, report_score) -> the score on validation of the weights that it keeps.
# `report_score` is called with the score of each epoch and the share of the epochs that are done.
ReportScore = Callable[[float, float], None]
Run = Callable[[Experiment, Path, ReportScore], float]


class Search(NamedTuple):
    study: optuna.Study
    base: Experiment
    space: Space
    trials: int  # to finish, those of earlier and other processes included
    out: Path


class _FailedError(Exception):
    """Ends a trial but not the search."""


def run_trials(search: Search, run: Run, report: Callable[[TrialResult], None]) -> None:
    """Run trials until `search.trials` are finished, by this or by other processes.

    report: called with the result of each trial that this process finished.
    A trial that diverges or runs out of memory counts as finished and failed; any other error of
    `run` ends the search. A trial whose process died is queued again. Raises StoppedError after
    SIGINT or SIGTERM; the interrupted trial is queued again.
    """

    def run_interruptibly(experiment: Experiment, folder: Path, report_score: ReportScore) -> float:
        def report_uninterrupted(score: float, done: float) -> None:
            with shielded():
                report_score(score, done)

        with interruptible():
            return run(experiment, folder, report_uninterrupted)

    # StoppedError during a transaction would leave the database locked.
    with stop_on_signals(), shielded():
        while True:
            raise_if_stopped()
            _recover_stale_trials(search)
            trials = search.study.get_trials(deepcopy=False)
            if sum(map(studies.is_finished, trials)) >= search.trials:
                return
            is_waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if is_waiting or sum(map(_is_counted, trials)) < search.trials:
                _run_next_trial(search, run_interruptibly, report)
            else:
                time.sleep(POLL)


def trial_folder(out: Path, number: int) -> Path:
    """Where a trial trains; the folder is removed when the trial ends."""
    return out / "trials" / f"{number:04d}"


def _run_next_trial(search: Search, run: Run, report: Callable[[TrialResult], None]) -> None:
    numbers = []

    def objective(trial: Trial) -> float:
        numbers.append(trial.number)
        return _run_trial(search, run, trial)

    def report_result(study: optuna.Study, trial: FrozenTrial) -> None:
        if studies.is_finished(trial):
            report(studies.result_from_trial(trial))

    try:
        search.study.optimize(objective, 1, catch=(_FailedError,), callbacks=[report_result])
    except StoppedError:
        for trial in search.study.get_trials(states=(TrialState.FAIL,)):
            if trial.number in numbers:
                studies.requeue(search.study, trial)
        raise
    finally:
        jax.clear_caches()  # the next trial may be another network
        gc.collect()


def _run_trial(search: Search, run: Run, trial: Trial) -> float:
    study = search.study
    trials = study.get_trials(deepcopy=False)
    if sum(_is_counted(earlier) for earlier in trials[: trial.number]) >= search.trials:
        # Another process claimed the last trial at the same moment.
        raise _FailedError
    # Seeded by the trial's number, so that a resumed search draws what it would have drawn.
    seed = np.random.SeedSequence([search.base.seed, trial.number]).generate_state(1).item()
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    changes = draw(search.space, lambda name, dimension: _suggest(trial, name, dimension))
    trial.set_user_attr("changes", changes)
    trial.set_user_attr("started", trial.number)
    experiment = override(search.base, changes)
    folder = trial_folder(search.out, trial.number)

    def report_score(score: float, done: float) -> None:
        _check_number(score)
        trial.report(score, round(100 * done))
        if done < 1 and trial.should_prune():
            raise optuna.TrialPruned

    try:
        score = run(experiment, folder, report_score)
        _check_number(score)
        return score
    except DivergedError as error:
        trial.set_user_attr("error", str(error))
        raise _FailedError from None
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        trial.set_user_attr("error", "out of memory")
        raise _FailedError from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_number(score: float) -> None:
    if math.isnan(score):
        raise DivergedError("the score on validation is not a number")


def _suggest(trial: Trial, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(name, list(dimension.values))
    if isinstance(dimension, Float):
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)


def _is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial is finished or will be."""
    return studies.is_finished(trial) or trial.state in (TrialState.RUNNING, TrialState.WAITING)


def _recover_stale_trials(search: Search) -> None:
    """Queue the trials of dead processes again, and remove their folders."""
    study = search.study
    with studies.ignore_experimental_warnings():
        fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _has_died_early(trial):
            continue
        try:
            failed = study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            continue  # another process was faster
        studies.requeue(study, failed)
    # Folders and their locks are listed before trials, since a trial is claimed before it has one.
    paths = list((search.out / "trials").glob("*"))
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    kept = {trial_folder(search.out, trial.number).name for trial in running}
    for path in paths:
        if path.name.partition(".")[0] in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _has_died_early(trial: FrozenTrial) -> bool:
    """Whether the process died between claiming the trial and its first heartbeat, without which
    Optuna never calls a trial stale."""
    is_old = trial.datetime_start is not None and (
        datetime.now() - trial.datetime_start > timedelta(seconds=studies.GRACE)
    )
    # A trial that was queued again has the attributes of the one before.
    return is_old and trial.user_attrs.get("started") != trial.number
