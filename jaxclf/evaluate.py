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
from jaxclf.decisions.ledger import make_ledger, split_of, warning
from jaxclf.decisions.predictions import load_predictions, with_unknown
from jaxclf.decisions.report import evaluate_split, score_run, table, write_json
from jaxclf.errors import DataError
from jaxclf.serving.predictor import load
from jaxclf.text.reader import read
from jaxclf.text.splits import fingerprint
from jaxclf.types import Predictions


def evaluate_file(run: Path, data: Path) -> tuple[dict[str, Any], str | None]:
    """A labelled file's figures under the run's own thresholds, and a warning where it is a split
    that fitted something."""
    classifier = load(run)
    examples = read(data, classifier.labels)
    probs = classifier.predict_proba(examples.texts)
    labels = with_unknown(examples.labels, examples.known)
    predictions = Predictions(np.array(examples.ids), probs, labels, data.stem)
    figures = evaluate_split(predictions, classifier.thresholds, classifier.labels)
    split = split_of(classifier.ledger, fingerprint(examples))
    return figures, warning(classifier.ledger, split) if split else None


def evaluate_predictions(run: Path) -> tuple[dict[str, Any], list[str]]:
    """report.json anew from the run's predictions alone: thresholds fitted on val by the run's
    rule (per_label where the folder has no config.json, as another program's), both splits
    scored; and the warnings of splits that fitted something."""
    path = run / "labels.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; is it a run's folder?")
    names = tuple(json.loads(path.read_text(encoding="utf-8")))
    config = run / "config.json"
    rule = catalogue.load(str(config)).threshold if config.is_file() else Spec("per_label")
    found = {
        split: load_predictions(run / "predictions" / f"{split}.npz") for split in ("val", "test")
    }
    ledger = run / "ledger.json"
    known = (
        json.loads(ledger.read_text(encoding="utf-8"))
        if ledger.is_file()
        else make_ledger({}, {"calibration": "none", "threshold": rule.name})
    )
    report, _ = score_run(found, rule, names, known)
    return report, [said for split in report if (said := warning(known, split))]


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
        figures, said = evaluate_file(args.run, args.data)
        print(table(figures, args.data.stem))
        said = [said] if said else []
    else:
        figures, said = evaluate_predictions(args.run)
        print("\n\n".join(table(part, split) for split, part in figures.items()))
    print("".join(f"\n- {sentence}" for sentence in said))
    if args.output:
        write_json(args.output, figures)


if __name__ == "__main__":
    sys.exit(main())
