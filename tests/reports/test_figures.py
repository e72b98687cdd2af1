"""Pictures show what scikit-learn and plain counting say, keep it as CSV, and bear any input."""

import csv
import math

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from jaxclf.decisions.arrays import ECE_BINS
from jaxclf.decisions.metrics import (
    auc,
    average_precision,
    expected_calibration_error,
    score_labels,
)
from jaxclf.decisions.thresholds import decide
from jaxclf.reports.figures import captions, curves, plots, style
from jaxclf.reports.figures.curves import by_label, save_columns, wilson

NAMES = ("stress", "joie", "rare")
CUTS = np.array([0.5, 0.4, 0.6])
NAN = float("nan")
LINES = [
    {"step": 10, "epoch": 1, "loss": 0.9, "learning_rate": 1e-4},
    {"step": 20, "epoch": 1, "loss": 0.5, "learning_rate": 5e-5},
    {"step": 25, "epoch/epoch": 1, "epoch/score": 0.4, "epoch/log_loss": 0.3},
    {"step": 30, "epoch": 2, "loss": 0.4, "learning_rate": 2e-5},
    {"step": 50, "epoch/epoch": 2, "epoch/log_loss": 0.35},  # its score was NaN
]


def sample(rows: int = 300, decimals: int = 2, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels with some not known, and probabilities of some skill with many ties."""
    rng = np.random.default_rng(rows)
    labels = (rng.random((rows, classes)) < np.linspace(0.5, 0.05, classes)).astype(np.float32)
    probs = np.round(np.clip(0.4 * labels + 0.65 * rng.random(labels.shape), 0, 1), decimals)
    labels[rng.random(labels.shape) < 0.1] = NAN
    return labels, probs.astype(np.float32)


def known(labels: np.ndarray, probs: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    there = ~np.isnan(labels[:, index])
    return labels[there, index], probs[there, index]


def everything(labels: np.ndarray, probs: np.ndarray, cuts: np.ndarray, names: tuple[str, ...]):
    """The columns of every picture."""
    decided = decide(probs, cuts)
    lengths = np.arange(len(labels)) % 50 + 3
    return {
        "precision_recall": curves.precision_recall(labels, probs, cuts, names),
        "roc": curves.roc(labels, probs, cuts, names),
        "reliability": curves.reliability(labels, probs, names),
        "threshold_curves": curves.threshold_curves(labels, probs, cuts, names),
        "score_histograms": curves.score_histograms(labels, probs, cuts, names),
        "error_pairs": curves.error_pairs(labels, decided, names),
        "training": curves.training(LINES),
        "length_errors": curves.length_errors(lengths, labels, decided),
    }


def drawn(name: str, columns: curves.Columns) -> Figure:
    """The figure, after it was saved; at the file's resolution, at which text has its places."""
    figures = []

    def draw(columns):
        figures.append(plots.PICTURES[name](columns))
        figures[0].set_dpi(style.DPI)
        return figures[0]

    assert style.png(draw, columns).startswith(b"\x89PNG\r\n\x1a\n")
    return figures[0]


@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_precision_and_recall_are_scikit_learns(decimals):
    labels, probs = sample(decimals=decimals)
    found = by_label(curves.precision_recall(labels, probs, CUTS, NAMES))
    assert tuple(found) == NAMES
    for index, rows in enumerate(found.values()):
        y, p = known(labels, probs, index)
        curve = {key: values[rows["chosen"] == 0][::-1] for key, values in rows.items()}
        said = precision_recall_curve(y, p, drop_intermediate=True)
        np.testing.assert_array_equal(curve["precision"], said[0])
        np.testing.assert_array_equal(curve["recall"], said[1])
        np.testing.assert_array_equal(curve["threshold"], np.append(said[2], np.inf))
        area = -np.sum(np.diff(curve["recall"]) * curve["precision"][:-1])
        np.testing.assert_allclose(area, average_precision(labels, probs)[index], rtol=1e-12)


@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_roc_curves_are_scikit_learns(decimals):
    labels, probs = sample(decimals=decimals)
    for index, rows in enumerate(by_label(curves.roc(labels, probs, CUTS, NAMES)).values()):
        y, p = known(labels, probs, index)
        curve = {key: values[rows["chosen"] == 0] for key, values in rows.items()}
        said = roc_curve(y, p, drop_intermediate=True)
        np.testing.assert_array_equal(curve["false_positive_rate"], said[0])
        np.testing.assert_array_equal(curve["true_positive_rate"], said[1])
        np.testing.assert_array_equal(curve["threshold"], said[2])
        area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
        np.testing.assert_allclose(area, auc(labels, probs)[index], rtol=1e-12)


def test_the_chosen_points_are_those_of_the_decisions():
    labels, probs = sample()
    decided = decide(probs, CUTS)
    scores = score_labels(labels, decided)
    false_positives = np.sum(decided & (labels == 0), axis=0)
    found = everything(labels, probs, CUTS, NAMES)

    def at(name: str, key: str) -> np.ndarray:
        return found[name][key][found[name]["chosen"] == 1]

    for name in ("precision_recall", "threshold_curves"):
        np.testing.assert_array_equal(at(name, "precision"), scores.precision)
        np.testing.assert_array_equal(at(name, "recall"), scores.recall)
        np.testing.assert_array_equal(at(name, "threshold"), CUTS)
    np.testing.assert_array_equal(at("threshold_curves", "f1"), scores.f1)
    np.testing.assert_array_equal(at("roc", "true_positive_rate"), scores.recall)
    np.testing.assert_array_equal(
        at("roc", "false_positive_rate"), false_positives / (labels == 0).sum(axis=0)
    )


def test_threshold_curves_are_what_deciding_there_gives():
    labels, probs = sample(rows=60)
    for index, rows in enumerate(
        by_label(curves.threshold_curves(labels, probs, CUTS, NAMES)).values()
    ):
        line = {key: values[rows["chosen"] == 0] for key, values in rows.items()}
        y, p = known(labels, probs, index)
        ends = min(float(p.min()), CUTS[index]), max(float(p.max()), CUTS[index])
        np.testing.assert_array_equal(line["threshold"], np.linspace(*ends, curves.GRID))
        for row, threshold in enumerate(line["threshold"]):
            scores = score_labels(y[:, None], decide(p[:, None], np.array([threshold])))
            assert (line["recall"][row], line["f1"][row]) == (scores.recall[0], scores.f1[0])
            np.testing.assert_equal(line["precision"][row], scores.precision[0])


def test_reliability_is_scikit_learns_and_its_mean_gap_the_ece():
    labels, probs = sample(decimals=7)  # no probability lies on an edge, where the two differ
    columns = curves.reliability(labels, probs, NAMES)
    whole = {key: values[columns["all"] == 1] for key, values in columns.items()}
    each = by_label({key: values[columns["all"] == 0] for key, values in columns.items()})
    there = ~np.isnan(labels)
    pairs = [(labels[there], probs[there]), *(known(labels, probs, index) for index in range(3))]
    for rows, (y, p) in zip((whole, *each.values()), pairs, strict=True):
        frequency, probability = calibration_curve(y, p.astype(np.float64), n_bins=ECE_BINS)
        np.testing.assert_allclose(rows["frequency"], frequency, rtol=1e-12)
        np.testing.assert_allclose(rows["probability"], probability, rtol=1e-12)
        assert rows["count"].sum() == len(y)
        assert ((rows["low"] <= rows["probability"]) & (rows["probability"] < rows["high"])).all()
    ece = expected_calibration_error(labels, probs)
    np.testing.assert_allclose(captions.calibration_gap(whole), ece, rtol=1e-12)


def test_histograms_count_every_known_example_once():
    labels, probs = sample()
    for index, rows in enumerate(
        by_label(curves.score_histograms(labels, probs, CUTS, NAMES)).values()
    ):
        y, p = known(labels, probs, index)
        for name, scores in (("positives", p[y == 1]), ("negatives", p[y == 0])):
            inside = (scores[:, None] >= rows["low"]) & (scores[:, None] < rows["high"])
            inside[:, -1] |= scores == rows["high"][-1]
            np.testing.assert_array_equal(rows[name], inside.sum(axis=0))
            assert rows[name].sum() == len(scores)


def test_error_pairs_count_texts_with_both_errors():
    labels, probs = sample(rows=80)
    decided = decide(probs, CUTS)
    columns = curves.error_pairs(labels, decided, NAMES)
    expected = [
        sum(
            y[i] == 0 and d[i] and y[j] == 1 and not d[j]
            for y, d in zip(labels, decided, strict=True)
        )
        for i in range(3)
        for j in range(3)
    ]
    assert columns["texts"].tolist() == expected
    assert max(expected) > 0
    pairs = list(zip(columns["given"].tolist(), columns["missed"].tolist(), strict=True))
    assert pairs == [(one, other) for one in NAMES for other in NAMES]
    false_positives = np.sum(decided & (labels == 0), axis=0)
    assert columns["false_positives"][::3].tolist() == false_positives.tolist()


def test_training_holds_the_logged_lines_and_a_running_mean():
    columns = curves.training(LINES)
    assert columns["batch"].tolist() == [10, 20, 30, 25, 50]
    np.testing.assert_equal(columns["loss"], [0.9, 0.5, 0.4, NAN, NAN])
    np.testing.assert_equal(columns["rate"], [1e-4, 5e-5, 2e-5, NAN, NAN])
    np.testing.assert_equal(columns["score"], [NAN, NAN, NAN, 0.4, NAN])
    np.testing.assert_equal(columns["log_loss"], [NAN, NAN, NAN, 0.3, 0.35])
    losses = np.random.default_rng(0).random(100)
    logged = curves.training([{"step": i, "loss": loss} for i, loss in enumerate(losses)])
    expected = [losses[max(i - 2, 0) : i + 3].mean() for i in range(100)]
    np.testing.assert_allclose(logged["running_mean"], expected, rtol=1e-12)


def test_length_errors_count_texts_with_a_wrong_label_in_bins_that_share_no_length():
    labels, probs = sample(rows=250)
    labels[:7] = NAN
    decided = decide(probs, CUTS)
    lengths = np.random.default_rng(1).geometric(0.05, 250)
    columns = curves.length_errors(lengths, labels, decided)
    wrong = [any(y == y and (y == 1) != d for y, d in zip(*row, strict=True))
             for row in zip(labels, decided, strict=True)]  # fmt: skip
    for row in range(len(columns["share"])):
        low, high = columns["shortest"][row], columns["longest"][row]
        inside = [wrong[i] for i in range(7, 250) if low <= lengths[i] <= high]
        assert (columns["texts"][row], columns["wrong"][row]) == (len(inside), sum(inside))
        assert columns["share"][row] == sum(inside) / len(inside)
    assert columns["texts"].sum() == 243
    assert len(columns["share"]) > 5
    assert (columns["longest"][:-1] < columns["shortest"][1:]).all()


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 30), (7, 20), (500, 999)])
def test_the_interval_of_a_share_is_wilsons(successes, trials):
    said = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson(successes, trials), said, atol=1e-12)


