"""The page says what the run's files say, needs no network, and shows no text unasked."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxclf.decisions.evaluation import evaluate_split
from jaxclf.decisions.predictions import save_predictions
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Experiment
from jaxclf.experiment.overrides import to_dict
from jaxclf.files.json_file import write_json
from jaxclf.reports import html_report
from jaxclf.reports.figures import pictures
from jaxclf.reports.html_report import HARDEST, hardest, write_page
from jaxclf.types import Predictions

EVIL = "<script>alert('label')</script>"
NAMES = ("stress", EVIL, "absent")
CUTS = np.array([0.5, 0.4, 0.5])
ROWS = 40
ID = '"><img src=x onerror=alert(1)>'
TEXTS = [f"secret number {row} <script>alert('text')</script> & \"more\"" for row in range(ROWS)]
LINES = [
    {"step": 10, "loss": 0.9, "learning_rate": 1e-4},
    {"step": 20, "loss": 0.5, "learning_rate": 1e-5},
    {"step": 20, "epoch/epoch": 1, "epoch/score": 0.5, "epoch/log_loss": 0.3},
]
PICTURES = tuple(pictures.PICTURES)
VOID = {"meta", "link", "img", "br", "hr", "input"}


def predictions(split: str) -> Predictions:
    rng = np.random.default_rng(len(split))
    labels = (rng.random((ROWS, 3)) < [0.5, 0.3, 0.0]).astype(np.float32)
    probs = np.clip(0.3 * labels + 0.7 * rng.random(labels.shape), 0, 1).astype(np.float32)
    labels[:5, 0] = np.nan
    ids = np.array([f"{split}-{row}{ID if row % 2 else ''}" for row in range(ROWS)])
    return Predictions(ids, probs, labels, split)


def make_run(out, **files):
    """A finished run's folder, with files of other content (None: without them)."""
    found = {split: predictions(split) for split in ("val", "test")}
    for split, part in found.items():
        save_predictions(out / "predictions" / f"{split}.npz", part)
    rule = {"split": "val", "rule": "per_label"}
    contents = {
        "labels": NAMES,
        "report": {split: evaluate_split(part, CUTS, NAMES) for split, part in found.items()},
        "thresholds": {
            name: {"value": cut, **rule} for name, cut in zip(NAMES, CUTS.tolist(), strict=True)
        },
        "diagnosis": [f"Too rare in test to judge: {EVIL} (3)."],
        "config": to_dict(Experiment(Data("train.json", "val.json", "test.json"))),
        "environment": {"jax": "1.2.3"},
        **files,
    }
    for name, content in contents.items():
        if content is not None:
            write_json(out / f"{name}.json", content)
    (out / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    return out


class Page(HTMLParser):
    """A page taken to pieces; fails where a tag is not closed or closed out of turn."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(
            " ".join(data for tag, data in self.texts if tag not in ("script", "style")).split()
        )

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += f"{data} "

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]

    def row(self, name: str) -> list[str]:
        (row,) = [row for row in self.rows if row and row[0].startswith(name)]
        return [" ".join(cell.split()) for cell in row]


def read(out) -> tuple[str, Page]:
    html = (out / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A page with all there is, in a folder with a name of its own mind."""
    out = tmp_path_factory.mktemp("runs") / 'run <b>&"one"'
    make_run(out)
    assert write_page(out, lengths=np.arange(ROWS) + 3, texts=TEXTS) == out / "report.html"
    return out


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(html_report, "pictures", lambda *_: "<p>no pictures</p>")


def test_a_page_is_whole_and_its_parts_in_order(shown):
    html, found = read(shown)
    assert html.startswith('<!doctype html>\n<html lang="en">')
    titles = [data for tag, data in found.texts if tag == "h2"]
    assert titles == [
        "Figures",
        "Thresholds",
        "What the figures say",
        "Labels",
        "Pictures",
        "Hardest examples",
        "What it must not decide alone",
        "The run",
    ]
    assert len(found.all("h1")) == len(found.all("main")) == 1
    targets = {attrs["id"] for _, attrs in found.tags if "id" in attrs}
    assert {f"#{target}" for target in targets} == {attrs["href"] for attrs in found.all("a")}
    assert "A person decides." in found.text
    assert not list(shown.rglob("*.part"))


def test_a_page_needs_nothing_from_elsewhere(shown):
    html, found = read(shown)
    for _, attrs in found.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            if name in attrs:
                assert re.match("#|data:", attrs[name] or ""), attrs
    without_data = re.sub('"data:[^"]*"', '""', html)
    assert "//" not in without_data
    assert "url(" not in without_data
    assert "@import" not in without_data


def test_only_the_pages_own_script_may_run(shown):
    _, found = read(shown)
    (script,) = [data for tag, data in found.texts if tag == "script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [attrs["content"] for attrs in found.all("meta") if "http-equiv" in attrs]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)


def test_names_ids_and_texts_are_never_markup(shown):
    html, found = read(shown)
    assert len(found.all("script")) == 1
    assert len(found.all("img")) == len(PICTURES)
    assert not found.all("b")
    (title,) = [data for tag, data in found.texts if tag == "title"]
    assert title == 'run <b>&"one": report'
    assert found.row(EVIL)[0] == EVIL
    assert f"Too rare in test to judge: {EVIL} (3)." in found.text
    assert ID in found.text
    assert "<script>alert('text')</script> & \"more\"" in found.text
    assert html.count("<script>") == html.count("</script>") == 1
    assert "<b>" not in html


def test_every_picture_is_on_the_page_and_in_plots_and_says_in_words_what_it_shows(shown):
    _, found = read(shown)
    images = found.all("img")
    for name, attrs in zip(PICTURES, images, strict=True):
        data = (attrs["src"] or "").removeprefix("data:image/png;base64,")
        assert base64.b64decode(data) == (shown / "plots" / f"{name}.png").read_bytes()
        assert (shown / "plots" / f"{name}.csv").stat().st_size > 40
        assert len(attrs["alt"] or "") > 60
        assert (attrs["alt"] or "").startswith(pictures.PICTURES[name].content)
        assert f"plots/{name}.csv" in found.text
        assert pictures.PICTURES[name].reading in found.text
    alt = images[PICTURES.index("precision_recall")]["alt"] or ""
    assert "Highest average precision: stress (" in alt
    assert sorted(path.stem for path in (shown / "plots").glob("*.png")) == sorted(PICTURES)


def test_the_figures_are_the_reports(shown):
    _, found = read(shown)
    report = json.loads((shown / "report.json").read_text())
    test, val = report["test"], report["val"]
    low, high = test["intervals"]["macro_f1"]
    assert f"95 % interval {low:.3f} to {high:.3f}" in found.text.replace("\xa0", " ")
    assert f"the {ROWS} texts of the test split" in found.text
    for name, key in {
        "Macro F1": "macro_f1",
        "Micro F1": "micro_f1",
        "Weighted F1": "weighted_f1",
        "Samples F1": "samples_f1",
        "Subset accuracy": "subset_accuracy",
        "Macro AUC": "macro_auc",
        "mAP": "map",
        "ECE": "ece",
    }.items():
        _, *cells = found.row(name)
        assert [cell[:5] for cell in cells] == [f"{test[key]:.3f}", f"{val[key]:.3f}"]
    assert f"macro F1 on test is {test['macro_f1_at_half']:.3f}" in found.text
    for name in NAMES:
        row = test["labels"][name]
        keys = ("precision", "recall", "f1", "auc", "ap", "threshold")
        figures = ["n/a" if row[key] is None else f"{row[key]:.3f}" for key in keys]
        label, support, *cells = found.row(name)
        assert [label, support] == [name, f"{row['support']:.0f}"]
        assert [cell[:5] for cell in cells] == figures
        # F1 has its interval beside it.
        low, high = test["intervals"]["labels"][name]
        assert low is None or f"{low:.3f} to {high:.3f}" in cells[2].replace("\xa0", " ")
    assert found.row("absent").count("n/a") == 4
    assert not re.search("nan|None", found.text)


def test_the_experiment_and_the_environment_are_there(shown):
    _, found = read(shown)
    texts = [data for tag, data in found.texts if tag == "pre"]
    assert [json.loads(text) for text in texts] == [
        json.loads((shown / f"{name}.json").read_text()) for name in ("config", "environment")
    ]


def test_texts_are_shown_only_where_they_are_given(shown, tmp_path, without_pictures):
    _, found = read(shown)
    hard = hardest(predictions("test"), decide(predictions("test").probs, CUTS), NAMES, TEXTS)
    for example in hard:
        assert f"{example.id} {example.text}" in found.text
    asked = len(re.findall("secret number", found.text))
    assert asked == len(hard) == HARDEST
    out = make_run(tmp_path / "run")
    write_page(out)
    html, found = read(out)
    assert "secret" not in html
    assert [data for tag, data in found.texts if tag == "code"][-HARDEST:] == [
        example.id for example in hard
    ]
    for path in out.rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()


def test_a_long_text_is_cut(tmp_path, without_pictures):
    out = make_run(tmp_path / "run")
    write_page(out, texts=["x" * 10_000] * ROWS)
    _, found = read(out)
    assert "x" * 2000 + " … (10,000 characters)" in found.text
    assert "x" * 2001 not in found.text


def test_the_hardest_examples_are_those_with_the_most_wrong_probability_behind_a_wrong_label():
    labels = np.array([[1, 0], [0, 1], [np.nan, 1], [0, 0], [0, 0]], np.float32)
    probs = [[0.25, 0.75], [0.5, 0.125], [1.0, 0.5], [0.125, 0.25], [0.125, 0.9375]]
    test = Predictions(np.array([*"abcde"]), np.array(probs, np.float32), labels, "test")
    # a: both wrong by 0.75, the first counts; b: both wrong, the second by 0.875; c: what is not
    # known is not wrong; d: right; e: given wrongly, by 0.9375.
    found = hardest(test, decide(test.probs, np.array([0.5, 0.5])), ("one", "two"), None)
    assert [tuple(example) for example in found] == [
        ("e", [], ["two"], "two", 0.9375, False, None),
        ("b", ["two"], ["one"], "two", 0.125, True, None),
        ("a", ["one"], ["two"], "one", 0.25, True, None),
    ]


def test_no_wrong_label_and_no_warning_are_said(tmp_path, without_pictures):
    out = make_run(tmp_path / "run", diagnosis=[])
    test = predictions("test")
    right = np.where(np.isnan(test.labels), np.nan, decide(test.probs, CUTS)).astype(np.float32)
    save_predictions(out / "predictions" / "test.npz", test._replace(labels=right))
    write_page(out)
    _, found = read(out)
    assert "No text of the test split has a wrong label." in found.text
    assert "Nothing stands out" in found.text


def test_how_thresholds_came_about_is_said(tmp_path, without_pictures):
    record = {"split": "val", "rule": "per_label", "interval": [0.3, 0.7]}
    report = {
        split: {**evaluate_split(predictions(split), CUTS, NAMES), "fitted": fitted}
        for split, fitted in {"val": ["the thresholds (per_label)"], "test": []}.items()
    }
    report["val"]["crossfit"] = {"macro_f1": {"score": 0.321, "optimism": 0.1}}
    report["test"]["intervals"]["labels"] = {"stress": [0.123, 0.456]}
    thresholds = {name: {"value": 0.5, **record} for name in NAMES}
    out = make_run(tmp_path / "run", thresholds=thresholds, report=report)
    write_page(out)
    _, found = read(out)
    assert "Rule per_label , fitted on the split val. Each label's threshold of" in found.text
    assert "val fitted the thresholds (per_label): figures on it flatter." in found.text
    assert "test fitted" not in found.text
    assert "fitted on other folds of it, macro F1 on val is 0.321 and not" in found.text
    assert found.row("stress")[4].endswith("0.123 to 0.456")
    assert found.row("stress")[7] == "0.500 0.300 to 0.700"
    by_hand = {name: {"value": 0.5, "split": "val", "rule": "fixed", "x": 1} for name in NAMES}
    write_json(out / "thresholds.json", by_hand)
    write_page(out)
    assert 'Rule fixed ({"x": 1}), set by hand.' in read(out)[1].text


def test_a_folder_with_the_least_gives_a_page_that_says_what_is_missing(tmp_path):
    out = make_run(tmp_path / "run", thresholds=None, diagnosis=None, config=None, environment=None)
    write_page(out, lengths=np.arange(ROWS))
    assert (out / "plots" / "length_errors.png").is_file()
    (out / "metrics.jsonl").unlink()
    write_page(out)
    _, found = read(out)
    assert found.text.count("not recorded in this folder") == 3
    assert "Not recorded in this folder" in found.text
    assert "Left out: the folder has no metrics.jsonl." in found.text
    assert "Left out: the lengths of the texts were not given." in found.text
    assert len(found.all("img")) == len(PICTURES) - 2
    # What an earlier page showed is not left beside this one.
    left = {path.stem for path in (out / "plots").iterdir()}
    assert left == set(PICTURES) - {"training", "length_errors"}


def test_of_very_many_labels_the_most_frequent_are_pictured(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_LABELS", 2)
    out = make_run(tmp_path / "run", labels=["失望", "b", "absent"], report={
        split: evaluate_split(predictions(split), CUTS, ("失望", "b", "absent"))
        for split in ("val", "test")
    })  # fmt: skip
    write_page(out)
    _, found = read(out)
    assert "each of the 3 labels would have a panel or a row, the 2 with most" in found.text
    assert "font lacks letters of some labels: label 1 is 失望." in found.text
    for name in ("precision_recall", "error_pairs", "reliability"):
        lines = (out / "plots" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        labels = {line.split(",")[0] for line in lines[1:]} - {"all labels"}
        assert labels == {"失望", "b"}


def test_a_folder_that_holds_no_finished_run_is_refused(tmp_path, without_pictures):
    with pytest.raises(DataError, match="a finished run's folder"):
        write_page(tmp_path)
    out = make_run(tmp_path / "run")
    for wrong in ({"texts": TEXTS[1:]}, {"lengths": np.arange(ROWS + 1)}):
        with pytest.raises(ValueError, match="row by row"):
            write_page(out, **wrong)
    assert not (out / "report.html").exists()


def test_importing_the_page_imports_no_plotting():
    code = "import jaxclf.decisions.page, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
