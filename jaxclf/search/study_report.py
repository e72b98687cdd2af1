"""study.html: what a search tried and what it tells of each dimension, on one offline page."""

import base64
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf.experiment.search_space import Choice, Dimension, Space, dimensions, format_changes
from jaxclf.reports.figures.curves import Columns
from jaxclf.reports.figures.pictures import SCALE, write_whole
from jaxclf.reports.html_report import _page as page_of
from jaxclf.reports.sections import box, details, escape

ENOUGH = 10  # trials run to their end, before anything is said of what matters


class TrialResult(NamedTuple):
    """What came of a finished trial."""

    number: int
    state: str  # done, pruned, failed
    score: float | None  # on validation; None unless done
    epochs: list[float]  # the score after each epoch
    answers: dict[str, Any]  # what was drawn of each dimension
    changes: dict[str, Any]  # the same under dotted keys
    error: str  # why it failed
    seconds: float


def best_of(outcomes: Sequence[TrialResult]) -> TrialResult | None:
    """The first of those with the best score; None where no trial came to its end."""
    done = [one for one in outcomes if one.score is not None]
    return max(done, key=lambda one: one.score or 0.0) if done else None


def write_study(
    path: Path,
    name: str,
    metric: str,
    outcomes: Sequence[TrialResult],
    space: Space,
    importances: Mapping[str, float],
) -> Path:
    """Write the page of a search; its path.

    name: of the experiment. importances: share of each dimension, used where there are trials
    enough.
    """
    done = [one for one in outcomes if one.score is not None]
    if not done:
        pictures = "<p>No trial came to its end.</p>"
    else:
        pictures = _pictures(metric, outcomes, done, space, importances)
    parts = {
        "best": ("What came of it", _best(metric, outcomes)),
        "pictures": ("Pictures", pictures),
        "trials": ("Trials", _table(metric, outcomes)),
        "limits": ("What it does not say", LIMITS),
        "space": (
            "The space",
            details("Dimensions", {key: str(of) for key, of in dimensions(space).items()}),
        ),
    }
    statement = f"A search over {len(dimensions(space))} dimensions in {len(outcomes)} trials."
    page = page_of(f"Search: {name}", statement, parts)
    return write_whole(path, page.encode("utf-8"))


LIMITS = """<p>Every score here is on validation, where thresholds and the epoch are chosen too, and
the best of many trials is partly the luckiest: trained anew with another seed it will most likely
score lower. The test split was not looked at; the winner, trained by <code>jaxclf.train</code>, is
scored on it once.</p>"""


def _best(metric: str, outcomes: Sequence[TrialResult]) -> str:
    best = best_of(outcomes)
    if best is None:
        return "<p>No trial came to its end.</p>"
    said = format_changes(best.changes)
    stood = next((one.score for one in outcomes if one.number == 0), None)
    before = f"; the experiment as it stood has {stood:.4f} (trial 0)" if stood is not None else ""
    counts = {state: sum(one.state == state for one in outcomes) for state in ("pruned", "failed")}
    rest = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return (
        f'<div class="notice"><p class="number">{best.score:.4f}</p><p>{escape(metric)} on '
        f"validation, trial {best.number}{before}.</p><p><code>{escape(said)}</code></p></div>"
        f"<p>{len(outcomes)} trials{f', of which {rest}' if rest else ''}.</p>"
    )


def _pictures(
    metric: str,
    outcomes: Sequence[TrialResult],
    done: Sequence[TrialResult],
    space: Space,
    importances: Mapping[str, float],
) -> str:
    from jaxclf.search import study_plots  # here alone, for matplotlib takes a second

    flat = {
        key: of for key, of in dimensions(space).items() if any(key in one.answers for one in done)
    }
    parts = [
        _figure(
            "History",
            "A point per trial by its number and score, and a line of the best so far.",
            _history_says(outcomes),
            "A line that has been level for long says that more trials will hardly help. A pruned "
            "trial stands where it was given up.",
            functools.partial(study_plots.history, metric),
            _history(outcomes),
        )
    ]
    if len(done) < ENOUGH:
        parts.append(
            f"<p>With {len(done)} trials run to their end nothing can be said of what matters; "
            f"from {ENOUGH} on it stands here.</p>"
        )
    else:
        parts.append(
            _figure(
                "What matters",
                "A bar per dimension with its share in reaching the best tenth of the trials.",
                f"{max(importances, key=lambda key: importances[key])} decides most.",
                "By PED-ANOVA (arXiv 2304.10255): how far the values of the best trials differ "
                "from those of all. From few trials it is a hint and no more.",
                study_plots.importance,
                {
                    "dimension": np.array(list(importances)),
                    "importance": np.array(list(importances.values()), np.float64),
                },
            )
        )
    parts.append(
        _figure(
            "Slices",
            "A panel per dimension with the score of each trial against the value drawn.",
            "",
            "Look for where the upper edge of the points is highest. Other dimensions vary along, "
            "so a low point says little; a best trial at an end of its range asks for a wider one.",
            functools.partial(study_plots.slices, metric, flat),
            _slices(done, flat),
        )
    )
    return "\n".join(parts)


