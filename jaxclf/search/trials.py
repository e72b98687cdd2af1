"""A study: trials claimed, run, taken up again and counted, however many processes work on it.

This module imports optuna, so it is imported where a search is made. What several processes must
not do at once (count trials and claim one, fail a dead one) is one transaction of the database.
"""

import gc
import math
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from jaxclf.experiment.config import Experiment, override
from jaxclf.experiment.search_space import Choice, Dimension, Float, Space, draw
from jaxclf.search.study import GRACE, experimental, is_finished, outcome_of, requeue
from jaxclf.search.study_report import TrialResult

POLL = 1.0  # seconds between looks at what others still run

# (experiment, folder, watch) -> the score on validation of the weights that it would keep.
Run = Callable[[Experiment, Path, Callable[[float], None]], float]


class Search(NamedTuple):
    study: optuna.Study
    base: Experiment
    space: Space
    trials: int  # to be finished in all
    out: Path


class _FailedError(Exception):
    """Ends a trial and not the search."""


def work(search: Search, run: Run, tell: Callable[[TrialResult], None]) -> None:
    """Run trials until as many are finished as there should be, whoever runs them.

    tell: called with each trial that ended here.
    A trial that diverges or runs out of memory has failed, and is finished; what else `run` raises
    ends the search. A trial whose process died is taken up again as a new one. Raises StoppedError
    after SIGINT or SIGTERM, the trial that ran queued anew.
    """
    with _signals() as heed:

        def stop_or_run(
            experiment: Experiment, folder: Path, watch: Callable[[float], None]
        ) -> float:
            def stop_or_watch(score: float) -> None:
                heed(False)
                watch(score)
                heed(True)

            heed(True)
            try:
                return run(experiment, folder, stop_or_watch)
            finally:
                heed(False)

        while True:
            heed(False)
            _recover_stale_trials(search)
            trials = search.study.get_trials(deepcopy=False)
            if sum(map(is_finished, trials)) >= search.trials:
                return
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if waiting or sum(map(_counts, trials)) < search.trials:
                _one(search, stop_or_run, tell)
            else:
                time.sleep(POLL)


@contextmanager
def _signals() -> Iterator[Callable[[bool], None]]:
    """heed(at_once): raises StoppedError where SIGINT or SIGTERM came, and has one that comes later
    raise it at once, or wait for the next call.

    Raised in the middle of a transaction, the error would leave the database locked; raised inside
    a destructor, it would be lost, but for the next call.
    """
    came: list[int] = []
    raises = False

    def heed(at_once: bool) -> None:
        nonlocal raises
        raises = at_once
        if came:
            raise StoppedError("stopped", came[0])

    def enter(number: int, _: object) -> None:
        came.append(number)
        if raises:
            heed(True)

    before = {number: signal.signal(number, enter) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def folder_of(out: Path, number: int) -> Path:
    return out / "trials" / f"{number:04d}"


def _one(search: Search, run: Run, tell: Callable[[TrialResult], None]) -> None:
    begun = []

    def objective(trial: Trial) -> float:
        begun.append(trial.number)
        return _run(search, run, trial)

    def report(study: optuna.Study, trial: FrozenTrial) -> None:
        if is_finished(trial):
            tell(outcome_of(trial))

    try:
        search.study.optimize(objective, 1, catch=(_FailedError,), callbacks=[report])
    except StoppedError:
        for trial in search.study.get_trials(states=(TrialState.FAIL,)):
            if trial.number in begun:
                requeue(search.study, trial)
        raise
    finally:
        jax.clear_caches()  # another network's programs
        gc.collect()


def _run(search: Search, run: Run, trial: Trial) -> float:
    study = search.study
    trial.set_user_attr("process", [_here(), os.getpid(), trial.number])
    before = [one for one in study.get_trials(deepcopy=False) if one.number < trial.number]
    if sum(map(_counts, before)) >= search.trials:
        # Claimed at the same moment as another process claimed the last one.
        raise _FailedError
    # From the trial's number: a search gone on with draws what it would have drawn.
    seed = np.random.SeedSequence([search.base.seed, trial.number]).generate_state(1).item()
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    changes = draw(search.space, lambda name, of: _suggest(trial, name, of))
    trial.set_user_attr("changes", changes)
    experiment, folder = override(search.base, changes), folder_of(search.out, trial.number)
    epochs = 0

    def watch(score: float) -> None:
        nonlocal epochs
        epochs += 1
        _check_number(score)
        trial.report(score, round(100 * epochs / experiment.train.epochs))
        if epochs < experiment.train.epochs and trial.should_prune():
            raise optuna.TrialPruned

    try:
        score = run(experiment, folder, watch)
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


def _counts(trial: FrozenTrial) -> bool:
    """Whether it is finished or will be."""
    return is_finished(trial) or trial.state in (TrialState.RUNNING, TrialState.WAITING)


def _recover_stale_trials(search: Search) -> None:
    """Take up trials whose process is gone, and remove their folders."""
    study = search.study
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _is_dead(trial):
            continue
        try:
            failed = study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):
            continue  # another process saw it first
        requeue(study, failed)
    with experimental():
        fail_stale_trials(study)
    # Folders before trials: a trial runs before it has a folder.
    folders = list((search.out / "trials").glob("*"))
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    kept = {folder_of(search.out, trial.number) for trial in running}
    for folder in folders:
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _is_dead(trial: FrozenTrial) -> bool:
    """Of a process of this machine that is gone, or that died before it could say whose it was."""
    here, process, number = trial.user_attrs.get("process", ("", 0, -1))
    if number != trial.number:
        began = trial.datetime_start
        return began is not None and datetime.now() - began > timedelta(seconds=GRACE)
    if here != _here():
        return False  # its heartbeat tells
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _here() -> str:
    """Where a process number means something: this machine since it started, and in a container
    that container."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{started} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
