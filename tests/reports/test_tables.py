"""Tables show every figure once, three decimals, n/a where it is undefined."""

import html
import math
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt

from jaxclf.decisions.evaluation import evaluate_split
from jaxclf.decisions.label_issues import label_noise
from jaxclf.decisions.score_tables import LABEL_COLUMNS, Table, score_tables, to_markdown
from jaxclf.files.json_file import read_json, write_json
from jaxclf.files.markdown import escape_markdown
from jaxclf.reports.tables import (
    comparison_tables,
    format_p_value,
    label_noise_table,
    members_table,
    stages_table,
)
from jaxclf.types import Predictions

NAMES = ("stress", "a label with a long name", "joie", "absent", "never")
THRESHOLDS = np.array([0.5, 0.4, 0.6, 0.5, 0.5])


@pytest.fixture(scope="module")
def scores():
    """Three labels of some skill, one without positives and one without known rows."""
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 5)) < [0.5, 0.3, 0.2, 0.0, 0.5]).astype(np.float32)
    probs = np.clip(0.4 * labels + 0.6 * rng.random(labels.shape), 0, 1).astype(np.float32)
    labels[:, 4] = np.nan
    ids = np.arange(60).astype(str)
    return evaluate_split(Predictions(ids, probs, labels, "test"), THRESHOLDS, NAMES)


def test_every_label_has_a_row(scores):
    table = score_tables(scores, "test")[0]
    assert table.columns == ("test", "support", *LABEL_COLUMNS)
    for name, row in zip(NAMES, table.rows, strict=True):
        values = [scores["labels"][name][column] for column in LABEL_COLUMNS]
        texts = ["n/a" if math.isnan(value) else f"{value:.3f}" for value in values]
        assert row == (name, f"{scores['labels'][name]['support']:.0f}", *texts)
    # A label without positives keeps its precision, an unknown one its threshold alone.
    assert [row.count("n/a") for row in table.rows] == [0, 0, 0, 4, 5]


def test_every_metric_has_a_row_with_its_interval(scores):
    rows = {row[0]: row[1:] for row in score_tables(scores, "test")[1].rows}
    low, high = scores["intervals"]["macro_f1"]
    constant = f"{scores['constant']['macro_f1']:.3f}"
    assert rows["Macro F1"] == (f"{scores['macro_f1']:.3f}", f"{low:.3f} to {high:.3f}", constant)
    assert len(rows) == len(scores["intervals"])  # one less for the labels, one more at 0.5


def test_optimism_is_shown_where_thresholds_were_cross_fitted(scores):
    plain, crossfit = score_tables(scores, "test")[1].rows, {"in_sample": 0.4, "optimism": 0.012}
    rows = score_tables({**scores, "crossfit": {"macro_f1": crossfit}}, "test")[1].rows
    assert [row[1] for row in rows[len(plain) :]] == ["0.400", "+0.012"]


def test_a_note_says_over_how_many_labels_macro_f1_is(scores):
    note, _ = score_tables(scores, "test")[1].notes
    assert "3 of 5 labels" in note  # a label without positives and an unknown one are left out


def test_the_file_gives_the_same_tables(scores, tmp_path):
    path = write_json(tmp_path / "report.json", scores)
    assert score_tables(read_json(path), "test") == score_tables(scores, "test")


def test_a_comparison_has_both_scores_and_the_verdict():
    row = {"a": 0.5, "b": 0.25, "difference": 0.25, "interval": [0.1, 0.4], "p": 1e-4}
    unknown = dict.fromkeys(("a", "b", "difference", "p"), math.nan) | {"interval": [math.nan] * 2}
    record = {
        "metrics": {"macro_f1": {**row, "verdict": "A is better"}},
        "f1": {"joy": {**unknown, "verdict": "no evidence of a difference"}},
    }
    metrics, labels = comparison_tables(record, "good", "poor")
    assert "A: good" in metrics.title
    (row,) = metrics.rows
    assert row[1:] == ("0.500", "0.250", "+0.250", "+0.100 to +0.400", "<0.001", "A is better")
    assert labels.rows[0][1:6] == ("n/a",) * 5
    assert format_p_value(0.0123) == "0.012"


