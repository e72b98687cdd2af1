"""A training run, from an experiment to a finished run folder."""

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax

from jaxclf.decisions.provenance import read_provenance, write_provenance
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import to_dict
from jaxclf.experiment.validation import check
from jaxclf.files.atomic import lock
from jaxclf.files.json_file import read_json, write_json
from jaxclf.signals import raise_if_stopped, stop_on_signals
from jaxclf.text.data_splits import write_split
from jaxclf.training import checkpoint, distributed
from jaxclf.training.evaluation import (
    Predict,
    evaluate,
    make_predict,
    write_html_report,
    write_results,
)
from jaxclf.training.head_regression import regress_head
from jaxclf.training.loop import init_state, run_loop
from jaxclf.training.losses import LOSSES
from jaxclf.training.manifest import Metrics, Progress
from jaxclf.training.memory import raise_on_oom, retry_with_smaller_micro_batches
from jaxclf.training.metrics_log import MetricsLog
from jaxclf.training.optimizer import learning_rate, make_optimizer
from jaxclf.training.param_groups import stop_gradient_on
from jaxclf.training.regularization import AVERAGES
from jaxclf.training.run_folder import describe_environment, open_run, settle_provenance
from jaxclf.training.setup import RunSetup, init_params, make_setup
from jaxclf.training.step import dropout_key, make_train_step, weights_of
from jaxclf.training.trackers import hyperparameters, open_tracker
from jaxclf.types import State

log = logging.getLogger(__name__)

# (`train.metric` on validation, share of the epochs that are done)
ReportScore = Callable[[float, float], None]


