"""The parts of report.html: figures of a run -> HTML.

Names, ids and texts are whatever somebody put into a file: each passes `text_of` on its way.
"""

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxclf.decisions.intervals import LEVEL, RESAMPLES
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.thresholds import THRESHOLDS

COLUMNS = {
    "support": "support",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "ap": "AP",
    "threshold": "threshold",
}
LONGEST_TEXT = 2000  # characters of an example; the rest is cut off, and said to be


class HardExample(NamedTuple):
    """An example with a wrong label, and the probability that was most wrong."""

    id: str
    true: list[str]
    given: list[str]
    label: str
    probability: float
    wanted: bool  # whether the label should have been given
    text: str | None


def escape(value: object) -> str:
    """Any value as text of a page, never as its markup."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def figure_of(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.3f}"


def section(name: str, title: str, *parts: str) -> str:
    inside = "\n".join(part for part in parts if part)
    return f'<section id="{name}">\n<h2>{title}</h2>\n{inside}\n</section>'


def box(name: str, inside: str) -> str:
    """What may be wider than a telephone: it scrolls in its own box, by keys too."""
    return f'<div class="box" role="region" tabindex="0" aria-label="{escape(name)}">{inside}</div>'


def headline(report: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    """Macro F1 with its interval, and the other figures on test and on val."""
    test = report["test"]
    low, high = test["intervals"]["macro_f1"]
    rows = "".join(
        f'<tr><th scope="row">{metric.title}<small>{metric.meaning}</small></th>{_score(test, key)}'
        f"{_score(report['val'], key)}</tr>"
        for key, metric in METRICS.items()
    )
    table = (
        '<table><thead><tr><th scope="col">figure</th><th scope="col">test</th>'
        '<th scope="col">val</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    said = (
        f"<p>{100 * LEVEL:.0f}&nbsp;% interval <strong>{figure_of(low)} to {figure_of(high)}"
        f'</strong></p><p class="soft">A bootstrap interval: {RESAMPLES:,} times the '
        f"{sizes['test']:,} texts of the test split are drawn anew. Model and thresholds are held "
        "fixed, so it does not say what another seed would give.</p>"
    )
    return (
        f'<div class="headline"><div><p>Macro F1 on test</p><p class="number">'
        f"{figure_of(test['macro_f1'])}</p>{_scale(low, test['macro_f1'], high)}{said}</div>"
        f"{box('figures', table)}</div>"
    )


def _scale(low: float | None, value: float | None, high: float | None) -> str:
    """An interval and its figure on a line from 0 to 1; nothing where they are not known."""
    if low is None or value is None or high is None or math.isnan(low + value + high):
        return ""
    return (
        '<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="4"></rect>'
        f'<rect class="band" x="{100 * low:.2f}" width="{100 * (high - low):.2f}" height="4">'
        f'</rect><rect class="dot" x="{100 * value - 0.4:.2f}" width="0.8" height="4"></rect></svg>'
    )


def _score(part: Mapping[str, Any], key: str) -> str:
    return f"<td>{figure_of(part[key])}{_interval(part['intervals'].get(key))}</td>"


def _interval(ends: Sequence[float | None] | None) -> str:
    if ends is None or ends[0] is None:
        return ""
    return f"<small>{figure_of(ends[0])} to {figure_of(ends[1])}</small>"


def thresholds(report: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    """How the thresholds came about, what they are worth, and why val flatters."""
    if record:
        rows = list(record.values())
        rule, split = rows[0]["rule"], rows[0]["split"]
        options = {
            key: value
            for key, value in rows[0].items()
            if key not in ("value", "interval", "split", "rule")
        }
        with_options = f" ({escape(json.dumps(options, ensure_ascii=False))})" if options else ""
        origin = "set by hand" if rule == "fixed" else f"fitted on the split {escape(split)}"
        said = f"Rule <code>{escape(rule)}</code>{with_options}, {origin}. {_about(rule)}"
    else:
        said = "How they were chosen is not recorded in this folder."
    test, val = report["test"], report["val"]
    parts = [
        said,
        "A label is given where its probability reaches its threshold; a text that reaches none "
        "gets no label.",
        f"At a fixed threshold of 0.5, macro F1 on test is {figure_of(test['macro_f1_at_half'])}; "
        f"with these thresholds {figure_of(test['macro_f1'])}.",
    ]
    for split in ("val", "test"):
        if what := report[split].get("fitted"):
            parts.append(f"{split} fitted {escape(', '.join(what))}: figures on it flatter.")
    if honest := val.get("crossfit", {}).get("macro_f1"):
        parts.append(
            f"With thresholds fitted on other folds of it, macro F1 on val is "
            f"{figure_of(honest['score'])} and not {figure_of(val['macro_f1'])}."
        )
    return "".join(f"<p>{part}</p>" for part in parts)


def _about(rule: str) -> str:
    """A rule's first sentence about itself."""
    told = (THRESHOLDS[rule].__doc__ if rule in THRESHOLDS else None) or ""
    return escape(" ".join(told.split("\n\n")[0].split()))


