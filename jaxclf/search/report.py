"""study.html: what a search tried and found, on one page that needs no network."""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optuna
from optuna.visualization import matplotlib as plots

from jaxclf.decisions.selection import SELECTION_METRICS, describe_metric
from jaxclf.experiment.search_space import Space, dimensions, format_changes
from jaxclf.files.atomic import write_text
from jaxclf.reports.rendering import Picture, render
from jaxclf.search.study import TrialResult, find_best, initial_score, trial_results

DPI = 160
MIN_TRIALS = 10  # done, before importances are shown

SECTIONS = {
    "best": "Best trial",
    "figures": "Figures",
    "trials": "All trials",
    "limits": "Limits",
    "space": "Search space",
}


def write_report(path: Path, name: str, metric: str, study: optuna.Study, space: Space) -> Path:
    """Write the page of a study of the experiment `name`, scored by `metric`. Returns its path."""
    results = trial_results(study)
    named_dimensions = dimensions(space)
    page = render(
        "study.html",
        title=f"Search: {name}",
        statement=f"A search over {len(named_dimensions)} dimensions in {len(results)} trials.",
        sections=SECTIONS,
        metric=describe_metric(metric),
        best=find_best(results, metric),
        initial=initial_score(results),
        counts={
            state: sum(result.state == state for result in results)
            for state in ("done", "pruned", "failed")
        },
        pictures=_draw_pictures(study, metric, results),
        results=results,
        changes=[format_changes(result.changes) for result in results],
        space={key: str(dimension) for key, dimension in named_dimensions.items()},
    )
    return write_text(path, page)


def _draw_pictures(
    study: optuna.Study, metric: str, results: Sequence[TrialResult]
) -> list[Picture]:
    best = find_best(results, metric)
    if best is None:
        return []
    best_end = "highest" if SELECTION_METRICS[metric].higher_is_better else "lowest"
    later = sum(result.number > best.number for result in results)
    num_done = sum(result.score is not None for result in results)
    history = Picture(
        "History",
        alt=f"A point for each trial with its {metric}, and a line of the best so far.",
        finding=f"The best trial is {best.number}; {later} trials came after it.",
        caption="If the line has been level for long, more trials will hardly help. Pruned and "
        "failed trials have no point.",
        png=_draw(plots.plot_optimization_history, study, metric),
    )
    importance = Picture(
        "Importance", missing=f"it needs {MIN_TRIALS} trials that are done, not {num_done}"
    )
    if num_done >= MIN_TRIALS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about few trials, which the caption mentions
            importances = optuna.importance.get_param_importances(study)
        importance = Picture(
            "Importance",
            alt="A bar for each dimension with its importance.",
            finding=f"{max(importances, key=lambda name: importances[name])} matters most.",
            caption="By PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255): how much the values of "
            "the best tenth of the trials differ from those of all trials. With few trials it is "
            "only a hint.",
            png=_draw(plots.plot_param_importances, study, metric),
        )
    slices = Picture(
        "Slices",
        alt=f"A panel for each dimension with the {metric} of each trial against its value.",
        caption=f"Look for the values with the {best_end} points. The other dimensions vary too, "
        "so a single point says little. If the best trial is at an end of a range, widen the "
        "range. A darker point is a later trial.",
        png=_draw(plots.plot_slice, study, metric),
    )
    return [history, importance, slices]


def _draw(plot: Callable[..., Any], study: optuna.Study, metric: str) -> bytes:
    """One of Optuna's matplotlib plots as a PNG image."""
    plt.switch_backend("agg")  # opens no window
    file = io.BytesIO()
    # Optuna changes matplotlib's style for the whole process. Where a dimension has one value, it
    # sets equal limits, of which matplotlib warns.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = np.ravel(plot(study, target_name=metric))[0].figure
        figure.savefig(
            file, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None}
        )
        plt.close(figure)
    return file.getvalue()