def test_the_csv_holds_every_figure_to_its_last_bit(tmp_path):
    for name, columns in everything(*sample(), CUTS, NAMES).items():
        assert len({len(values) for values in columns.values()}) == 1
        save_columns(tmp_path / f"{name}.csv", columns)
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        assert head == list(columns)
        for key, cells in zip(head, zip(*rows, strict=True), strict=True):
            if columns[key].dtype.kind == "U":
                assert list(cells) == columns[key].tolist()
            else:
                assert "nan" not in cells
                read = [float(cell) if cell else NAN for cell in cells]
                np.testing.assert_array_equal(read, columns[key])
    assert not list(tmp_path.glob("*.part"))


def test_what_is_drawn_is_what_the_columns_hold():
    found = everything(*sample(), CUTS, NAMES)
    keys = {
        "precision_recall": ("recall", "precision"),
        "roc": ("false_positive_rate", "true_positive_rate"),
        "threshold_curves": ("threshold", "f1"),
    }
    for name, (across, up) in keys.items():
        figure = drawn(name, found[name])
        for axes, rows in zip(figure.axes, by_label(found[name]).values(), strict=True):
            curve = rows["chosen"] == 0
            line, point = axes.lines[0], axes.lines[-1]
            np.testing.assert_array_equal(line.get_xdata(), rows[across][curve])
            np.testing.assert_array_equal(line.get_ydata(), rows[up][curve])
            np.testing.assert_array_equal(point.get_xdata(), rows[across][~curve])
            np.testing.assert_array_equal(point.get_ydata(), rows[up][~curve])
    cells = [text.get_text() for text in drawn("error_pairs", found["error_pairs"]).axes[0].texts]
    assert cells == [f"{texts}" for texts in found["error_pairs"]["texts"] if texts]
    reliability = found["reliability"]
    whole = drawn("reliability", reliability).axes[0].lines[1]
    np.testing.assert_array_equal(
        whole.get_ydata(), reliability["frequency"][reliability["all"] > 0]
    )
    training = drawn("training", found["training"]).axes
    np.testing.assert_array_equal(
        training[0].lines[1].get_ydata(), found["training"]["running_mean"]
    )
    np.testing.assert_array_equal(training[1].lines[0].get_ydata(), [0.4, NAN])
    (bars,) = drawn("length_errors", found["length_errors"]).axes[0].containers
    np.testing.assert_array_equal(bars.lines[0].get_ydata(), found["length_errors"]["share"])