def sentences(said: Sequence[str] | None) -> str:
    if said is None:
        return "<p>Not recorded in this folder.</p>"
    if not said:
        return "<p>Nothing stands out: no label too rare to judge, no sign of a poor fit.</p>"
    return "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in said) + "</ul>"


def labels(part: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    """A row per label, with intervals where the report has them; sortable where scripts run."""
    f1 = part["intervals"].get("labels", {})
    rows = []
    for name, row in part["labels"].items():
        below = {
            "f1": _interval(f1.get(name)),
            "threshold": _interval((record or {}).get(name, {}).get("interval")),
        }
        cells = "".join(_cell(key, row[key], below.get(key, "")) for key in COLUMNS)
        shown = escape(name)
        rows.append(f'<tr><th scope="row"><span title="{shown}">{shown}</span></th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS.values())
    small = any("<small>" in row for row in rows)
    note = (
        "<p>Figures on test; n/a where it cannot say, as of a label without positives."
        f"{f' Small below a figure: its {100 * LEVEL:.0f} % interval.' if small else ''}</p>"
    )
    return note + box(
        "figures of every label",
        '<table class="labels sortable">'
        f'<thead><tr><th scope="col">label</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>",
    )


def _cell(key: str, value: float | None, below: str) -> str:
    if value is None or math.isnan(value):
        return "<td>n/a</td>"
    if key == "support":
        return f'<td data-value="{value:.0f}">{value:,.0f}</td>'
    bar = f'<span class="bar" style="--share:{100 * value:.0f}%"></span>' if key == "f1" else ""
    return f'<td data-value="{value:.6f}">{value:.3f}{bar}{below}</td>'


def hardest(examples: Sequence[HardExample], shown: bool) -> str:
    """The examples whose probabilities were most wrong: their ids, and all of them if `shown`."""
    if not examples:
        return "<p>No text of the test split has a wrong label.</p>"
    what = "<p>The texts of the test split with the most wrong probability behind a wrong label"
    if not shown:
        ids = "".join(f"<li><code>{escape(example.id)}</code></li>" for example in examples)
        return (
            f"{what}, by id. Texts are shown where they are asked for alone: <code>python -m "
            f"jaxclf.evaluate --run DIR --page --show-text</code>.</p><ol>{ids}</ol>"
        )
    items = []
    for example in examples:
        text = example.text or ""
        cut = f" … ({len(text):,} characters)" if len(text) > LONGEST_TEXT else ""
        side = "missed" if example.wanted else "given wrongly"
        items.append(
            f'<li><h3><code>{escape(example.id)}</code></h3><blockquote dir="auto">'
            f"{escape(text[:LONGEST_TEXT])}{cut}</blockquote><dl>"
            f"<dt>true</dt><dd>{_listed(example.true)}</dd>"
            f"<dt>given</dt><dd>{_listed(example.given)}</dd>"
            f"<dt>most wrong</dt><dd>{escape(example.label)}, {side} at "
            f"{example.probability:.3f}</dd></dl></li>"
        )
    asked = "They stand here because they were asked for: mind who is given this page."
    return f'{what}. {asked}</p><ol class="examples">{"".join(items)}</ol>'


def _listed(names: Iterable[str]) -> str:
    return escape(", ".join(names)) or "no label"


def details(title: str, values: Any) -> str:
    """JSON behind a heading that opens."""
    if values is None:
        return f"<p>{title}: not recorded in this folder.</p>"
    told = escape(json.dumps(values, indent=2, ensure_ascii=False))
    return f'<details><summary>{title}</summary><pre tabindex="0">{told}</pre></details>'
