"""Figures agree with scikit-learn and with plain counts, keep their data as CSV, and draw any
labels."""

import csv
import math

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
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
from jaxclf.reports.figures import style
from jaxclf.reports.figures.catalog import load_figures
from jaxclf.reports.figures.data import Columns, RunData, rows_by_label, save_columns, select_rows
from jaxclf.reports.figures.reliability import calibration_gap
from jaxclf.reports.figures.threshold_curves import POINTS
from jaxclf.types import Predictions

FIGURES = {figure.name: figure for figure in load_figures()}
NAMES = ("stress", "joie", "rare")
THRESHOLDS = np.array([0.5, 0.4, 0.6])
NAN = float("nan")
LINES = [
    {"step": 10, "epoch": 1, "loss": 0.9, "learning_rate": 1e-4},
    {"step": 20, "epoch": 1, "loss": 0.5, "learning_rate": 5e-5},
    {"step": 25, "epoch/epoch": 1, "epoch/macro_f1": 0.4, "epoch/calibrated_log_loss": 0.3},
    {"step": 30, "epoch": 2, "loss": 0.4, "learning_rate": 2e-5},
    {"step": 50, "epoch/epoch": 2, "epoch/calibrated_log_loss": 0.35},  # macro F1 was NaN
]


def sample(rows: int = 300, decimals: int = 2, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels, some unknown, and probabilities of some skill with many ties."""
    rng = np.random.default_rng(rows)
    labels = (rng.random((rows, classes)) < np.linspace(0.5, 0.05, classes)).astype(np.float32)
    probs = np.round(np.clip(0.4 * labels + 0.65 * rng.random(labels.shape), 0, 1), decimals)
    labels[rng.random(labels.shape) < 0.1] = NAN
    return labels, probs.astype(np.float32)


def known(labels: np.ndarray, probs: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    is_known = ~np.isnan(labels[:, index])
    return labels[is_known, index], probs[is_known, index]


def run_data(
    labels: np.ndarray,
    probs: np.ndarray,
    thresholds: np.ndarray = THRESHOLDS,
    names: tuple[str, ...] = NAMES,
    log: list[dict] | None = None,
) -> RunData:
    """A run whose val and test split are the same."""
    predictions = Predictions(np.arange(len(labels)).astype(str), probs, labels, "test")
    lengths = np.arange(len(labels)) % 50 + 3
    return RunData(
        test=predictions,
        val=predictions,
        thresholds=thresholds,
        names=names,
        label_indices=np.arange(len(names)),
        lengths=lengths,
        log=LINES if log is None else log,
    )


def columns_of(name: str, run: RunData) -> Columns:
    columns = FIGURES[name].data(run)
    assert not isinstance(columns, str)
    return columns


def all_columns(run: RunData) -> dict[str, Columns]:
    """The columns of every figure that the run has."""
    pairs = ((name, figure.data(run)) for name, figure in FIGURES.items())
    return {name: columns for name, columns in pairs if not isinstance(columns, str)}


def draw(name: str, columns: Columns) -> Figure:
    """The figure after it was saved, at the resolution of the file, which positions its text."""
    figures = []

    def draw_and_keep(columns):
        figures.append(FIGURES[name].draw(columns))
        figures[0].set_dpi(style.DPI)
        return figures[0]

    assert style.to_png(draw_and_keep, columns).startswith(b"\x89PNG\r\n\x1a\n")
    return figures[0]


@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_precision_and_recall_agree_with_scikit_learn(decimals):
    labels, probs = sample(decimals=decimals)
    by_label = rows_by_label(columns_of("precision_recall", run_data(labels, probs)))
    assert tuple(by_label) == NAMES
    for index, rows in enumerate(by_label.values()):
        curve = {key: values[rows["chosen"] == 0][::-1] for key, values in rows.items()}
        expected = precision_recall_curve(*known(labels, probs, index), drop_intermediate=True)
        np.testing.assert_array_equal(curve["precision"], expected[0])
        np.testing.assert_array_equal(curve["recall"], expected[1])
        np.testing.assert_array_equal(curve["threshold"], np.append(expected[2], np.inf))
        area = -np.sum(np.diff(curve["recall"]) * curve["precision"][:-1])
        np.testing.assert_allclose(area, average_precision(labels, probs)[index], rtol=1e-12)


@pytest.mark.parametrize("decimals", [1, 2, 7])
def test_roc_curves_agree_with_scikit_learn(decimals):
    labels, probs = sample(decimals=decimals)
    by_label = rows_by_label(columns_of("roc", run_data(labels, probs)))
    for index, rows in enumerate(by_label.values()):
        curve = select_rows(rows, rows["chosen"] == 0)
        expected = roc_curve(*known(labels, probs, index), drop_intermediate=True)
        np.testing.assert_array_equal(curve["false_positive_rate"], expected[0])
        np.testing.assert_array_equal(curve["true_positive_rate"], expected[1])
        np.testing.assert_array_equal(curve["threshold"], expected[2])
        area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
        np.testing.assert_allclose(area, auc(labels, probs)[index], rtol=1e-12)


def test_the_chosen_points_are_those_of_the_decisions():
    labels, probs = sample()
    decided = decide(probs, THRESHOLDS)
    scores, is_negative = score_labels(labels, decided), labels == 0
    columns = all_columns(run_data(labels, probs))

    def chosen(name: str, key: str) -> np.ndarray:
        return columns[name][key][columns[name]["chosen"] == 1]

    for name in ("precision_recall", "threshold_curves"):
        np.testing.assert_array_equal(chosen(name, "precision"), scores.precision)
        np.testing.assert_array_equal(chosen(name, "recall"), scores.recall)
        np.testing.assert_array_equal(chosen(name, "threshold"), THRESHOLDS)
    np.testing.assert_array_equal(chosen("threshold_curves", "f1"), scores.f1)
    np.testing.assert_array_equal(chosen("roc", "true_positive_rate"), scores.recall)
    np.testing.assert_array_equal(
        chosen("roc", "false_positive_rate"),
        (decided & is_negative).sum(axis=0) / is_negative.sum(axis=0),
    )


def test_threshold_curves_are_the_scores_of_decisions_at_each_threshold():
    labels, probs = sample(rows=60)
    by_label = rows_by_label(columns_of("threshold_curves", run_data(labels, probs)))
    for index, rows in enumerate(by_label.values()):
        curve = select_rows(rows, rows["chosen"] == 0)
        y, p = known(labels, probs, index)
        ends = min(float(p.min()), THRESHOLDS[index]), max(float(p.max()), THRESHOLDS[index])
        np.testing.assert_array_equal(curve["threshold"], np.linspace(*ends, POINTS))
        for row, threshold in enumerate(curve["threshold"]):
            scores = score_labels(y[:, None], decide(p[:, None], np.array([threshold])))
            assert (curve["recall"][row], curve["f1"][row]) == (scores.recall[0], scores.f1[0])
            np.testing.assert_equal(curve["precision"][row], scores.precision[0])


def test_reliability_agrees_with_scikit_learn_and_its_mean_gap_is_the_ece():
    labels, probs = sample(decimals=7)  # no probability is on an edge, where the two differ
    columns = columns_of("reliability", run_data(labels, probs))
    pooled = select_rows(columns, columns["all"] == 1)
    by_label = rows_by_label(select_rows(columns, columns["all"] == 0))
    is_known = ~np.isnan(labels)
    pairs = [(labels[is_known], probs[is_known])]
    pairs += [known(labels, probs, index) for index in range(3)]
    for rows, (y, p) in zip((pooled, *by_label.values()), pairs, strict=True):
        frequency, probability = calibration_curve(y, p.astype(np.float64), n_bins=ECE_BINS)
        np.testing.assert_allclose(rows["frequency"], frequency, rtol=1e-12)
        np.testing.assert_allclose(rows["probability"], probability, rtol=1e-12)
        assert rows["count"].sum() == len(y)
        assert ((rows["low"] <= rows["probability"]) & (rows["probability"] < rows["high"])).all()
    ece = expected_calibration_error(labels, probs)
    np.testing.assert_allclose(calibration_gap(pooled), ece, rtol=1e-12)


def test_histograms_count_every_known_example_once():
    labels, probs = sample()
    by_label = rows_by_label(columns_of("score_histograms", run_data(labels, probs)))
    for index, rows in enumerate(by_label.values()):
        y, p = known(labels, probs, index)
        for name, scores in (("positives", p[y == 1]), ("negatives", p[y == 0])):
            inside = (scores[:, None] >= rows["low"]) & (scores[:, None] < rows["high"])
            inside[:, -1] |= scores == rows["high"][-1]
            np.testing.assert_array_equal(rows[name], inside.sum(axis=0))
            assert rows[name].sum() == len(scores)


def test_error_pairs_count_texts_with_both_errors():
    labels, probs = sample(rows=80)
    decided = decide(probs, THRESHOLDS)
    columns = columns_of("error_pairs", run_data(labels, probs))
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
    pairs = list(zip(columns["predicted"].tolist(), columns["missed"].tolist(), strict=True))
    assert pairs == [(predicted, missed) for predicted in NAMES for missed in NAMES]
    assert (
        columns["false_positives"][::3].tolist() == (decided & (labels == 0)).sum(axis=0).tolist()
    )


def test_training_holds_the_logged_lines_and_a_running_mean():
    columns = columns_of("training", run_data(*sample()))
    assert columns["batch"].tolist() == [10, 20, 30, 25, 50]
    np.testing.assert_equal(columns["loss"], [0.9, 0.5, 0.4, NAN, NAN])
    np.testing.assert_equal(columns["learning_rate"], [1e-4, 5e-5, 2e-5, NAN, NAN])
    np.testing.assert_equal(columns["macro_f1"], [NAN, NAN, NAN, 0.4, NAN])
    np.testing.assert_equal(columns["calibrated_log_loss"], [NAN, NAN, NAN, 0.3, 0.35])
    losses = np.random.default_rng(0).random(100)
    log = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    columns = columns_of("training", run_data(*sample(), log=log))
    expected = [losses[max(i - 2, 0) : i + 3].mean() for i in range(100)]
    np.testing.assert_allclose(columns["running_mean"], expected, rtol=1e-12)


def test_length_errors_count_texts_with_a_wrong_label_in_disjoint_bins():
    labels, probs = sample(rows=250)
    labels[:7] = NAN
    decided = decide(probs, THRESHOLDS)
    lengths = np.random.default_rng(1).geometric(0.05, 250)
    columns = columns_of("length_errors", run_data(labels, probs)._replace(lengths=lengths))
    wrong = [
        any(y == y and (y == 1) != d for y, d in zip(*row, strict=True))
        for row in zip(labels, decided, strict=True)
    ]
    for row, share in enumerate(columns["share"]):
        low, high = columns["shortest"][row], columns["longest"][row]
        inside = [wrong[i] for i in range(7, 250) if low <= lengths[i] <= high]
        assert (columns["texts"][row], columns["wrong"][row]) == (len(inside), sum(inside))
        assert share == sum(inside) / len(inside)
        assert 0 <= columns["interval_low"][row] < share < columns["interval_high"][row] <= 1
    assert columns["texts"].sum() == 243
    assert len(columns["share"]) > 5
    assert (columns["longest"][:-1] < columns["shortest"][1:]).all()


def test_the_csv_holds_every_number_to_its_last_bit(tmp_path):
    for name, columns in all_columns(run_data(*sample())).items():
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
                values = [float(cell) if cell else NAN for cell in cells]
                np.testing.assert_array_equal(values, columns[key])
    assert not list(tmp_path.glob("*.part"))


def test_figures_draw_their_columns():
    columns = all_columns(run_data(*sample()))
    keys = {
        "precision_recall": ("recall", "precision"),
        "roc": ("false_positive_rate", "true_positive_rate"),
        "threshold_curves": ("threshold", "f1"),
    }
    for name, (x, y) in keys.items():
        figure = draw(name, columns[name])
        for axes, rows in zip(figure.axes, rows_by_label(columns[name]).values(), strict=True):
            curve = rows["chosen"] == 0
            line, point = axes.lines[0], axes.lines[-1]
            np.testing.assert_array_equal(line.get_xdata(), rows[x][curve])
            np.testing.assert_array_equal(line.get_ydata(), rows[y][curve])
            np.testing.assert_array_equal(point.get_xdata(), rows[x][~curve])
            np.testing.assert_array_equal(point.get_ydata(), rows[y][~curve])
    cells = [text.get_text() for text in draw("error_pairs", columns["error_pairs"]).axes[0].texts]
    assert cells == [f"{texts}" for texts in columns["error_pairs"]["texts"] if texts]
    reliability = columns["reliability"]
    pooled = draw("reliability", reliability).axes[0].lines[1]
    np.testing.assert_array_equal(
        pooled.get_ydata(), reliability["frequency"][reliability["all"] > 0]
    )
    training = draw("training", columns["training"]).axes
    np.testing.assert_array_equal(
        training[0].lines[1].get_ydata(), columns["training"]["running_mean"]
    )
    np.testing.assert_array_equal(training[1].lines[0].get_ydata(), [0.4, NAN])
    (bars,) = draw("length_errors", columns["length_errors"]).axes[0].containers
    np.testing.assert_array_equal(bars.lines[0].get_ydata(), columns["length_errors"]["share"])


@pytest.mark.parametrize(("rows", "prob"), [(1, None), (2, 0.0), (40, None)])
def test_labels_with_few_defined_scores_are_drawn(rows, prob):
    rng = np.random.default_rng(0)
    labels = np.stack([np.zeros(rows), np.ones(rows), np.full(rows, NAN), np.arange(rows) % 2], 1)
    probs = rng.random(labels.shape) if prob is None else np.full(labels.shape, prob)
    names = ("no positives", "only positives", "never known", "both")
    run = run_data(labels.astype(np.float32), probs.astype(np.float32), np.full(4, 0.5), names)
    columns = all_columns(run)
    for name in FIGURES:
        draw(name, columns[name])
        finding = FIGURES[name].finding(columns[name])
        assert finding
        assert "nan" not in finding
    for name in ("precision_recall", "roc", "threshold_curves", "score_histograms"):
        assert list(rows_by_label(columns[name])) == list(names)
    by_label = rows_by_label(columns["precision_recall"])
    assert math.isnan(by_label["no positives"]["recall"][0])
    by_label = rows_by_label(columns["roc"])
    assert math.isnan(by_label["only positives"]["false_positive_rate"][0])


def test_unknown_labels_and_short_logs_are_drawn():
    labels, probs = np.full((3, 2), NAN, np.float32), np.full((3, 2), 0.5, np.float32)
    run = run_data(labels, probs, np.full(2, 0.5), ("a", "b"))
    columns = all_columns(run)
    assert FIGURES.keys() - columns.keys() == {"length_errors"}
    for name in columns:
        draw(name, columns[name])
        assert "nan" not in FIGURES[name].finding(columns[name])
    for log in (LINES[:1], LINES[2:3]):
        draw("training", columns_of("training", run._replace(log=log)))
    assert isinstance(FIGURES["training"].data(run._replace(log=[])), str)


AWKWARD = (
    "a_very_long_name_of_a_label_in_a_figure", "another_very_long_name_of_a_label", "$x$",
    "$\\frac{$", "_hidden", "<b>bold</b>", "with\nline\tbreaks", "失望", "حزن", "😀",
    "WWWWWWWWWWWWWWWW",
    "MMMMMMMMMMMMMMMMMMMMMMMMMMMMM", "%d", "{}", "\\alpha", "é", " ", "a" * 200,
    *(f"label_number_{number}" for number in range(10)),
)  # fmt: skip


@pytest.fixture(scope="module")
def many():
    """A figure of every layout with 28 awkward labels."""
    run = run_data(*sample(rows=400, classes=28), np.full(28, 0.5), AWKWARD)
    kinds = ("precision_recall", "score_histograms", "reliability", "error_pairs")
    return {name: draw(name, columns_of(name, run)) for name in kinds}


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


def test_long_names_lose_their_middle_and_unwritable_names_are_numbered():
    names = style.fit_labels(AWKWARD, 1.5)
    assert all(style.text_width(name) <= 1.5 for name in names)
    assert names[0].startswith("a_very_")
    assert names[0].endswith("_figure")
    assert "…" in names[0]
    assert (names[2], names[6], names[7]) == ("$x$", "with line breaks", "label 8")
    assert style.fit_labels(["x" * 99], style.text_width("xx…xx")) == ["xx…xx"]
    assert style.is_writable("é ü ж")
    assert not style.is_writable("失望")
    assert not style.is_writable(" ")


def test_the_users_matplotlib_settings_do_not_change_a_figure():
    figure = FIGURES["precision_recall"]
    columns = columns_of(figure.name, run_data(*sample()))
    png = style.to_png(figure.draw, columns)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        assert style.to_png(figure.draw, columns) == png
        assert dict(matplotlib.rcParams) == before


def test_findings_describe_the_columns():
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    probs = np.array([[0.9, 0.1], [0.8, 0.7], [0.2, 0.6], [0.1, 0.2]], np.float32)
    run = run_data(labels, probs, np.array([0.5, 0.65]), ("good", "bad"))
    findings = {name: FIGURES[name].finding(columns) for name, columns in all_columns(run).items()}
    for name, quantity, values in (
        ("precision_recall", "average precision", ("good (1.00)", "bad (0.58)")),
        ("roc", "area under the curve", ("good (1.00)", "bad (0.50)")),
        ("threshold_curves", "chosen threshold", ("bad (0.65)", "good (0.50)")),
    ):
        highest, lowest = values
        assert findings[name].startswith(f"Highest {quantity}: {highest}; lowest: {lowest}.")
    for text in ("0.900", "0.400", "epoch 1 of 2"):
        assert text in findings["training"]
    assert "75 % of the texts of 3 to 6 tokens" in findings["length_errors"]
    assert f"{expected_calibration_error(labels, probs):.2f}" in findings["reliability"]
    assert "No text" in findings["error_pairs"]
    swapped = run._replace(test=run.test._replace(probs=probs[:, ::-1]))
    finding = FIGURES["error_pairs"].finding(columns_of("error_pairs", swapped))
    assert finding.endswith("good instead of bad (1); bad instead of good (1).")


def test_a_figure_that_fails_leaves_no_style_behind():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError):
        style.to_png(lambda columns: 1 / 0, {})
    assert dict(matplotlib.rcParams) == before
