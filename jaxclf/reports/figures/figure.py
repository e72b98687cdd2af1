"""A figure of a run as one value, and the run's data that figures show."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxclf.reports.figures.columns import Columns
from jaxclf.types import Predictions


class RunData(NamedTuple):
    """What a finished run offers to its figures."""

    test: Predictions
    val: Predictions
    thresholds: np.ndarray  # [C]
    names: tuple[str, ...]
    label_indices: Int[np.ndarray, " shown"]  # labels with a panel or a row of their own
    lengths: np.ndarray | None = None  # tokens of each test text
    log: Sequence[Mapping[str, Any]] = ()  # lines of metrics.jsonl


class Figure(NamedTuple):
    """One figure of the report. Its files are `plots/NAME.png` and `plots/NAME.csv`."""

    name: str
    order: int  # on the page
    title: str
    # What is drawn, as columns of equal length; or the reason why the run has no such figure.
    data: Callable[[RunData], Columns | str]
    draw: Callable[[Columns], Any]  # a matplotlib figure
    alt: str  # what a reader would see; `finding` is appended
    finding: Callable[[Columns], str]  # the result in a sentence or two
    caption: str  # how to read it