def _history(outcomes: Sequence[TrialResult]) -> Columns:
    shown = [one for one in outcomes if one.epochs and one.state != "failed"]
    scores = np.array([one.score if one.score is not None else one.epochs[-1] for one in shown])
    pruned = np.array([one.score is None for one in shown])
    best = np.fmax.accumulate(np.where(pruned, np.nan, scores))
    return {
        "trial": np.array([one.number for one in shown]),
        "score": scores,
        "pruned": pruned.astype(np.int64),
        "best": best,
    }


def _history_says(outcomes: Sequence[TrialResult]) -> str:
    best = best_of(outcomes)
    assert best is not None
    after = sum(one.number > best.number for one in outcomes)
    return f"The best is trial {best.number}; {after} came after it."


def _slices(done: Sequence[TrialResult], flat: Space) -> Columns:
    """A row per trial and dimension; of a Choice the value's place."""
    best = best_of(done)
    rows = [
        (key, _place(of, one.answers[key]), one.score, one.number, one is best)
        for key, of in flat.items()
        for one in done
        if key in one.answers
    ]
    names = ("label", "value", "score", "trial", "best")
    return dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))


def _place(dimension: Dimension, answer: Any) -> float:
    choice = isinstance(dimension, Choice)
    return float(list(dimension.values).index(answer) if choice else answer)


def _figure(
    title: str,
    content: str,
    finding: str,
    reading: str,
    draw: Callable[[Columns], Any],
    columns: Columns,
) -> str:
    from jaxclf.reports.figures import style

    image = style.png(draw, columns)
    wide, high = (int.from_bytes(image[at : at + 4]) / SCALE for at in (16, 20))
    said = escape(finding)
    shown = (
        f'<img src="data:image/png;base64,{base64.b64encode(image).decode()}" width="{wide:.0f}" '
        f'height="{high:.0f}" alt="{content} {said}">'
    )
    strong = f"<strong>{said}</strong> " if said else ""
    return (
        f"<figure><h3>{title}</h3>{box(title, shown)}"
        f"<figcaption>{strong}{reading}</figcaption></figure>"
    )


def _table(metric: str, outcomes: Sequence[TrialResult]) -> str:
    digits = len(str(max(one.number for one in outcomes)))  # so that they sort as they count
    rows = "".join(
        f'<tr><th scope="row">{one.number:0{digits}}</th>{_score(one)}'
        f'<td data-value="{len(one.epochs)}">{len(one.epochs)}</td>'
        f'<td data-value="{one.seconds:.1f}">{one.seconds:,.0f}&nbsp;s</td>'
        f'<td style="text-align: left">{escape(format_changes(one.changes))}'
        f"{f'<br>{escape(one.error)}' if one.error else ''}</td></tr>"
        for one in outcomes
    )
    heads = "".join(
        f'<th scope="col">{escape(name)}</th>' for name in ("trial", metric, "epochs", "time")
    )
    return box(
        "all trials",
        f'<table class="sortable"><thead><tr>{heads}<th scope="col" style="text-align: left">drawn'
        f"</th></tr></thead><tbody>{rows}</tbody></table>",
    )


def _score(one: TrialResult) -> str:
    if one.state == "failed":
        return "<td>failed</td>"
    value = one.epochs[-1] if one.score is None else one.score
    small = "<small>pruned</small>" if one.score is None else ""
    return f'<td data-value="{value:.6f}">{value:.4f}{small}</td>'
