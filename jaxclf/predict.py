"""Label texts: `python -m jaxclf.predict --run runs/focal_attention "a text"`."""

import argparse
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Float

from jaxclf.command import parser_of, run_command
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import ConfigError, DataError
from jaxclf.serving.predictor import Classifier, load
from jaxclf.text.reader import read

Probs = Float[np.ndarray, "texts classes"]


def in_words(classifier: Classifier, texts: list[str], probs: Probs) -> str:
    """For a reader at a terminal: every label with its probability and threshold, given ones
    marked."""
    width = max(len(name) for name in classifier.labels)
    blocks = []
    for text, row in zip(texts, probs, strict=True):
        given = decide(row[None], classifier.thresholds)[0]
        lines = [text, ""]
        for index in np.argsort(-row, kind="stable"):
            name, threshold = classifier.labels[index], classifier.thresholds[index]
            mark = "*" if given[index] else " "
            lines.append(f"  {mark} {name:<{width}}  {row[index]:.3f}  (threshold {threshold:.3f})")
        if not given.any():
            lines.append("  no label reaches its threshold")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def write_jsonl(file: TextIO, ids: tuple[str, ...], classifier: Classifier, probs: Probs) -> None:
    """One object a row: id, the labels given, every probability."""
    for name, row, given in zip(ids, probs, decide(probs, classifier.thresholds), strict=True):
        labels = [label for label, yes in zip(classifier.labels, given, strict=True) if yes]
        scores = {label: float(f"{p:.6f}") for label, p in zip(classifier.labels, row, strict=True)}
        line = {"id": name, "labels": labels, "probabilities": scores}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_csv(file: TextIO, ids: tuple[str, ...], classifier: Classifier, probs: Probs) -> None:
    """A column per label with 0 or 1, and one per label with its probability."""
    writer = csv.writer(file, lineterminator="\n")
    names = classifier.labels
    writer.writerow(["id", *names, *[f"probability_{name}" for name in names]])
    for name, row, given in zip(ids, probs, decide(probs, classifier.thresholds), strict=True):
        writer.writerow([name, *given.astype(int).tolist(), *[f"{p:.6f}" for p in row]])


WRITERS: dict[str, Callable[..., None]] = {".jsonl": write_jsonl, ".csv": write_csv}


def predict_file(classifier: Classifier, source: Path, target: Path) -> int:
    """Label every row of a data file, in its order; the number of rows. The target is written
    whole or not at all."""
    if target.suffix not in WRITERS:
        raise ConfigError(f"--output {target}: the ending must be {' or '.join(WRITERS)}")
    if not target.parent.is_dir():
        raise ConfigError(f"--output {target}: the folder {target.parent} does not exist")
    examples = read(source, labelled=False)
    probs = classifier.predict_proba(examples.texts)
    part = target.with_name(target.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        WRITERS[target.suffix](file, examples.ids, classifier, probs)
    part.replace(target)
    return len(examples.ids)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--run", required=True, help="a finished run's folder or its model/")
    parser.add_argument("--input", type=Path, help="a JSON, JSONL, CSV, TSV or Parquet file")
    parser.add_argument("--output", type=Path, help="a .jsonl or .csv file to write")
    parser.add_argument("texts", nargs="*", metavar="text", help="texts to label at once")
    return run_command(parser, _command)


def _command(args: argparse.Namespace) -> None:
    if (args.input is None) != (args.output is None) or bool(args.texts) == bool(args.input):
        raise ConfigError("give texts, or --input FILE with --output FILE")
    if any(not text.strip() for text in args.texts):
        raise DataError("an empty text cannot be labelled")
    classifier = load(args.run)
    if args.input:
        count = predict_file(classifier, args.input, args.output)
        print(f"{count:,} rows -> {args.output}", file=sys.stderr)
    else:
        print(in_words(classifier, args.texts, classifier.predict_proba(args.texts)))


if __name__ == "__main__":
    sys.exit(main())
