"""What each picture of a run says, in a sentence or two: for a reader in a hurry, and for one who
cannot see it."""

import numpy as np

from jaxclf.reports.figures.curves import Columns, by_label


def precision_recall(columns: Columns) -> str:
    areas = {}
    for name, rows in by_label(columns).items():
        recall, precision = (rows[key][rows["chosen"] == 0] for key in ("recall", "precision"))
        if not np.isnan(recall[0]):
            areas[name] = float(np.sum(np.diff(recall) * precision[1:]))
    return _ends(areas, "average precision")


def roc(columns: Columns) -> str:
    areas = {}
    for name, rows in by_label(columns).items():
        curve = rows["chosen"] == 0
        x, y = rows["false_positive_rate"][curve], rows["true_positive_rate"][curve]
        if not np.isnan(x[0]):
            areas[name] = float(np.trapezoid(y, x))
    return _ends(areas, "area under the curve")


def threshold_curves(columns: Columns) -> str:
    chosen = columns["chosen"] == 1
    at = dict(zip(columns["label"][chosen].tolist(), columns["threshold"][chosen], strict=True))
    said = _ends(at, "chosen threshold")
    near = [name for name, rows in by_label(columns).items() if _narrow(rows)]
    if near:
        said += (
            f" A threshold a tenth lower or higher would cost more than 0.1 of F1 on {_list(near)}."
        )
    return said


def _narrow(rows: Columns) -> bool:
    """Whether F1 falls by more than 0.1 within a tenth of the chosen threshold."""
    if np.isnan(rows["f1"]).any() or not (rows["chosen"] == 1).any():
        return False
    chosen = rows["chosen"] == 1
    threshold, f1 = rows["threshold"][chosen].item(), rows["f1"][chosen].item()
    near = np.abs(rows["threshold"] - threshold) <= threshold / 10
    return bool(rows["f1"][near].min() < f1 - 0.1)


def score_histograms(columns: Columns) -> str:
    """How far the middle positive lies above the middle negative."""
    apart = {}
    for name, rows in by_label(columns).items():
        if rows["positives"].any() and rows["negatives"].any():
            middle = (rows["low"] + rows["high"]) / 2
            apart[name] = _median(middle, rows["positives"]) - _median(middle, rows["negatives"])
    return _ends(apart, "gap between the median positive and the median negative")


def _median(values: np.ndarray, counts: np.ndarray) -> float:
    return float(values[np.searchsorted(np.cumsum(counts), counts.sum() / 2)])


def reliability(columns: Columns) -> str:
    whole = {name: values[columns["all"] == 1] for name, values in columns.items()}
    if not whole["count"].any():
        return "Nothing is known of any label."
    said = f"All labels together are off by {calibration_gap(whole):.2f} on average (the ECE)."
    sure = float(np.sum((whole["probability"] - whole["frequency"]) * whole["count"]))
    sure /= float(whole["count"].sum())
    if abs(sure) >= 0.01:
        side = "above" if sure > 0 else "below"
        said += f" On average the probabilities lie {abs(sure):.2f} {side} the frequencies."
    return said


def calibration_gap(rows: Columns) -> float:
    """Mean distance between probability and frequency, weighted by count; 0 of nothing."""
    gaps = np.abs(rows["probability"] - rows["frequency"]) * rows["count"]
    return float(np.nansum(gaps) / max(rows["count"].sum(), 1))


def error_pairs(columns: Columns) -> str:
    order = np.argsort(-columns["texts"], kind="stable")[:3]
    pairs = [
        f"{columns['given'][row]} given where {columns['missed'][row]} was missed "
        f"({columns['texts'][row]:,})"
        for row in order
        if columns["texts"][row] > 0
    ]
    if not pairs:
        return "No text has one label given wrongly and another missed."
    return f"Most often: {'; '.join(pairs)}."


def training(columns: Columns) -> str:
    epochs, mean = ~np.isnan(columns["epoch"]), columns["running_mean"]
    logged = mean[~np.isnan(mean)]
    said = []
    if len(logged) > 1:
        said.append(f"The training loss went from {logged[0]:.3f} to {logged[-1]:.3f}.")
    score, epoch = columns["score"][epochs], columns["epoch"][epochs]
    if not np.isnan(score).all():
        best = int(np.nanargmax(score))
        said.append(
            f"The best score on val, {score[best]:.3f}, came after epoch {epoch[best]:.0f} "
            f"of {len(epoch)}."
        )
    return " ".join(said)


def length_errors(columns: Columns) -> str:
    first, last = (
        f"{100 * columns['share'][row]:.0f} % of the texts of {columns['shortest'][row]} to "
        f"{columns['longest'][row]} tokens"
        for row in (0, -1)
    )
    if len(columns["share"]) == 1:
        return f"A label is wrong in {first}."
    apart = (
        columns["interval_low"][-1] > columns["interval_high"][0]
        or columns["interval_high"][-1] < columns["interval_low"][0]
    )
    note = "" if apart else "; the intervals overlap, so this may be chance"
    return f"A label is wrong in {first} and in {last}{note}."


def _ends(values: dict[str, float], what: str) -> str:
    """Which label is highest in something, and which lowest."""
    if not values:
        return f"No label has a figure ({what})."
    high, low = max(values, key=lambda name: values[name]), min(values, key=lambda n: values[n])
    if len(values) == 1 or values[high] == values[low]:
        return f"{what.capitalize()}: {values[high]:.2f} ({_list(list(values))})."
    return f"Highest {what}: {high} ({values[high]:.2f}); lowest: {low} ({values[low]:.2f})."


def _list(names: list[str]) -> str:
    """Up to four names in words."""
    more = len(names) - 4
    return ", ".join(names[:4]) + (f" and {more} more" if more > 0 else "")


FINDINGS = {
    "precision_recall": precision_recall,
    "roc": roc,
    "reliability": reliability,
    "threshold_curves": threshold_curves,
    "score_histograms": score_histograms,
    "error_pairs": error_pairs,
    "training": training,
    "length_errors": length_errors,
}
