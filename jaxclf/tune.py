"""Search an experiment's space on validation: `python -m jaxclf.tune --exp focal_attention`."""

import argparse
import functools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxclf.cli import make_parser, run_command, say
from jaxclf.errors import ConfigError, DivergedError, JaxclfError, StoppedError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment, override, parse_overrides
from jaxclf.experiment.search_space import Choice, Space, check_space, format_changes
from jaxclf.experiment.source import MARK, check_writable, difference, to_python_source
from jaxclf.experiment.validation import check
from jaxclf.model.classifier import build
from jaxclf.model.pretrained import resolve
from jaxclf.model.storage.saved_model import open_encoder
from jaxclf.reports.figures.pictures import write_whole
from jaxclf.search.study_report import TrialResult, best_of, write_study
from jaxclf.train import REGISTRIES
from jaxclf.training.memory import tune_malloc
from jaxclf.training.run import train

if TYPE_CHECKING:
    from jaxclf.search.trials import Search

EPILOG = """\
  python -m jaxclf.tune --exp focal_attention --trials 30
  python -m jaxclf.train --exp focal_attention_tuned

The experiment's file has a `space`, described in jaxclf/experiment/search_space.py; a key that is
given on the command line is held fixed and not searched. The first trial is the experiment as it stands. A trial
that is worse than the median of the others at the same share of its epochs is pruned. What counts
is train.metric on validation; the test split is not looked at.

Stopped or killed, the same command goes on until N trials are finished in all: run to their end,
pruned, or failed. Several processes on one machine are --workers (their progress is in
OUT/worker-1.log and so on); on several machines, or to help a search that runs, give each the same
--storage and the same name of OUT, and all but one --join:
  python -m jaxclf.tune --exp focal_attention --trials 200 --out runs/big \\
      --storage postgresql://user:password@host/database --join

At the end it writes OUT/study.html and the winner as an experiment, NAME_tuned.py beside NAME.py.
"""


def main() -> int:
    parser = make_parser(__doc__, epilog=EPILOG)
    parser.add_argument("--exp", required=True, help="a name or a .py file that has a `space`")
    parser.add_argument(
        "--trials", type=int, required=True, help="so many finished, those of before among them"
    )
    parser.add_argument("--out", type=Path, help="the search's folder (runs/NAME-search)")
    parser.add_argument("--storage", metavar="URL", help="a database (sqlite:///OUT/study.db)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--join", action="store_true", help="only run trials; write nothing after")
    parser.add_argument("--write", metavar="PATH", type=Path, help="where the winner is written")
    parser.add_argument("override", nargs="*", metavar="key=value", help="held fixed in all trials")
    return run_command(parser, _command)


def _command(args: argparse.Namespace) -> None:
    for name in ("trials", "workers"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} {getattr(args, name)}: at least 1")
    given = parse_overrides(args.override)
    base = override(catalog.load(args.exp), given)
    space = without(catalog.load_space(args.exp), given)
    file = catalog.file_of(args.exp)
    out = args.out or Path("runs") / f"{file.stem}-search"
    beside = file.with_name(f"{file.stem}_tuned.py")
    target = args.write or (beside if os.access(file.parent, os.W_OK) else out / beside.name)
    check_writable(target)
    own = check_space(space, base, REGISTRIES, checker())
    try:
        from jaxclf.search import study as studies  # optuna is an extra
        from jaxclf.search import trials  # optuna is an extra
    except ModuleNotFoundError as error:
        raise ConfigError(f"no {error.name}: pip install 'jaxclf[tune]'") from None
    out.mkdir(parents=True, exist_ok=True)
    url = args.storage or f"sqlite:///{(out / 'study.db').resolve()}"
    with studies.database(url):
        study = studies.open_study(url, out, base, space, own)
        job = trials.Search(study, base, space, args.trials, out)
        try:
            if args.workers > 1:
                _run_workers(args.workers, out)
            else:
                tune_malloc()
                trials.work(job, _score, functools.partial(_tell, job))
        except (KeyboardInterrupt, StoppedError) as error:
            number = error.exit_code - 128 if isinstance(error, StoppedError) else signal.SIGINT
            raise StoppedError(f"stopped; the same command goes on from {out}", number) from None
        if args.join:
            return
        found = studies.outcomes(study)
        if len(found) < args.trials:
            said = f"every worker ended early; the same command goes on from {out}"
            raise StoppedError(said, signal.SIGKILL)
        page = write_study(
            out / "study.html", file.stem, base.train.metric, found, space,
            studies.importances(study),
        )  # fmt: skip
    _finish(args, base, found, target)
    print(f"page: {page}")