@pytest.mark.parametrize(("rows", "prob"), [(1, None), (2, 0.0), (40, None), (40, 0.5)])
def test_labels_of_which_little_can_be_said_are_drawn(rows, prob):
    rng = np.random.default_rng(0)
    labels = np.stack([np.zeros(rows), np.ones(rows), np.full(rows, NAN), np.arange(rows) % 2], 1)
    probs = rng.random(labels.shape) if prob is None else np.full(labels.shape, prob)
    names = ("no positives", "only positives", "never known", "both")
    found = everything(labels.astype(np.float32), probs.astype(np.float32), np.full(4, 0.5), names)
    for name, columns in found.items():
        drawn(name, columns)
        said = captions.FINDINGS[name](columns)
        assert said
        assert "nan" not in said
    for name in ("precision_recall", "roc", "threshold_curves", "score_histograms"):
        assert list(by_label(found[name])) == list(names)
    assert math.isnan(by_label(found["precision_recall"])["no positives"]["recall"][0])
    assert math.isnan(by_label(found["roc"])["only positives"]["false_positive_rate"][0])


def test_nothing_known_and_nothing_logged_are_drawn():
    labels, probs = np.full((3, 2), NAN, np.float32), np.full((3, 2), 0.5, np.float32)
    for name, columns in everything(labels, probs, np.full(2, 0.5), ("a", "b")).items():
        if name != "length_errors":  # left out where no text is known at all
            drawn(name, columns)
            assert "nan" not in captions.FINDINGS[name](columns)
    for lines in (LINES[:1], LINES[2:3]):
        drawn("training", curves.training(lines))


