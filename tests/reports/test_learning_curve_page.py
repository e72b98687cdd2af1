"""The answer about more data follows the intervals, in words, tables and on the page."""

import numpy as np
import pytest

from jaxclf.decisions.extrapolation import extrapolate
from jaxclf.decisions.learning_curve import MIN_SUPPORT
from jaxclf.reports.figures.learning_curve import make_columns
from jaxclf.reports.learning_curve import curve_table, describe, labels_table, write_page

ROWS = (250, 500, 1000)
RISING, FALLING, FLAT = (0.5, 0.6, 0.66), (0.66, 0.6, 0.5), (0.6, 0.6, 0.6)
MARKUP = '<b>"fear" & more</b>'


def make_curve(scores, noise=0.002, highest=1.0):
    scores = np.array(scores)
    draws = scores[:, None] + noise * np.random.default_rng(0).normal(size=(3, 400))
    curve = extrapolate(ROWS, scores, draws, highest)
    return curve._asdict() | {"forecasts": [part._asdict() for part in curve.forecasts]}


def make_record(macro_f1=RISING, log_loss=FALLING, **labels):
    return {
        "shares": [0.25, 0.5, 1.0],
        "runs": ["share-0.25", "share-0.5", "share-1"],
        "rows": list(ROWS),
        "examples": 400,
        "scored_labels": 5,
        "macro_f1": make_curve(macro_f1),
        "log_loss": make_curve(log_loss, highest=np.inf),
        "labels": {name: make_curve(f1) | {"support": 30} for name, f1 in labels.items()},
    }


@pytest.mark.parametrize(
    ("scores", "words"),
    [(RISING, "would help"), (FLAT, "Cannot tell"), (FALLING, "would not help")],
)
def test_the_answer_follows_the_interval_of_the_gain(scores, words):
    record = make_record(macro_f1=scores, log_loss=scores[::-1])
    sentences = describe(record)[:4]
    assert all(words in sentence for sentence in sentences)
    starts = ["Twice the data: macro F1", "Twice the data: log loss", "Four times", "Four times"]
    for sentence, start in zip(sentences, starts, strict=True):
        assert sentence.startswith(start)
    forecast = record["macro_f1"]["forecasts"][0]
    assert f"{forecast['score']:.3f}" in sentences[0]
    assert f"{forecast['gain']:+.3f}" in sentences[0]


def test_labels_with_a_certain_gain_are_named_the_largest_first():
    labels = {"small": (0.5, 0.51, 0.53), "large": RISING, "flat": FLAT, "less": FALLING}
    sentence = describe(make_record(**labels))[4]
    assert sentence.index("large (+0.0") < sentence.index("small (+0.0")
    assert "flat" not in sentence
    assert "less" not in sentence
    assert "cannot tell" in describe(make_record(flat=FLAT))[4]
    assert f"{MIN_SUPPORT} positives" in describe(make_record())[4]


def test_tables_have_a_row_for_each_run_forecast_and_label():
    record = make_record(flat=FLAT, large=RISING)
    table = curve_table(record)
    assert [row[0] for row in table.rows] == ["0.25", "0.5", "1", "2 (expected)", "4 (expected)"]
    assert [row[1] for row in table.rows] == ["250", "500", "1,000", "2,000", "4,000"]
    assert table.rows[2][2] == "0.660"
    labels = labels_table(record)
    assert [row[0] for row in labels.rows] == ["large", "flat"]
    assert labels.notes[0].startswith("3 labels")


def test_the_figure_has_the_scores_and_a_curve_through_the_last():
    record = make_record()
    columns = make_columns(ROWS, {"macro F1": record["macro_f1"]})
    kinds = columns["kind"]
    np.testing.assert_array_equal(columns["value"][kinds == "trained"], RISING)
    fitted_rows, fitted = (columns[name][kinds == "fitted"] for name in ("rows", "value"))
    expected = [forecast["score"] for forecast in record["macro_f1"]["forecasts"]]
    at_points = np.interp([1000, 2000, 4000], fitted_rows, fitted)
    np.testing.assert_allclose(at_points, [0.66, *expected], atol=1e-4)


def test_the_page_holds_the_answer_and_needs_no_network(tmp_path):
    record = make_record(**{MARKUP: RISING, "flat": FLAT})
    page = write_page(tmp_path / "curve.html", "small", record).read_text(encoding="utf-8")
    assert "Learning curve: small" in page
    assert "Twice the data: macro F1" in page
    assert page.count("data:image/png;base64,") == 1
    assert "<b>" not in page
    assert "http://" not in page
    assert "https://" not in page
    without_labels = write_page(tmp_path / "curve.html", "small", make_record())
    assert "No label has enough positives" in without_labels.read_text(encoding="utf-8")
