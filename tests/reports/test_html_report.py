"""The page shows what the run's files hold, needs no network, and has texts on request only."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxclf.decisions.evaluation import evaluate_split
from jaxclf.decisions.metrics import METRICS
from jaxclf.decisions.predictions import save_predictions
from jaxclf.decisions.thresholds import decide
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Experiment
from jaxclf.experiment.overrides import to_dict
from jaxclf.files.json_file import write_json
from jaxclf.reports import html_report
from jaxclf.reports.figures import catalog
from jaxclf.reports.figures.data import RunData
from jaxclf.reports.html_report import MAX_EXAMPLES, find_hardest, write_page
from jaxclf.types import Predictions

MARKUP = "<script>alert('label')</script>"
NAMES = ("stress", MARKUP, "absent")
THRESHOLDS = np.array([0.5, 0.4, 0.5])
ROWS = 40
ID = '"><img src=x onerror=alert(1)>'
TEXTS = [f"secret number {row} <script>alert('text')</script> & \"more\"" for row in range(ROWS)]
LINES = [
    {"step": 10, "loss": 0.9, "learning_rate": 1e-4},
    {"step": 20, "loss": 0.5, "learning_rate": 1e-5},
    {"step": 20, "epoch/epoch": 1, "epoch/macro_f1": 0.5, "epoch/calibrated_log_loss": 0.3},
]
FIGURES = {figure.name: figure for figure in catalog.load_figures()}
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
    splits = {split: predictions(split) for split in ("val", "test")}
    for split, part in splits.items():
        save_predictions(out / "predictions" / f"{split}.npz", part)
    rule = {"split": "val", "rule": "per_label"}
    contents = {
        "labels": NAMES,
        "report": {
            split: evaluate_split(part, THRESHOLDS, NAMES) for split, part in splits.items()
        },
        "thresholds": {
            name: {"value": value, **rule}
            for name, value in zip(NAMES, THRESHOLDS.tolist(), strict=True)
        },
        "diagnosis": [f"Too rare in test to judge: {MARKUP} (3)."],
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
    """A parsed page; fails if a tag is not closed or closed out of order."""

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
def run(tmp_path_factory):
    """A run with a complete page, in a folder whose name has markup."""
    out = tmp_path_factory.mktemp("runs") / 'run <b>&"x"'
    make_run(out)
    assert write_page(out, lengths=np.arange(ROWS) + 3, texts=TEXTS) == out / "report.html"
    return out


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr(html_report, "draw_figures", lambda *_: [])


def test_a_page_has_all_sections_in_order(run):
    html, page = read(run)
    assert html.startswith('<!doctype html>\n<html lang="en">')
    titles = [data for tag, data in page.texts if tag == "h2"]
    assert titles == [
        "Results",
        "Thresholds",
        "Diagnosis",
        "Labels",
        "Figures",
        "Hardest examples",
        "Intended use and limits",
        "Configuration",
    ]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {f"#{target}" for target in targets} == {attrs["href"] for attrs in page.all("a")}
    assert "A person decides." in page.text
    assert not list(run.rglob("*.part"))


def test_a_page_loads_nothing(run):
    html, page = read(run)
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            if name in attrs:
                assert re.match("#|data:", attrs[name] or ""), attrs
    without_data = re.sub('"data:[^"]*"', '""', html)
    assert "//" not in without_data
    assert "url(" not in without_data
    assert "@import" not in without_data


def test_only_the_script_of_the_page_may_run(run):
    _, page = read(run)
    (script,) = [data for tag, data in page.texts if tag == "script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_names_ids_and_texts_are_never_markup(run):
    html, page = read(run)
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == len(FIGURES)
    assert not page.all("b")
    (title,) = [data for tag, data in page.texts if tag == "title"]
    assert title == 'run <b>&"x": report'
    assert page.row(MARKUP)[0] == MARKUP
    assert f"Too rare in test to judge: {MARKUP} (3)." in page.text
    assert ID in page.text
    assert "<script>alert('text')</script> & \"more\"" in page.text
    assert html.count("<script>") == html.count("</script>") == 1
    assert "<b>" not in html


def test_every_figure_is_on_the_page_and_in_plots_with_its_text(run):
    _, page = read(run)
    images = page.all("img")
    for name, attrs in zip(FIGURES, images, strict=True):
        data = (attrs["src"] or "").removeprefix("data:image/png;base64,")
        assert base64.b64decode(data) == (run / "plots" / f"{name}.png").read_bytes()
        assert (run / "plots" / f"{name}.csv").stat().st_size > 40
        assert len(attrs["alt"] or "") > 60
        assert (attrs["alt"] or "").startswith(FIGURES[name].alt)
        assert f"plots/{name}.csv" in page.text
        assert FIGURES[name].caption in page.text
    alt = images[list(FIGURES).index("precision_recall")]["alt"] or ""
    assert "Highest average precision: stress (" in alt
    assert sorted(path.stem for path in (run / "plots").glob("*.png")) == sorted(FIGURES)


def test_the_numbers_are_those_of_the_report(run):
    _, page = read(run)
    report = json.loads((run / "report.json").read_text())
    test, val = report["test"], report["val"]
    low, high = test["intervals"]["macro_f1"]
    assert f"95 % interval {low:.3f} to {high:.3f}" in page.text.replace("\xa0", " ")
    assert f"the {ROWS} texts of the test split" in page.text
    for name, metric in METRICS.items():
        _, *cells = page.row(metric.title)
        assert [cell[:5] for cell in cells] == [
            f"{test[name]:.3f}",
            f"{val[name]:.3f}",
            f"{test['constant'][name]:.3f}",
        ]
    assert f"macro F1 on test is {test['macro_f1_at_half']:.3f}" in page.text
    for split, part in report.items():
        count = f"{part['labels_in_macro']} of {len(NAMES)} labels"
        assert f"Macro F1 on {split} is over {count}" in page.text
    for name in NAMES:
        row = test["labels"][name]
        keys = ("precision", "recall", "f1", "auc", "ap", "threshold")
        values = ["n/a" if row[key] is None else f"{row[key]:.3f}" for key in keys]
        label, support, *cells = page.row(name)
        assert [label, support] == [name, f"{row['support']:.0f}"]
        assert [cell[:5] for cell in cells] == values
        # The interval of F1 is below it.
        low, high = test["intervals"]["labels"][name]
        assert low is None or f"{low:.3f} to {high:.3f}" in cells[2].replace("\xa0", " ")
    assert page.row("absent").count("n/a") == 4
    assert not re.search("nan|None", page.text)


def test_the_experiment_and_the_environment_are_on_the_page(run):
    _, page = read(run)
    texts = [data for tag, data in page.texts if tag == "pre"]
    assert [json.loads(text) for text in texts] == [
        json.loads((run / f"{name}.json").read_text()) for name in ("config", "environment")
    ]


def run_data(test: Predictions, names: tuple[str, ...], thresholds: np.ndarray) -> RunData:
    return RunData(test, test, thresholds, names, np.arange(len(names)))


def test_texts_are_on_the_page_only_on_request(run, tmp_path, without_figures):
    _, page = read(run)
    hardest = find_hardest(run_data(predictions("test"), NAMES, THRESHOLDS), TEXTS)
    for example in hardest:
        assert f"{example.id} {example.text}" in page.text
    assert len(re.findall("secret number", page.text)) == len(hardest) == MAX_EXAMPLES
    out = make_run(tmp_path / "run")
    write_page(out)
    html, page = read(out)
    assert "secret" not in html
    assert [data for tag, data in page.texts if tag == "code"][-MAX_EXAMPLES:] == [
        example.id for example in hardest
    ]
    for path in out.rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()


def test_a_long_text_is_cut_off(tmp_path, without_figures):
    out = make_run(tmp_path / "run")
    write_page(out, texts=["x" * 10_000] * ROWS)
    _, page = read(out)
    assert "x" * 2000 + " … (10,000 characters)" in page.text
    assert "x" * 2001 not in page.text


def test_the_hardest_examples_have_a_wrong_label_with_the_most_wrong_probability():
    labels = np.array([[1, 0], [0, 1], [np.nan, 1], [0, 0], [0, 0]], np.float32)
    probs = [[0.25, 0.75], [0.5, 0.125], [1.0, 0.5], [0.125, 0.25], [0.125, 0.9375]]
    test = Predictions(np.array([*"abcde"]), np.array(probs, np.float32), labels, "test")
    # a: both labels are wrong by 0.75, the first counts. b: both are wrong, the second by 0.875.
    # c: an unknown label is not wrong. d: correct. e: a false positive, wrong by 0.9375.
    hardest = find_hardest(run_data(test, ("x", "y"), np.array([0.5, 0.5])), None)
    assert [tuple(example) for example in hardest] == [
        ("e", [], ["y"], "y", 0.9375, False, None),
        ("b", ["y"], ["x"], "y", 0.125, True, None),
        ("a", ["x"], ["y"], "x", 0.25, True, None),
    ]


def test_a_run_without_errors_and_warnings_is_described(tmp_path, without_figures):
    out = make_run(tmp_path / "run", diagnosis=[])
    test = predictions("test")
    decided = decide(test.probs, THRESHOLDS)
    correct = np.where(np.isnan(test.labels), np.nan, decided).astype(np.float32)
    save_predictions(out / "predictions" / "test.npz", test._replace(labels=correct))
    write_page(out)
    _, page = read(out)
    assert "Every label of every test text is predicted correctly." in page.text
    assert "No problem was detected" in page.text


def test_the_origin_of_thresholds_is_on_the_page(tmp_path, without_figures):
    record = {"split": "val", "rule": "per_label", "interval": [0.3, 0.7]}
    report = {
        split: {**evaluate_split(predictions(split), THRESHOLDS, NAMES), "fitted": fitted}
        for split, fitted in {
            "val": ["the choice of the epoch", "the thresholds (per_label)"],
            "test": [],
        }.items()
    }
    report["val"]["crossfit"] = {"macro_f1": {"in_sample": 0.321, "optimism": 0.1}}
    report["test"]["intervals"]["labels"] = {"stress": [0.123, 0.456]}
    thresholds = {name: {"value": 0.5, **record} for name in NAMES}
    out = make_run(tmp_path / "run", thresholds=thresholds, report=report)
    write_page(out)
    _, page = read(out)
    assert "Rule per_label , fitted on the val split." in page.text
    assert "val was used for the choice of the epoch; scores on it are" in page.text
    assert "test was used" not in page.text
    assert "fitted on the same texts it is 0.321" in page.text
    assert page.row("stress")[4].endswith("0.123 to 0.456")
    assert page.row("stress")[7] == "0.500 0.300 to 0.700"
    fixed = {name: {"value": 0.5, "split": "val", "rule": "fixed", "x": 1} for name in NAMES}
    write_json(out / "thresholds.json", fixed)
    write_page(out)
    assert 'Rule fixed ({"x": 1}), set by hand.' in read(out)[1].text


def test_a_page_names_what_a_minimal_folder_lacks(tmp_path):
    out = make_run(tmp_path / "run", thresholds=None, diagnosis=None, config=None, environment=None)
    (out / "plots").mkdir()
    (out / "plots" / "length_errors.png").touch()  # of an earlier page
    (out / "metrics.jsonl").unlink()
    write_page(out)
    _, page = read(out)
    assert page.text.count("not recorded in this folder") == 2
    assert "Not recorded in this folder" in page.text
    assert "Left out: the folder has no metrics.jsonl." in page.text
    assert "Left out: the lengths of the texts are not known." in page.text
    assert len(page.all("img")) == len(FIGURES) - 2
    remaining = {path.stem for path in (out / "plots").iterdir()}
    assert remaining == set(FIGURES) - {"training", "length_errors"}


def test_figures_show_the_most_frequent_of_very_many_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "MAX_LABELS", 2)
    out = make_run(tmp_path / "run", labels=["失望", "b", "absent"], report={
        split: evaluate_split(predictions(split), THRESHOLDS, ("失望", "b", "absent"))
        for split in ("val", "test")
    })  # fmt: skip
    write_page(out)
    _, page = read(out)
    assert "show 2 of 3 labels, those with most positives" in page.text
    assert "lacks characters of some labels: label 1 is 失望." in page.text
    for name in ("precision_recall", "error_pairs", "reliability"):
        lines = (out / "plots" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        labels = {line.split(",")[0] for line in lines[1:]} - {"all labels"}
        assert labels == {"失望", "b"}


def test_a_folder_without_a_finished_run_is_refused(tmp_path, without_figures):
    with pytest.raises(DataError, match="a finished run's folder"):
        write_page(tmp_path)
    out = make_run(tmp_path / "run")
    for wrong in ({"texts": TEXTS[1:]}, {"lengths": np.arange(ROWS + 1)}):
        with pytest.raises(ValueError, match="one item for each row"):
            write_page(out, **wrong)
    assert not (out / "report.html").exists()