def test_members_have_weights_scores_and_correlations():
    member = {"weight": 0.5, "macro_f1": 0.4, "gain": None}
    description = {
        "split": "val",
        "members": {"a": member, "b": {**member, "gain": 0.01}},
        "correlation": [[1.0, 0.8], [0.8, 1.0]],
    }
    rows = members_table(description).rows
    assert rows[0] == ("a", "0.500", "0.400", "n/a", "0.80 to 0.80")
    assert rows[1][3] == "+0.010"


def test_label_noise_without_evidence_is_not_available():
    noise = label_noise(np.zeros((5, 1), np.float32), np.full((5, 1), 0.3, np.float32))
    assert label_noise_table(noise, ("a",)).rows[0] == ("a", "0", "0", "n/a", "5", "0", "n/a")


def test_markdown_escapes_what_would_end_a_cell():
    text = to_markdown(Table("", ("name", "x"), [("a | b\n<c>", "1")], ["note"]))
    assert text == "| name | x |\n| --- | ---: |\n| a \\| b &lt;c&gt; | 1 |\n\nnote"


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>", "&lt;b&gt;", "a|b", "`code`", "*bold*", "_it_", "~~old~~",
        "[link](https://example.org)", "![x](y)", "www.example.org", "me@example.org", "# head",
        "a\nb", "\x1b[31mred", "back\\slash", "self_harm", "=1+1",
    ],
)  # fmt: skip
def test_a_name_is_no_markdown(name):
    """Rendered, it is the text itself; controls are shown, a line break is a space."""
    shown = name.replace("\n", " ").replace("\x1b", "\\x1b")
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    heading = parser.render(f"# {escape_markdown(name)}")
    assert heading == f"<h1>{html.escape(shown, quote=False)}</h1>\n"
    table = parser.render(to_markdown(Table("", (name, "x"), [(name, "1")], [name])))
    assert table.count(html.escape(shown, quote=False)) == 3
    assert not re.search(r"://|www\.|\w@", escape_markdown(name))  # GitHub makes links of them
    assert not re.search("<(?!/?(table|thead|tbody|tr|th|td|p)\\b)", table)


def test_stages_have_exit_rates_and_sentences_about_loss_and_cost():
    rates = {"val": 0.5, "test": 0.25}
    measured = {"macro_f1": 0.61, "final_stage_macro_f1": 0.62, "difference": -0.01}
    cascade = {
        "config": {"metric": "macro_f1", "max_metric_loss": 0.002, "confidence": 0.8},
        "stages": [{"name": "small", "exit_rate": rates, "macro_f1_alone": 0.5}],
        "metric_loss": {
            "expected": 0.0011,
            "expected_out_of_fold": 0.0013,
            "test": {**measured, "interval": [-0.02, 0.01]},
        },
        "cost": {"tokens": 0.4, "time": None},
        "final_stage_labels": {
            "urgent": {"test": {"predicted": 40, "missed": 1, "max_miss_rate": 0.1}}
        },
        "rules": {"test": {"escalated": 0.125, "forced": 0.0}},
    }
    table = stages_table(cascade)
    assert table.rows == [("small", "50.0%", "25.0%", "0.500")]
    notes = " ".join(table.notes)
    for text in ("0.0011", "0.0020", "80%", "-0.0100", "0.40 in tokens", "urgent", "12.5%"):
        assert text in notes
    speed = {"cascade": 1234.0, "final_stage": 500.0}
    cost = {"tokens": 0.4, "time": 0.5, "texts_per_second": speed}
    assert "1,234 texts/s" in " ".join(stages_table({**cascade, "cost": cost}).notes)
