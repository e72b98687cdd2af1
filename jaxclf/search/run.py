"""A search of an experiment's space, from the command line's arguments to its results, in one
process or several."""

import functools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.decisions.selection import format_metric
from jaxclf.errors import ConfigError, JaxclfError, StoppedError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import difference, override
from jaxclf.experiment.search_space import Choice, ParamValues, Space, check_space, format_changes
from jaxclf.experiment.validation import check
from jaxclf.model.classifier import build
from jaxclf.model.pretrained import resolve
from jaxclf.model.storage.saved_model import open_encoder
from jaxclf.search import study as studies
from jaxclf.search.report import write_report
from jaxclf.search.study import TrialResult, find_best
from jaxclf.search.trials import ReportScore, Search, run_trials
from jaxclf.search.winner import check_writable
from jaxclf.signals import shielded, stop_on_signals
from jaxclf.terminal import print_text
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between looks at the workers


class Plan(NamedTuple):
    """What a search is to do, checked before anything is written."""

    name: str  # of the experiment
    base: Experiment
    space: Space
    initial: ParamValues  # the experiment's own point of the space
    out: Path
    url: str  # of the database
    winner: Path  # where the best trial is written


def make_plan(
    name: str,
    changes: Mapping[str, Any],
    out: Path | None = None,
    url: str | None = None,
    winner: Path | None = None,
) -> Plan:
    """Load an experiment and its space, and check both.

    changes: keys held fixed in all trials, which are not searched. out: the folder of the search,
    runs/NAME-search by default. url: of a database, OUT/study.db by default. winner: a .py file,
    NAME_tuned.py beside the experiment by default, or in `out` if that folder is read-only.
    Raises ConfigError, DataError.
    """
    base = override(catalog.load(name), changes)
    space = remove_fixed(catalog.load_space(name), changes)
    file = catalog.file_of(name)
    out = out or Path("runs") / f"{file.stem}-search"
    beside = file.with_name(f"{file.stem}_tuned.py")
    winner = winner or (beside if os.access(file.parent, os.W_OK) else out / beside.name)
    check_writable(winner)
    initial = check_space(space, base, make_checker())
    url = url or f"sqlite:///{(out / 'study.db').resolve()}"
    return Plan(name, base, space, initial, out, url, winner)


def run_search(
    plan: Plan, trials: int, workers: int, arguments: Sequence[str], is_worker: bool
) -> list[TrialResult]:
    """Run trials until `trials` are finished, write study.html, and return all results.

    arguments: of the command line of a worker, if `workers` > 1. is_worker: write no page.
    Raises StoppedError after a signal, and JaxclfError.
    """
    stopped = f"stopped; run the same command again to resume from {plan.out}"
    plan.out.mkdir(parents=True, exist_ok=True)
    with studies.raise_storage_errors(plan.url):
        study = studies.open_study(plan.url, plan.out, plan.base, plan.space, plan.initial)
        search = Search(study, plan.base, plan.space, trials, plan.out)
        try:
            if workers > 1:
                run_workers(workers, arguments, plan.out)
            else:
                tune_malloc()
                run_trials(search, _train, functools.partial(_print_result, search))
        except StoppedError as error:
            raise StoppedError(stopped, error.signal_number) from None
        results = studies.trial_results(study)
        if len(results) < trials:
            raise StoppedError(f"all workers were killed; {stopped}", signal.SIGKILL)
        if not is_worker:
            name = catalog.file_of(plan.name).stem
            write_report(plan.out / "study.html", name, plan.base.train.metric, study, plan.space)
    return results


def remove_fixed(space: Space, changes: Mapping[str, Any]) -> Space:
    """The space without the keys that the command line holds fixed."""
    free = {key: dimension for key, dimension in space.items() if key not in changes}
    for key in changes:
        parent = key.rpartition(".")[0]
        if isinstance(free.get(parent), Choice):
            raise ConfigError(f"{key}: {parent} is searched; set {parent} too to hold both fixed")
    if not free:
        raise ConfigError("every dimension is held fixed; nothing is left to search")
    return free


def make_checker() -> Callable[[Experiment], None]:
    """Make a function that raises what `train` would raise before it reads any data."""

    @functools.cache
    def encoder_config(name: str, revision: str) -> dict[str, Any]:
        return open_encoder(resolve(name, revision).folder)[0]

    def check_experiment(experiment: Experiment) -> None:
        check(experiment)
        encoder = experiment.encoder
        build(experiment, encoder_config(encoder.name, encoder.revision), 2)

    return check_experiment


def _train(experiment: Experiment, folder: Path, report_score: ReportScore) -> float:
    report = train(experiment, folder, "never", report_score=report_score, score_test=False)
    return report["val"][experiment.train.metric]


def _print_result(search: Search, result: TrialResult) -> None:
    results = studies.trial_results(search.study)
    metric = search.base.train.metric
    best = find_best(results, metric)
    if result.score is not None:
        outcome = format_metric(metric, result.score)
    elif result.state == "pruned":
        outcome = f"pruned at {result.epochs[-1]:.4f} after epoch {len(result.epochs)}"
    else:
        outcome = f"failed: {result.error}"
    so_far = "" if best is None else f", best {best.score:.4f} (trial {best.number})"
    changes = format_changes(difference(search.base, override(search.base, result.changes)))
    print_text(
        f"trial {result.number} ({len(results)} of {search.trials}): {outcome}{so_far} | "
        f"{changes or 'the experiment itself'}"
    )


def run_workers(count: int, arguments: Sequence[str], out: Path) -> None:
    """Run `jaxclf tune` with these arguments in `count` processes until all have ended.

    Their logs are `out`/worker-1.log and so on. The trial of a worker that is killed is left to the
    others. An error of a worker ends all of them and is raised here; so does a signal.
    """
    command = [sys.executable, "-m", "jaxclf.tune", *arguments]
    workers: dict[Path, subprocess.Popen] = {}
    with stop_on_signals():
        try:
            for index in range(1, count + 1):
                path = out / f"worker-{index}.log"
                with path.open("w") as file, shielded():
                    # In a session of its own, so that Ctrl-C reaches a worker once: from here.
                    workers[path] = subprocess.Popen(command, stderr=file, start_new_session=True)
            log.info("%d workers; their progress is in %s/worker-*.log", count, out)
            while workers:
                time.sleep(POLL)
                for path, worker in list(workers.items()):
                    if worker.poll() is not None:
                        check_exit(path, workers.pop(path).returncode)
        finally:
            for worker in workers.values():
                worker.terminate()
            for worker in workers.values():
                worker.wait()


def check_exit(path: Path, code: int) -> None:
    """Raise the error that ends the log of a worker; warn about a worker that was killed."""
    if code < 0 or code >= 128:
        log.warning("%s was stopped; the other workers take over its trial", path.stem)
    elif code:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        message = lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
        error = JaxclfError(f"{message} (see {path})")
        error.exit_code = code
        raise error
