"""The share of texts with a wrong label, by their length."""

import numpy as np
from scipy.stats import binomtest

from jaxclf.decisions.intervals import LEVEL
from jaxclf.decisions.thresholds import decide
from jaxclf.reports.figures import style
from jaxclf.reports.figures.data import Columns, RunData, stack_rows

ORDER, TITLE = 80, "Text length"
ALT = (
    "The share of test texts with a wrong label, by their length in tokens, with "
    f"{100 * LEVEL:.0f} % intervals."
)
CAPTION = (
    "If the vertical lines of two lengths do not overlap, the difference is unlikely to be chance."
)

MAX_BINS, MIN_TEXTS = 10, 20  # most bins; fewest texts in a bin


def make_columns(run: RunData) -> Columns | str:
    """The share of texts with at least one wrong label, in bins of about equally many texts by
    length in tokens, with Wilson intervals. Texts without a known label are left out."""
    if run.lengths is None:
        return "the lengths of the texts are not known"
    labels = run.test.labels
    is_known = ~np.isnan(labels)
    has_known = is_known.any(axis=1)
    if not has_known.any():
        return "no test text has a known label"
    decided = decide(run.test.probs, run.thresholds)
    is_wrong = (((labels == 1) != decided) & is_known).any(axis=1)[has_known]
    lengths = run.lengths[has_known]
    count = int(np.clip(len(lengths) // MIN_TEXTS, 1, MAX_BINS))
    edges = np.sort(lengths)[np.arange(1, count) * len(lengths) // count]
    bins = np.searchsorted(np.unique(edges), lengths, side="right")
    parts = []
    for in_bin in (bins == index for index in np.unique(bins)):
        texts, wrong = int(in_bin.sum()), int(is_wrong[in_bin].sum())
        interval = binomtest(wrong, texts).proportion_ci(LEVEL, method="wilson")
        length = lengths[in_bin]
        parts.append((length.min(), length.max(), texts, wrong, wrong / texts, *interval))
    return stack_rows("shortest longest texts wrong share interval_low interval_high", parts)


def describe(columns: Columns) -> str:
    shares = [
        f"{100 * columns['share'][row]:.0f} % of the texts of {columns['shortest'][row]} to "
        f"{columns['longest'][row]} tokens"
        for row in (0, -1)
    ]
    if len(columns["share"]) == 1:
        return f"A label is wrong in {shares[0]}."
    low, high = columns["interval_low"], columns["interval_high"]
    is_apart = low[-1] > high[0] or high[-1] < low[0]
    note = "" if is_apart else "; the intervals overlap, so the difference may be chance"
    return f"A label is wrong in {shares[0]} and in {shares[1]}{note}."


def draw(columns: Columns) -> style.Figure:
    share, positions = columns["share"], np.arange(len(columns["share"]))
    errors = np.maximum([share - columns["interval_low"], columns["interval_high"] - share], 0)
    figure = style.Figure(figsize=(style.WIDTH, 3.6))
    axes = figure.add_axes((0.07, 0.2, 0.92, 0.76))
    axes.errorbar(positions, share, errors, fmt="o", color=style.BLUE, capsize=4)
    rows = zip(columns["shortest"], columns["longest"], columns["texts"], strict=True)
    ticks = [
        (f"{low}" if low == high else f"{low}–{high}") + f"\n{texts:,} texts"  # noqa: RUF001
        for low, high, texts in rows
    ]
    axes.set_xticks(positions, ticks)
    axes.set(ylim=(0, 1), xlim=(-0.5, len(positions) - 0.5), xlabel="length in tokens")
    axes.set_ylabel("texts with a wrong label")
    axes.grid(False, axis="x")
    return figure
