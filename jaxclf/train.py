"""Train an experiment: `python -m jaxclf.train --exp focal_attention`."""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxclf import catalogue
from jaxclf.command import parser_of, run_command
from jaxclf.config import Data, Experiment, override, parse_overrides, to_dict
from jaxclf.decisions.calibration import CALIBRATORS
from jaxclf.decisions.ledger import make_ledger, warning
from jaxclf.decisions.metrics import SELECTION, aggregate, log_loss
from jaxclf.decisions.page import write_page
from jaxclf.decisions.predictions import with_unknown
from jaxclf.decisions.report import (
    calibrate,
    fit_thresholds,
    table,
    write_json,
)
from jaxclf.decisions.thresholds import THRESHOLDS, decide
from jaxclf.errors import ConfigError
from jaxclf.model.classifier import build
from jaxclf.model.handover import open_encoder, pretrained_params
from jaxclf.model.heads import HEADS, POOLS
from jaxclf.model.inference import gather, make_predict_step, prediction_shape, score
from jaxclf.model.pretrained import resolve
from jaxclf.model.weights import leaves_of
from jaxclf.text.augment import AUGMENTERS
from jaxclf.text.sampling import SAMPLERS
from jaxclf.text.splits import describe
from jaxclf.text.tokens import lengths, tokenize
from jaxclf.training import checkpoint, hosts
from jaxclf.training.adversary import ADVERSARIES
from jaxclf.training.averaging import AVERAGES
from jaxclf.training.checkpoint import Figures, Ledger
from jaxclf.training.data import file_of, make_epochs, read_splits
from jaxclf.training.folder import environment, open_run
from jaxclf.training.groups import check_groups, hold_frozen, with_prior, without_last_layers
from jaxclf.training.loop import fit, start
from jaxclf.training.losses import LOSSES
from jaxclf.training.memory import keep_freed_memory, telling, within_memory
from jaxclf.training.optimizer import learning_rate, make_optimizer
from jaxclf.training.results import Made, write_results
from jaxclf.training.schedules import SCHEDULES
from jaxclf.training.step import dropout_key, make_train_step, weights_of
from jaxclf.types import Batch, LabelStats, Predictions
from jaxclf.validation import check, check_labels

REGISTRIES = {
    "pool": POOLS,
    "head": HEADS,
    "loss": LOSSES,
    "sampler": SAMPLERS,
    "augment": AUGMENTERS,
    "optim.schedule": SCHEDULES,
    "regular.adversary": ADVERSARIES,
    "regular.average": AVERAGES,
    "calibration": CALIBRATORS,
    "threshold": THRESHOLDS,
    "train.metric": dict.fromkeys(SELECTION, aggregate),
}


def say(text: str) -> None:
    """To the terminal, at once, beside a progress bar or a pipe."""
    print(text, file=sys.stderr, flush=True)


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

    return within_memory(attempt, experiment, out, resume, say)


