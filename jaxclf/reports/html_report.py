"""report.html: a finished run on one page that needs no network, with its figures in plots/."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.decisions.evaluation import recorded_rule
from jaxclf.decisions.intervals import LEVEL, RESAMPLES
from jaxclf.decisions.members import MEMBERS
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.predictions import load_predictions
from jaxclf.decisions.provenance import reuse_warnings
from jaxclf.decisions.score_tables import CONSTANT, LABEL_COLUMNS, describe_choice, describe_macro
from jaxclf.decisions.targets import describe_missed
from jaxclf.decisions.thresholds import THRESHOLDS, decide
from jaxclf.errors import DataError
from jaxclf.files.atomic import write_text
from jaxclf.files.json_file import read_json
from jaxclf.inference.cascade.summary import STAGES
from jaxclf.reports.figures.catalog import draw_figures, make_notes, most_frequent_labels
from jaxclf.reports.figures.data import RunData
from jaxclf.reports.rendering import render
from jaxclf.reports.tables import members_table, stages_table

MAX_EXAMPLES = 12  # hardest examples on the page
TITLES = {"f1": "F1", "auc": "AUC", "ap": "AP"}
MAX_CHARACTERS = 2000  # of an example's text
SECTIONS = {
    "results": "Results",
    "thresholds": "Thresholds",
    "diagnosis": "Diagnosis",
    "members": "Members",
    "stages": "Stages",
    "labels": "Labels",
    "figures": "Figures",
    "hardest": "Hardest examples",
    "limits": "Intended use and limits",
    "run": "Configuration",
}


class HardExample(NamedTuple):
    """A test example with a wrong label, and the label whose probability is most wrong."""

    id: str
    true: list[str]
    predicted: list[str]
    label: str
    probability: float
    is_positive: bool  # the true value of `label`
    text: str | None


def write_page(
    run: Path, lengths: np.ndarray | None = None, texts: Sequence[str] | None = None
) -> Path:
    """Write report.html and plots/ into the folder of a finished run. Returns the page's path.

    lengths: tokens of each test text, for the figure of errors by length.
    texts: the test texts, to show the hardest examples; without them the page has ids only.
    Raises DataError if the folder does not hold a finished run.
    """
    if not all((run / name).is_file() for name in ("report.json", "labels.json")):
        raise DataError(f"{run}: no report.json or labels.json; is it a finished run's folder?")
    report, names = read_json(run / "report.json"), tuple(read_json(run / "labels.json"))
    data = _load_data(run, report["test"], names, lengths)
    if any(rows is not None and len(rows) != len(data.test.ids) for rows in (lengths, texts)):
        raise ValueError("lengths and texts must have one item for each row of the test split")
    config, record = _read(run, "config.json"), _read(run, "thresholds.json") or {}
    members, stages = _read(run, MEMBERS), _read(run, STAGES)
    missing = [id for id, part in (("members", members), ("stages", stages)) if part is None]
    page = render(
        "report.html",
        title=run.resolve().name,
        statement=_describe_run(config, data),
        sections={id: title for id, title in SECTIONS.items() if id not in missing},
        test=report["test"],
        val=report["val"],
        metrics=METRICS,
        macro_notes=[
            *(describe_macro(report[split], split) for split in ("test", "val")),
            CONSTANT,
            *([describe_missed(missed)] if (missed := report["val"].get("missed_target")) else []),
        ],
        reuse=[*reuse_warnings(report["test"], "test"), *reuse_warnings(report["val"], "val")],
        columns={"support": "support"} | {key: TITLES.get(key, key) for key in LABEL_COLUMNS},
        level=round(100 * LEVEL),
        resamples=RESAMPLES,
        sizes={"val": len(data.val.ids), "test": len(data.test.ids)},
        rule=_describe_rule(record),
        choice=describe_choice(choice) if (choice := report["val"].get("threshold_choice")) else "",
        threshold_intervals={name: row.get("interval") for name, row in record.items()},
        diagnosis=_read(run, "diagnosis.json"),
        members=members and members_table(members),
        stages=stages and stages_table(stages),
        pictures=draw_figures(run / "plots", data),
        figure_notes=make_notes(data),
        hardest=find_hardest(data, texts),
        max_characters=MAX_CHARACTERS,
        config=config,
        environment=_read(run, "environment.json"),
    )
    return write_text(run / "report.html", page)


def find_hardest(data: RunData, texts: Sequence[str] | None) -> list[HardExample]:
    """The examples with a wrong label, by the distance of its probability from the truth."""
    test, decided = data.test, decide(data.test.probs, data.thresholds)
    truth, is_known = test.labels == 1, ~np.isnan(test.labels)
    is_wrong = is_known & (truth != decided)
    gaps = np.where(is_wrong, np.abs(truth - test.probs.astype(np.float64)), -1.0)
    largest, labels = gaps.max(axis=1), gaps.argmax(axis=1)
    rows: list[int] = np.argsort(-largest, kind="stable")[:MAX_EXAMPLES].tolist()
    return [
        HardExample(
            id=str(test.ids[row]),
            true=[data.names[index] for index in np.flatnonzero(truth[row])],
            predicted=[data.names[index] for index in np.flatnonzero(decided[row])],
            label=data.names[labels[row]],
            probability=float(test.probs[row, labels[row]]),
            is_positive=bool(truth[row, labels[row]]),
            text=None if texts is None else texts[row],
        )
        for row in rows
        if largest[row] >= 0
    ]


def _load_data(
    run: Path, test_report: Mapping[str, Any], names: tuple[str, ...], lengths: np.ndarray | None
) -> RunData:
    val, test = (
        load_predictions(run / "predictions" / f"{split}.npz") for split in ("val", "test")
    )
    thresholds = np.array([test_report["labels"][name]["threshold"] for name in names], np.float64)
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    log = [json.loads(line) for line in lines]
    return RunData(test, val, thresholds, names, most_frequent_labels(test), lengths, log)


def _describe_run(config: Mapping[str, Any] | None, data: RunData) -> str:
    origin = f": the encoder {config['encoder']['name']}, fine-tuned with jaxclf" if config else ""
    return (
        f"A multi-label text classifier with {len(data.names)} labels{origin}. Scored on "
        f"{len(data.val.ids):,} val texts and {len(data.test.ids):,} test texts."
    )


def _describe_rule(record: Mapping[str, Any]) -> dict[str, str] | None:
    """The threshold rule that thresholds.json records."""
    if not record:
        return None
    name, split = recorded_rule(record).name, next(iter(record.values()))["split"]
    options = recorded_rule(record).options
    docstring = (THRESHOLDS[name].__doc__ if name in THRESHOLDS else None) or ""
    return {
        "name": name,
        "options": json.dumps(options, ensure_ascii=False) if options else "",
        "origin": "set by hand" if name == "fixed" else f"fitted on the {split} split",
        "meaning": " ".join(docstring.split("\n\n")[0].split()),
    }


def _read(run: Path, name: str) -> Any:
    return read_json(run / name) if (run / name).is_file() else None