AWKWARD = (
    "a_very_long_name_of_a_label_that_goes_on", "another_very_long_name_which_goes_on", "$x$",
    "$\\frac{$", "_hidden", "<b>bold</b>", "with\nline\tbreaks", "失望", "حزن", "😀",
    "WWWWWWWWWWWWWWWW",
    "MMMMMMMMMMMMMMMMMMMMMMMMMMMMM", "%d", "{}", "\\alpha", "é", " ", "a" * 200,
    *(f"label_number_{number}" for number in range(10)),
)  # fmt: skip


@pytest.fixture(scope="module")
def many():
    """A figure of every layout with 28 awkward labels."""
    labels, probs = sample(rows=400, classes=28)
    found = everything(labels, probs, np.full(28, 0.5), AWKWARD)
    kinds = ("precision_recall", "score_histograms", "reliability", "error_pairs")
    return {name: drawn(name, found[name]) for name in kinds}


def test_28_labels_fit_their_picture(many):
    for name, figure in many.items():
        frame = figure.bbox
        for axes in figure.axes:
            if not axes.get_visible():
                continue
            titles = [axes.get_title(loc) for loc in ("left", "right")]
            texts = [*axes.texts, axes.title, axes._left_title, axes._right_title]
            for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                for tick in axis.get_major_ticks():
                    if tick.label1.get_visible() and min(ends) <= tick.get_loc() <= max(ends):
                        texts.append(tick.label1)
            boxes = [text.get_window_extent() for text in texts if text.get_text()]
            for box in boxes:
                assert frame.x0 <= box.x0, (name, titles)
                assert box.x1 <= frame.x1, (name, titles)
                assert frame.y0 <= box.y0, (name, titles)
                assert box.y1 <= frame.y1, (name, titles)
            if all(titles):
                left, right = axes._left_title, axes._right_title
                assert left.get_window_extent().x1 < right.get_window_extent().x0, titles


