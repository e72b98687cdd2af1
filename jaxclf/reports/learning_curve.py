"""Would more data help? The learning curves of `jaxclf curve` in words, as tables and on a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxclf.decisions.intervals import LEVEL, RESAMPLES
from jaxclf.decisions.learning_curve import MIN_SUPPORT
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.score_tables import Table, format_interval, format_score
from jaxclf.files.atomic import write_text
from jaxclf.reports.rendering import Picture, render

MAX_NAMED = 5  # labels in the sentence about labels
SCORES = ("macro_f1", "log_loss")
TIMES = {2: "Twice", 4: "Four times"}
SECTIONS = {
    "answer": "Would more data help?",
    "curve": "Curve",
    "labels": "Labels",
    "limits": "Limits",
    "run": "Data of this page",
}
LIMITS = (
    "An interval covers the choice of the validation texts, not the variation between trainings. "
    "Another seed shows that variation."
)


def describe(record: Mapping[str, Any]) -> list[str]:
    """Sentences: the scores expected of more data, whether it would help, and which labels gain
    most.

    record: the content of curve.json.
    """
    sentences = []
    for index, times in enumerate(TIMES.values()):
        for name in SCORES:
            forecast, metric = record[name]["forecasts"][index], METRICS[name]
            title = metric.title[0].lower() + metric.title[1:]
            sentences.append(
                f"{times} the data: {title} {format_score(forecast['score'])} "
                f"({format_interval(forecast['interval'])}), "
                f"{format_score(forecast['gain'], signed=True)} "
                f"({format_interval(forecast['gain_interval'], signed=True)}). "
                f"{_verdict(forecast['gain_interval'], metric.higher_is_better)}"
            )
    return [*sentences, _describe_labels(record["labels"]), LIMITS]


def _verdict(gain: Sequence[float], higher_is_better: bool) -> str:
    low, high = gain if higher_is_better else (-gain[1], -gain[0])
    if low > 0:
        return "More data would help."
    if high < 0:
        return "More data would not help."
    return "Cannot tell: the interval of the change holds zero."


def _describe_labels(curves: Mapping[str, Mapping[str, Any]]) -> str:
    if not curves:
        return f"No label has {MIN_SUPPORT} positives in val, so none has a curve of its own."
    gains = {name: curve["forecasts"][0] for name, curve in _by_gain(curves).items()}
    certain = [
        f"{name} ({format_score(forecast['gain'], signed=True)})"
        for name, forecast in gains.items()
        if forecast["gain_interval"][0] > 0
    ]
    if not certain:
        return "Labels: cannot tell which would gain; every interval holds zero or less."
    return f"Labels that would gain most from twice the data: {', '.join(certain[:MAX_NAMED])}."


def _by_gain(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The curves of labels, that of the largest expected gain first."""
    return dict(sorted(curves.items(), key=lambda item: -item[1]["forecasts"][0]["gain"]))


def curve_table(record: Mapping[str, Any]) -> Table:
    """A row for each share of the data that was trained on, and for each that is expected."""
    curves, rows = [record[name] for name in SCORES], []
    for index, (share, count) in enumerate(zip(record["shares"], record["rows"], strict=True)):
        cells = [(curve["scores"][index], curve["intervals"][index]) for curve in curves]
        rows.append((f"{share:g}", f"{count:,}", *_cells(cells)))
    for forecasts in zip(*(curve["forecasts"] for curve in curves), strict=True):
        times = forecasts[0]["times"]
        cells = [(forecast["score"], forecast["interval"]) for forecast in forecasts]
        rows.append((f"{times} (expected)", f"{times * record['rows'][-1]:,}", *_cells(cells)))
    columns = ["share of the data", "rows"]
    for name in SCORES:
        columns += [METRICS[name].title, f"{LEVEL:.0%} interval".replace("%", " %")]
    return Table("", columns, rows)


def _cells(scores: Sequence[tuple[float, Sequence[float]]]) -> list[str]:
    return [cell for score, ends in scores for cell in (format_score(score), format_interval(ends))]


def labels_table(record: Mapping[str, Any]) -> Table:
    """A row per label that has a curve of its own, the largest expected gain first."""
    rows = []
    for name, curve in _by_gain(record["labels"]).items():
        twice = curve["forecasts"][0]
        rows.append(
            (
                name,
                f"{curve['support']:,}",
                format_score(curve["scores"][-1]),
                format_score(twice["score"]),
                format_score(twice["gain"], signed=True),
                format_interval(twice["gain_interval"], signed=True),
            )
        )
    columns = ("label", "positives in val", "F1", "F1 with twice the data", "gain", "interval")
    missing = record["scored_labels"] - len(rows)
    note = f"{missing} labels have fewer than {MIN_SUPPORT} positives in val and no curve."
    return Table("Labels", columns, rows, [note] if missing else [])


def write_page(path: Path, name: str, record: Mapping[str, Any]) -> Path:
    """Write the page of the experiment `name`. Returns its path."""
    curves = {METRICS[key].title: record[key] for key in SCORES}
    page = render(
        "curve.html",
        title=f"Learning curve: {name}",
        statement=f"The experiment, trained on {len(record['rows'])} nested shares of its training "
        f"rows and scored on {record['examples']:,} validation texts.",
        sections=SECTIONS,
        sentences=describe(record),
        table=curve_table(record),
        picture=_draw(record["rows"], curves),
        labels=labels_table(record),
        scored_labels=record["scored_labels"],
        resamples=RESAMPLES,
        level=round(100 * LEVEL),
        record=record,
    )
    return write_text(path, page)


def _draw(rows: Sequence[int], curves: Mapping[str, Mapping[str, Any]]) -> Picture:
    from jaxclf.reports.figures import learning_curve, style  # matplotlib takes a second

    columns = learning_curve.make_columns(rows, curves)
    exponents = ", ".join(f"{title} {curve['exponent']:.2f}" for title, curve in curves.items())
    return Picture(
        "Scores by number of training rows",
        alt="Two panels, macro F1 and log loss, with a point for each number of training rows, a "
        "fitted curve, and the scores expected of twice and four times the rows.",
        finding=f"Exponents of the curves: {exponents}.",
        caption="With an exponent of 0 every doubling gains the same, with 1 half of what the "
        "doubling before did. If a vertical line is longer than the rise of the "
        "curve, the extrapolation says little.",
        png=style.to_png(learning_curve.draw, columns),
        file="curve.json",
    )