def without(space: Space, given: Mapping[str, Any]) -> Space:
    """The space without what the command line holds fixed."""
    free = {key: dimension for key, dimension in space.items() if key not in given}
    for key in given:
        parent = key.rpartition(".")[0]
        if isinstance(free.get(parent), Choice):
            raise ConfigError(f"{key}: {parent} is searched; give {parent} too to hold both fixed")
    if not free:
        raise ConfigError("every dimension is held fixed; nothing is left to search")
    return free


def checker() -> Callable[[Experiment], None]:
    """What `train` would say of an experiment before it reads any data."""

    @functools.cache
    def config_of(encoder: str, revision: str) -> dict[str, Any]:
        return open_encoder(resolve(encoder, revision).folder)[0]

    def holds(experiment: Experiment) -> None:
        check(experiment, REGISTRIES)
        encoder = experiment.encoder
        build(experiment, config_of(encoder.name, encoder.revision), 2)

    return holds


def _score(experiment: Experiment, folder: Path, watch: Callable[[float], None]) -> float:
    return train(experiment, folder, "never", report_score=watch, score_test=False)["val"]["score"]


def _tell(job: "Search", outcome: TrialResult) -> None:
    """A line on stdout for a trial that ended."""
    from jaxclf.search.study import outcomes

    found = outcomes(job.study)
    best = best_of(found)
    if outcome.score is not None:
        said = f"{job.base.train.metric} {outcome.score:.4f}"
    elif outcome.state == "pruned":
        said = f"pruned at {outcome.epochs[-1]:.4f} after epoch {len(outcome.epochs)}"
    else:
        said = f"failed: {outcome.error}"
    so_far = "" if best is None else f", best {best.score:.4f} (trial {best.number})"
    changes = format_changes(difference(job.base, override(job.base, outcome.changes)))
    print(
        f"trial {outcome.number} ({len(found)} of {job.trials}): {said}{so_far} | "
        f"{changes or 'the experiment as it stands'}",
        flush=True,
    )


def _run_workers(count: int, out: Path) -> None:
    """The same command in so many processes until all have ended; a worker that is killed leaves
    its trial to the others, an error ends all."""

    def stop(number: int, _: object) -> None:
        raise StoppedError("stopped", number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    command = [sys.executable, "-m", "jaxclf.tune", *sys.argv[1:], "--workers", "1", "--join"]
    workers: dict[Path, subprocess.Popen] = {}
    try:
        for index in range(1, count + 1):
            log = out / f"worker-{index}.log"
            with log.open("w") as file:
                # In a session of its own: ctrl-C reaches it once, from here.
                workers[log] = subprocess.Popen(command, stderr=file, start_new_session=True)
        say(f"{count} workers; their progress is in {out}/worker-*.log")
        while workers:
            time.sleep(0.2)
            for log, worker in list(workers.items()):
                if worker.poll() is not None:
                    _check_end(log, workers.pop(log).returncode)
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.wait()


def _check_end(log: Path, code: int) -> None:
    if code < 0 or code >= 128:
        say(f"{log.stem} was stopped; the others take up its trial")
    elif code:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        error = JaxclfError(f"{lines[-1].removeprefix('error: ') if lines else code} (see {log})")
        error.exit_code = code
        raise error


def _finish(
    args: argparse.Namespace, base: Experiment, found: list[TrialResult], target: Path
) -> None:
    """Write the winner and say what came of it."""
    best = best_of(found)
    if best is None:
        raise DivergedError(f"none of {len(found)} trials came to its end: {found[-1].error}")
    metric = base.train.metric
    winner = override(base, best.changes)
    name = target.stem if target.parent == catalog.folder() else str(target)
    use = f"python -m jaxclf.train --exp {shlex.quote(name)}"
    stood = next((one.score for one in found if one.number == 0), None)
    before = "" if stood is None else f", {stood:.4f} as it stood (trial 0)"
    words = ["--exp", args.exp, "--trials", str(args.trials), *args.override]
    told = f"Validation {metric} {best.score:.4f} (trial {best.number} of {len(found)}){before}"
    text = to_python_source(
        args.exp,
        winner,
        f"The {catalog.file_of(args.exp).stem} experiment, but with what a search found.",
        (
            f"    {use}",
            f"{told}. The best of many trials flatters, and the test split was not looked at: its "
            "score is known once this is trained.",
            f"{MARK}, which may write it anew:",
            f"    python -m jaxclf.tune {shlex.join(words)}",
        ),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, text.encode("utf-8"))
    print(f"\n{told}")
    print(format_changes(difference(base, winner)) or "the experiment as it stands is the best")
    print(f"written: {target}; on it goes with\n  {use}")


if __name__ == "__main__":
    sys.exit(main())
