"""Score a run: `python -m jaxclf.evaluate --run DIR [--data FILE]`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf import catalogue
from jaxclf.command import parser_of, run_command
from jaxclf.config import Spec
from jaxclf.decisions.predictions import load_predictions, with_unknown
from jaxclf.decisions.report import evaluate_split, fit_thresholds, table, write_json
from jaxclf.errors import DataError
from jaxclf.serving.predictor import load
from jaxclf.text.reader import read
from jaxclf.types import Predictions


def evaluate_file(run: Path, data: Path) -> dict[str, Any]:
    """A labelled file's figures under the run's own thresholds."""
    classifier = load(run)
    examples = read(data, classifier.labels)
    probs = classifier.predict_proba(examples.texts)
    labels = with_unknown(examples.labels, examples.known)
    predictions = Predictions(np.array(examples.ids), probs, labels, data.stem)
    return evaluate_split(predictions, classifier.thresholds, classifier.labels)


def evaluate_predictions(run: Path) -> dict[str, Any]:
    """report.json anew from the run's predictions alone: thresholds fitted on val by the run's
    rule (per_label where the folder has no config.json, as another program's), both splits
    scored."""
    path = run / "labels.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; is it a run's folder?")
    names = tuple(json.loads(path.read_text(encoding="utf-8")))
    config = run / "config.json"
    rule = catalogue.load(str(config)).threshold if config.is_file() else Spec("per_label")
    found = {
        split: load_predictions(run / "predictions" / f"{split}.npz") for split in ("val", "test")
    }
    thresholds = fit_thresholds(found["val"], rule)
    return {split: evaluate_split(part, thresholds, names) for split, part in found.items()}


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a run's folder")
    parser.add_argument(
        "--data", type=Path, help="a labelled file; without it the run's own predictions are scored"
    )
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    return run_command(parser, _command)


def _command(args: argparse.Namespace) -> None:
    if args.data:
        figures = evaluate_file(args.run, args.data)
        print(table(figures, args.data.stem))
    else:
        figures = evaluate_predictions(args.run)
        print("\n\n".join(table(part, split) for split, part in figures.items()))
    if args.output:
        write_json(args.output, figures)


if __name__ == "__main__":
    sys.exit(main())