def _train(
    experiment: Experiment,
    out: Path,
    resume: str,
    show_text: bool,
    watch: Callable[[float], None] | None,
    test: bool,
) -> dict[str, Any]:
    check(experiment, REGISTRIES)
    splits = read_splits(experiment, say)
    names = splits["train"].names
    resolved = resolve(experiment.encoder.name, experiment.encoder.revision)
    experiment = override(experiment, {"encoder.revision": resolved.revision})
    hf_config, tokenizer = open_encoder(resolved.folder)
    init, apply = build(experiment, hf_config, len(names))
    check_labels(experiment, names)
    if surplus := sorted(experiment.data.meanings.keys() - set(names)):
        say(f"note: data.meanings speaks of {', '.join(surplus)}, which the data do not have")
    data = experiment.data
    cut = functools.partial(
        tokenize,
        tokenizer,
        max_length=data.max_length,
        max_windows=data.max_windows,
        overlap=data.overlap,
    )
    scored = {name: split for name, split in splits.items() if name != "train"}
    tokens = {name: cut(split.texts) for name, split in scored.items()}
    epochs = make_epochs(experiment, splits["train"], cut)

    # The network's leaves: what the encoder's folder holds, the rest random.
    example = next(epochs.batches(0, 0))
    shapes = jax.eval_shape(init, jax.random.key(0), example)
    check_groups(experiment.optim, shapes)
    pretrained = pretrained_params(resolved.folder, shapes)
    pretrained = without_last_layers(pretrained, experiment.optim.reinit)

    def page() -> None:
        texts = splits["test"].texts if show_text else None
        write_page(out, lengths(tokens["test"]), texts)

    ledger_of_splits = make_ledger(
        {name: describe(split, file_of(experiment, name)) for name, split in splits.items()},
        {
            "average": experiment.regular.average.name,
            "calibration": experiment.calibration.name,
            "threshold": experiment.threshold.name,
        },
    )
    hosts.check_same([to_dict(experiment), ledger_of_splits])

    def begin() -> dict[str, Any] | None:
        """The folder, and the report where the run in it is finished."""
        open_run(out, experiment, resume)
        if (out / "report.json").is_file():
            say(f"{out} is finished; its report:")
            if show_text or not (out / "report.html").is_file():
                page()
            return json.loads((out / "report.json").read_text(encoding="utf-8"))
        write_json(out / "labels.json", names)
        write_json(out / "environment.json", environment())
        write_json(out / "ledger.json", ledger_of_splits)

    if (finished := hosts.told(begin)) is not None:
        return finished

    def fresh(key: jax.Array, batch: Batch) -> dict[tuple[str, ...], jax.Array]:
        made, given = leaves_of(init(key, batch)), leaves_of(pretrained)
        return {path: made[path] for path in made if path not in given}

    regular, accumulate = experiment.regular, experiment.optim.accumulate
    updates = sum(epochs.sizes) // accumulate
    tx = make_optimizer(experiment.optim, updates)
    schedule = learning_rate(experiment.optim, updates)
    stats = LabelStats(splits["train"].labels.sum(axis=0), splits["train"].known.sum(axis=0))
    loss = functools.partial(LOSSES[experiment.loss.name], **experiment.loss.options)
    trained = hold_frozen(apply, experiment.optim.freeze)
    size = experiment.train.batch_size
    everywhere = hosts.placed(hosts.EVERYWHERE)
    train_step = make_train_step(trained, loss, tx, stats, size, regular, accumulate, everywhere)

    predict_shape = prediction_shape(data.max_length, data.max_windows)
    predict_step = make_predict_step(apply)

    def predict(params: dict, split: str) -> Predictions:
        examples = splits[split]
        scored = score(predict_step, params, tokens[split], predict_shape, len(names))
        probs = gather(scored, len(examples.ids), len(names))
        labels = with_unknown(examples.labels, examples.known)
        return Predictions(np.array(examples.ids), probs, labels, split)

    def evaluate(params: dict) -> Figures:
        calibrated, _ = calibrate({"val": predict(params, "val")}, experiment.calibration)
        found = calibrated["val"]
        decided = decide(found.probs, fit_thresholds(found, experiment.threshold, names))
        figures = aggregate(found.labels, found.probs, decided)
        say(
            f"  val {experiment.train.metric} {figures[experiment.train.metric]:.4f}, "
            f"log loss {log_loss(found.labels, found.probs):.4f}"
        )
        return {"score": figures[experiment.train.metric], **figures}

    def evaluate_epoch(params: dict) -> Figures:
        figures = evaluate(params)
        if watch is not None:
            watch(figures["score"])
        return figures

    made = {**jax.jit(fresh)(jax.random.key(experiment.seed), example), **leaves_of(pretrained)}
    params = jax.tree.map(jax.numpy.asarray, unflatten_dict(made))
    params = with_prior(params, stats) if experiment.optim.prior else params
    key = dropout_key(experiment.seed)
    state, ledger = start(params, tx.init(params), key, bool(regular.ema))
    like = checkpoint.outline(state)  # the state itself is given away step by step

    def resumed() -> Ledger:
        nonlocal state
        last = checkpoint.latest(out, say)
        if last is None:
            return ledger
        state = checkpoint.restore(out, last, like)
        say(f"resumed after batch {last.step}")
        return last.ledger

    ledger = Ledger(*hosts.told(resumed))
    state = hosts.share(state)
    ledger = fit(
        out,
        state,
        ledger,
        telling(train_step),
        lambda done: float(np.asarray(schedule(max(done - 1, 0) // accumulate))),
        epochs,
        evaluate_epoch,
        experiment.train.patience,
        experiment.train.checkpoint_every * accumulate,
        keep_epochs=regular.average.name != "best",
    )

    def finish() -> dict[str, Any]:
        average = functools.partial(AVERAGES[regular.average.name], **regular.average.options)
        chosen = average(
            checkpoint.epochs(out, say),
            lambda one: weights_of(checkpoint.restore(out, one, like)),
            lambda params: evaluate(params)["score"],
        )
        if not test:
            return {"val": evaluate(chosen)}
        found = {split: predict(chosen, split) for split in scored}
        made = Made(experiment, hf_config, tokenizer, names, chosen, ledger_of_splits)
        sizes = {name: len(split.ids) for name, split in splits.items()}
        report = write_results(out, made, found, sizes, ledger.history)
        page()
        return report

    return hosts.told(finish)


def main() -> int:
    parser = parser_of(
        __doc__,
        epilog="\n".join(
            [
                f"experiments: {', '.join(catalogue.names())}",
                "",
                "keys, and their values where an experiment sets no other (--show prints all):",
                *(f"  {line}" for line in catalogue.lines(Experiment(Data("", "", "")))),
                "",
                "names that a key may take, with their options (loss=focal loss.gamma=3):",
                *(
                    f"  {key}: {', '.join(catalogue.signature(*item) for item in registry.items())}"
                    for key, registry in REGISTRIES.items()
                    if key != "train.metric"
                ),
                f"  train.metric: {', '.join(SELECTION)}",
            ]
        ),
    )
    parser.add_argument("--exp", required=True, help="a name, a .py file or a run's config.json")
    parser.add_argument("--out", type=Path, help="the run folder (default: runs/NAME)")
    parser.add_argument("--resume", choices=("auto", "never"), default="auto", help="default: auto")
    parser.add_argument(
        "--show", action="store_true", help="print the resolved experiment and stop"
    )
    parser.add_argument(
        "--show-text",
        action="store_true",
        help="show the texts of the hardest test examples in report.html",
    )
    parser.add_argument("--host", help="of several: I/N, the first of two as 0/2")
    parser.add_argument("--coordinator", help="with --host: the first host's ADDRESS:PORT")
    parser.add_argument("override", nargs="*", metavar="key=value", help="such as train.epochs=1")
    return run_command(parser, _command)


def _command(args: argparse.Namespace) -> None:
    experiment = override(catalogue.load(args.exp), parse_overrides(args.override))
    if args.show:
        check(experiment, REGISTRIES)
        print("\n".join(catalogue.lines(experiment)))
        return
    keep_freed_memory()
    if bool(args.host) != bool(args.coordinator):
        raise ConfigError("--host and --coordinator go together")
    if args.host:
        hosts.join(args.host, args.coordinator)
    name = Path(args.exp).parent.name if args.exp.endswith(".json") else Path(args.exp).stem
    out = args.out or Path("runs") / name
    report = train(experiment, out, args.resume, args.show_text)
    if not hosts.is_first():
        return
    print()
    print(table(report["test"], "test"))
    print()
    ledger = json.loads((out / "ledger.json").read_text(encoding="utf-8"))
    for split in report:
        if said := warning(ledger, split):
            print(f"- {said}")
    for sentence in json.loads((out / "diagnosis.json").read_text(encoding="utf-8")):
        print(f"- {sentence}")
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
