"""A training run, from an experiment to a finished run folder."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.cli import say
from jaxclf.experiment.config import Experiment, to_dict
from jaxclf.experiment.validation import check
from jaxclf.files.json_file import write_json
from jaxclf.reports.html_report import write_page
from jaxclf.text.tokenizer.tokenize import lengths
from jaxclf.training import checkpoint, distributed
from jaxclf.training.averaging import AVERAGES
from jaxclf.training.checkpoint import Figures, Progress
from jaxclf.training.evaluation import make_evaluate, make_predict
from jaxclf.training.loop import init_state, run_loop
from jaxclf.training.losses import LOSSES
from jaxclf.training.memory import raise_on_oom, retry_with_smaller_micro_batches
from jaxclf.training.optimizer import learning_rate, make_optimizer
from jaxclf.training.param_groups import stop_gradient_on
from jaxclf.training.results import write_results
from jaxclf.training.run_folder import environment, open_run
from jaxclf.training.setup import RunSetup, init_params, make_setup
from jaxclf.training.step import dropout_key, make_train_step, weights_of


def train(
    experiment: Experiment,
    out: Path,
    resume: str = "auto",
    show_text: bool = False,
    watch: Callable[[float], None] | None = None,
    test: bool = True,
) -> dict[str, Any]:
    """Train, choose the best checkpoint by validation, score the test split once, and write the
    run folder.

    resume: "auto" goes on from a run of the same experiment in `out`, or answers with its report
        where it is finished; "never" wants `out` to be new.
    show_text: whether report.html shows the texts of the hardest test examples, or their ids alone.
    watch: called with each epoch's score on validation; what it raises ends the run there.
    test: False ends the run before the test split is scored, as a search must: what returns is
        `{"val": figures}` of the chosen weights, `score` among them, and the folder is unfinished.
    Returns what report.json holds. Raises JaxclfError; nothing is written before data and
    experiment are found good. Where the device has no room for the first batch, the run is of half
    the micro-batch and twice the accumulation, again and again.
    """

    def attempt(experiment: Experiment, resume: str) -> dict[str, Any]:
        return _train(experiment, out, resume, show_text, watch, test)

    return retry_with_smaller_micro_batches(attempt, experiment, out, resume, say)


def _train(
    experiment: Experiment,
    out: Path,
    resume: str,
    show_text: bool,
    watch: Callable[[float], None] | None,
    test: bool,
) -> dict[str, Any]:
    from jaxclf.train import REGISTRIES  # until the table is below this module

    check(experiment, REGISTRIES)
    prepared = make_setup(experiment, say)
    experiment, epochs = prepared.experiment, prepared.epochs
    distributed.check_same([to_dict(experiment), prepared.provenance])

    def begin() -> dict[str, Any] | None:
        """The folder, and the report where the run in it is finished."""
        open_run(out, experiment, resume)
        if (out / "report.json").is_file():
            say(f"{out} is finished; its report:")
            if show_text or not (out / "report.html").is_file():
                _page(prepared, out, show_text)
            return json.loads((out / "report.json").read_text(encoding="utf-8"))
        write_json(out / "labels.json", prepared.names)
        write_json(out / "environment.json", environment())
        write_json(out / "provenance.json", prepared.provenance)

    if (finished := distributed.broadcast_from_primary(begin)) is not None:
        return finished

    regularization = experiment.regularization
    accumulate = experiment.optim.gradient_accumulation_steps
    updates = sum(epochs.sizes) // accumulate
    tx = make_optimizer(experiment.optim, updates)
    schedule = learning_rate(experiment.optim, updates)
    train_step = make_train_step(
        stop_gradient_on(prepared.apply, experiment.optim.freeze),
        functools.partial(LOSSES[experiment.loss.name], **experiment.loss.options),
        tx,
        prepared.stats,
        experiment.train.batch_size,
        regularization,
        accumulate,
        distributed.sharding_for(distributed.EVERYWHERE),
    )
    predict = make_predict(prepared)
    evaluate = make_evaluate(prepared, predict, say)

    def evaluate_epoch(params: dict) -> Figures:
        figures = evaluate(params)
        if watch is not None:
            watch(figures["score"])
        return figures

    params = init_params(prepared)
    state, progress = init_state(
        params, tx.init(params), dropout_key(experiment.seed), bool(regularization.ema_decay)
    )
    like = checkpoint.abstract_state(state)  # the state itself is given away step by step

    def resumed() -> Progress:
        nonlocal state
        last = checkpoint.latest(out, say)
        if last is None:
            return progress
        state = checkpoint.restore(out, last, like)
        say(f"resumed after batch {last.step}")
        return last.progress

    progress = Progress(*distributed.broadcast_from_primary(resumed))
    state = distributed.replicate(state)
    progress = run_loop(
        out,
        state,
        progress,
        raise_on_oom(train_step),
        lambda done: float(np.asarray(schedule(max(done - 1, 0) // accumulate))),
        epochs,
        evaluate_epoch,
        experiment.train.patience,
        experiment.train.checkpoint_every * accumulate,
        keep_epochs=regularization.weight_averaging.name != "best",
    )

    def finish() -> dict[str, Any]:
        average = functools.partial(
            AVERAGES[regularization.weight_averaging.name],
            **regularization.weight_averaging.options,
        )
        chosen = average(
            checkpoint.epochs(out, say),
            lambda one: weights_of(checkpoint.restore(out, one, like)),
        )
        if not test:
            return {"val": evaluate(chosen)}
        report = write_results(out, prepared, chosen, predict, progress.history)
        _page(prepared, out, show_text)
        return report

    return distributed.broadcast_from_primary(finish)


def _page(prepared: RunSetup, out: Path, show_text: bool) -> None:
    texts = prepared.splits["test"].texts if show_text else None
    write_page(out, lengths(prepared.tokens["test"]), texts)