def test_names_are_cut_in_their_middle_and_strange_letters_replaced():
    said = style.fit_labels(AWKWARD, 1.5)
    assert all(style.width(name) <= 1.5 for name in said)
    assert said[0].startswith("a_very_")
    assert said[0].endswith("_goes_on")
    assert "…" in said[0]
    assert (said[2], said[6], said[7]) == ("$x$", "with line breaks", "label 8")
    assert style.fit_labels(["x" * 99], style.width("xx…xx")) == ["xx…xx"]
    assert style.writable("é ü ж")
    assert not style.writable("失望")
    assert not style.writable(" ")


def test_a_picture_is_the_same_whatever_the_users_own_settings():
    columns = curves.precision_recall(*sample(), CUTS, NAMES)
    one = style.png(plots.precision_recall, columns)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        assert style.png(plots.precision_recall, columns) == one
        assert dict(matplotlib.rcParams) == before


def test_findings_say_what_the_columns_hold():
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    probs = np.array([[0.9, 0.1], [0.8, 0.7], [0.2, 0.6], [0.1, 0.2]], np.float32)
    cuts, names = np.array([0.5, 0.65]), ("good", "bad")
    found = everything(labels, probs, cuts, names)
    said = {name: captions.FINDINGS[name](columns) for name, columns in found.items()}
    assert said["precision_recall"] == "Highest average precision: good (1.00); lowest: bad (0.58)."
    assert said["roc"] == "Highest area under the curve: good (1.00); lowest: bad (0.50)."
    assert said["threshold_curves"].startswith(
        "Highest chosen threshold: bad (0.65); lowest: good (0.50)."
    )
    assert said["error_pairs"] == "No text has one label given wrongly and another missed."
    swapped = curves.error_pairs(labels, decide(probs[:, ::-1], cuts), names)
    assert captions.error_pairs(swapped) == (
        "Most often: good given where bad was missed (1); bad given where good was missed (1)."
    )
    assert said["training"] == (
        "The training loss went from 0.900 to 0.400. The best score on val, 0.400, came after "
        "epoch 1 of 2."
    )
    assert said["length_errors"] == "A label is wrong in 75 % of the texts of 3 to 6 tokens."
    off = expected_calibration_error(labels, probs)
    assert said["reliability"].startswith(f"All labels together are off by {off:.2f} on average")


def test_a_figure_that_fails_leaves_no_style_behind():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError):
        style.png(lambda columns: 1 / 0, {})
    assert dict(matplotlib.rcParams) == before
