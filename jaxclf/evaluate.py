"""Score a run: `python -m jaxclf.evaluate --run DIR [--data FILE]`."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.cli import CommandParser, run_command
from jaxclf.decisions.calibration import CALIBRATORS
from jaxclf.decisions.evaluation import calibrate, evaluate_split, score_run
from jaxclf.decisions.members import MEMBERS
from jaxclf.decisions.predictions import load_predictions, with_unknown
from jaxclf.decisions.provenance import make_provenance, split_of, warning
from jaxclf.decisions.thresholds import THRESHOLDS
from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Data, Experiment
from jaxclf.experiment.overrides import iter_fields, override
from jaxclf.experiment.validation import check, check_labels
from jaxclf.files.json_file import write_json
from jaxclf.inference.load import load
from jaxclf.reports.html_report import write_page
from jaxclf.reports.tables import print_tables, score_tables
from jaxclf.text.reader import read
from jaxclf.text.splits import fingerprint
from jaxclf.text.tokenizer.tokenize import lengths, tokenize
from jaxclf.types import Predictions


def evaluate_file(run: Path, data: Path) -> tuple[dict[str, Any], str | None]:
    """A labelled file's figures under the run's own thresholds, and a warning where it is a split
    that fitted something."""
    classifier = load(run)
    examples = read(data, classifier.labels)
    probs = classifier.predict_proba(examples.texts)
    labels = with_unknown(examples.labels, examples.label_mask)
    predictions = Predictions(np.array(examples.ids), probs, labels, data.stem)
    figures = evaluate_split(predictions, classifier.thresholds, classifier.labels)
    split = split_of(classifier.provenance, fingerprint(examples))
    return figures, warning(classifier.provenance, split) if split else None


def evaluate_predictions(
    run: Path, changes: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """report.json anew from the run's predictions alone: calibrated and thresholds fitted on val,
    both splits scored; and the warnings of splits that fitted something.

    changes: `calibration` and `threshold` in place of the run's own (for another program's
        predictions, which have no config.json: none and per_label).
    """
    path = run / "labels.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; is it a run's folder?")
    names = tuple(json.loads(path.read_text(encoding="utf-8")))
    config = run / "config.json"
    own = blank = Experiment(Data("", "", ""))
    if config.is_file():
        own = catalog.load(str(config))
    elif (run / MEMBERS).is_file():  # an ensemble's own rule; its members are calibrated already
        record = json.loads((run / MEMBERS).read_text(encoding="utf-8"))
        own = override(blank, {"threshold": record["threshold"]})
    plain = override(blank, {"threshold": own.threshold})
    wanted = override(plain, changes or {})
    if other := [
        key for key, value in iter_fields(wanted) if value != dict(iter_fields(plain))[key]
    ]:
        _check_changes(other, own, wanted)
        check_labels(wanted, names)
    found = {
        split: load_predictions(run / "predictions" / f"{split}.npz") for split in ("val", "test")
    }
    found, _ = calibrate(found, wanted.calibration)
    provenance = run / "provenance.json"
    if provenance.is_file() and not changes:
        known = json.loads(provenance.read_text(encoding="utf-8"))
    else:
        rules = {
            "average": own.regularization.weight_averaging.name,
            "calibration": wanted.calibration.name,
            "threshold": wanted.threshold.name,
        }
        known = make_provenance({}, rules)
    report, _ = score_run(found, wanted.threshold, names, known)
    return report, [said for split in report if (said := warning(known, split))]


def _check_changes(keys: list[str], own: Experiment, wanted: Experiment) -> None:
    if odd := [key for key in keys if key not in ("calibration", "threshold")]:
        raise ConfigError(f"{odd[0]}: only calibration and threshold can be changed after training")
    if "calibration" in keys and own.calibration.name != "none":
        raise ConfigError("calibration: this run's predictions are calibrated already")
    check(wanted, {"calibration": CALIBRATORS, "threshold": THRESHOLDS})


def rewrite_page(run: Path, show_text: bool = False) -> Path:
    """report.html anew from the run's files. Texts and their lengths come from the test file that
    config.json names; lengths are left out where file or model are not there."""
    if not (run / "config.json").is_file() or not (run / "model").is_dir():
        if show_text:
            raise DataError(f"{run}: no config.json and model/, so no texts to show")
        return write_page(run)
    classifier = load(run)
    data = classifier.experiment.data
    if not Path(data.test).is_file() and not show_text:
        return write_page(run)
    examples = read(data.test, classifier.labels)
    if list(examples.ids) != list(load_predictions(run / "predictions" / "test.npz").ids):
        raise DataError(f"{data.test}: its rows are not those that this run was tested on")
    tokens = tokenize(classifier.tokenizer, examples.texts, data.windows)
    return write_page(run, lengths(tokens), examples.texts if show_text else None)


def build_parser() -> CommandParser:
    parser = CommandParser(
        "evaluate",
        __doc__,
        overrides="without --data: calibration=platt, threshold=plug_in and their options instead of "
        "the run's own",
    )
    parser.add_argument("--run", type=Path, required=True, help="a run's folder")
    parser.add_argument(
        "--data", type=Path, help="a labelled file; without it the run's own predictions are scored"
    )
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument(
        "--page", action="store_true", help="write the run's report.html and plots/ anew"
    )
    parser.add_argument(
        "--show-text",
        action="store_true",
        help="with --page: show the texts of the hardest test examples, not their ids alone",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_command(build_parser(), _command, argv)


def _command(args: argparse.Namespace) -> None:
    if args.page:
        print(rewrite_page(args.run, args.show_text))
        return
    if args.show_text:
        raise ConfigError("--show-text goes with --page")
    if args.data and args.overrides:
        raise ConfigError("--data is scored as the model answers; give no key=value with it")
    if args.data:
        figures, said = evaluate_file(args.run, args.data)
        print_tables(*score_tables(figures, args.data.stem))
        said = [said] if said else []
    else:
        figures, said = evaluate_predictions(args.run, args.overrides)
        for split, part in figures.items():
            print_tables(*score_tables(part, split))
    print("".join(f"\n- {sentence}" for sentence in said))
    if args.output:
        write_json(args.output, figures)


if __name__ == "__main__":
    sys.exit(main())