def train(
    experiment: Experiment,
    out: Path,
    resume: str = "auto",
    include_texts: bool = False,
    report_score: ReportScore | None = None,
    score_test: bool = True,
    allow_changes: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, choose the best checkpoint on validation, score the test split once, and write the
    run folder.

    resume: "auto" resumes a run of the same experiment in `out`, or returns the report of a
        finished one; "never" requires that `out` is new.
    include_texts: whether report.html shows the texts of the hardest test examples.
    report_score: called after each epoch; its exceptions end the run.
    score_test: False ends the run before the test split is scored, as a search needs it. Then the
        result is `{"val": metrics}` of the chosen weights, and the folder is unfinished.
    allow_changes: what may differ from what an earlier start of the run read, as the error of a
        refused start names it: "data.train", "encoder" and so on.
    Returns the content of report.json. Raises JaxclfError; nothing is written before data and
    experiment are checked. If the device runs out of memory, micro-batches are halved.
    """

    def attempt(experiment: Experiment, resume: str) -> dict[str, Any]:
        check(experiment)
        setup = make_setup(experiment)
        raise_if_stopped()
        distributed.check_same([to_dict(setup.experiment), setup.provenance.record])
        report = distributed.broadcast_from_primary(
            lambda: _start_run(out, setup, resume, include_texts, allow_changes)
        )
        if report is not None:
            return report
        predict = make_predict(setup)
        history, abstract = _fit(setup, out, predict, report_score)

        def finish() -> dict[str, Any]:
            averaging = setup.experiment.regularization.weight_averaging
            params = AVERAGES[averaging.name](
                checkpoint.epoch_checkpoints(out),
                lambda epoch: weights_of(checkpoint.restore(out, epoch, abstract)),
                **averaging.options,
            )
            if not score_test:
                return {"val": evaluate(setup, predict, params)}
            recorded = setup._replace(provenance=read_provenance(out))
            report = write_results(out, recorded, params, predict, history)
            write_html_report(out, setup, include_texts)
            return report

        return distributed.broadcast_from_primary(finish)

    with stop_on_signals(), contextlib.ExitStack() as stack:
        distributed.broadcast_from_primary(lambda: stack.enter_context(lock(out)))
        return retry_with_smaller_micro_batches(attempt, experiment, out, resume)


def _start_run(
    out: Path, setup: RunSetup, resume: str, include_texts: bool, allow_changes: Sequence[str]
) -> dict[str, Any] | None:
    """Open the run folder. Returns the report if its run is finished."""
    open_run(out, setup.experiment, resume)
    provenance = settle_provenance(out, setup.provenance, allow_changes)
    if (out / "report.json").is_file():
        log.info("%s is finished; its report:", out)
        if include_texts or not (out / "report.html").is_file():
            write_html_report(out, setup, include_texts)
        return read_json(out / "report.json")
    write_json(out / "labels.json", setup.names)
    write_json(out / "environment.json", describe_environment())
    write_provenance(out, provenance)
    if not (setup.experiment.data.val and setup.experiment.data.test):
        write_split(out, setup.splits)
    return None


def _fit(
    setup: RunSetup, out: Path, predict: Predict, report_score: ReportScore | None
) -> tuple[list[Metrics], State]:
    """Train to the end, from the newest checkpoint if there is one.

    Returns the metrics of each epoch, and the shapes and dtypes of the state.
    """
    experiment, epochs = setup.experiment, setup.epochs
    accumulation_steps = experiment.optim.gradient_accumulation_steps
    updates = sum(epochs.sizes) // accumulation_steps
    tx = make_optimizer(experiment.optim, updates)
    schedule = learning_rate(experiment.optim, updates)
    train_step = make_train_step(
        stop_gradient_on(setup.apply, experiment.optim.freeze),
        functools.partial(LOSSES[experiment.loss.name], **experiment.loss.options),
        tx,
        setup.stats,
        experiment.train.batch_size,
        experiment.regularization,
        accumulation_steps,
        distributed.sharding_for(distributed.REPLICATED),
    )

    def evaluate_epoch(params: dict, epoch: int) -> Metrics:
        metrics = evaluate(setup, predict, params)
        if report_score is not None:
            report_score(metrics[experiment.train.metric], (epoch + 1) / len(epochs.sizes))
        return metrics

    def learning_rate_at(step: int) -> float:
        return float(np.asarray(schedule(max(step - 1, 0) // accumulation_steps)))

    state, progress, abstract = _init_or_restore(setup, out, tx)
    checkpoint_every = experiment.train.checkpoint_every * accumulation_steps
    keep_epochs = experiment.regularization.weight_averaging.name != "best"
    distributed.broadcast_from_primary(
        lambda: checkpoint.require_space_for_run(
            out, abstract, epochs.sizes, checkpoint_every, keep_epochs
        )
    )
    log_metrics = functools.partial(
        MetricsLog,
        values=hyperparameters(experiment),
        tracker=open_tracker(out, experiment) if distributed.is_primary() else None,
    )
    progress = run_loop(
        out,
        state,
        progress,
        raise_on_oom(train_step),
        learning_rate_at,
        epochs,
        evaluate_epoch,
        experiment.train.patience,
        checkpoint_every,
        keep_epochs,
        log_metrics,
    )
    return progress.history, abstract


def _init_or_restore(
    setup: RunSetup, out: Path, tx: optax.GradientTransformation
) -> tuple[State, Progress, State]:
    """The state and progress to train from, and the state's shapes and dtypes."""
    optim, key = setup.experiment.optim, dropout_key(setup.experiment.seed)
    has_ema = bool(setup.experiment.regularization.ema_decay)
    params = init_params(setup)
    state, progress = init_state(params, tx.init(params), key, has_ema)
    abstract = checkpoint.abstract_state(state)  # the steps donate the state itself

    def restore() -> Progress:
        nonlocal state
        latest = checkpoint.latest_checkpoint(out)
        if latest is None:
            if optim.init_head_from_regression and "head" not in setup.pretrained:
                regressed = regress_head(setup, params)
                state, _ = init_state(regressed, tx.init(regressed), key, has_ema)
            return progress
        state = checkpoint.restore(out, latest, abstract)
        log.info("resumed after batch %d", latest.step)
        return latest.progress

    progress = Progress(*distributed.broadcast_from_primary(restore))
    return distributed.replicate(state), progress, abstract
