"""The check of a file, on a terminal and as a page; what training and evaluation say of texts."""

import json

import pytest

from jaxclf.check import main
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.reports.evaluate import evaluate_file
from jaxclf.text.data_splits import read_data
from jaxclf.training.setup import make_setup

LONG = "secretword " * 200


@pytest.fixture
def rows(demo_rows):
    """Rows of the demonstration set; the fourth is long, the sixth is the second with no label."""
    rows = [dict(row) for row in demo_rows["train"][:200]]
    rows[3]["text"] = LONG
    rows[5] = {**rows[5], "text": rows[1]["text"], "labels": dict.fromkeys(rows[1]["labels"], 0)}
    return rows


@pytest.fixture
def file(rows, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_it_names_lines_and_shows_texts_only_if_asked(file, tiny_encoder, tmp_path, capsys):
    words = ["--data", str(file), f"encoder.name={tiny_encoder}", "data.max_length=32"]
    assert main([*words, "--out", str(tmp_path / "page")]) == 0
    output = capsys.readouterr()
    (line,) = (line for line in output.out.splitlines() if "different labels" in line)
    assert f"{file}:2 = {file}:6" in line
    (line,) = (line for line in output.out.splitlines() if "are longer than" in line)
    assert "of 200 texts are longer than 8 windows of 32 tokens; what lies beyond" in line
    assert f": {file}:4" in line
    page = (tmp_path / "page" / "check.html").read_text(encoding="utf-8")
    assert f"{file}:2 = {file}:6" in page
    assert "secretword" not in output.out + output.err + page
    assert main([*words, "--out", str(tmp_path / "with.html"), "--include-texts"]) == 0
    assert LONG in (tmp_path / "with.html").read_text(encoding="utf-8")


def test_texts_are_shown_on_a_page_alone(file, capsys):
    assert main(["--data", str(file), "--include-texts"]) == 2
    assert "--out" in capsys.readouterr().err


def test_training_says_what_is_cut_and_the_most_important_findings(file, tiny_overrides, caplog):
    caplog.set_level("INFO")
    changes = {
        key: of for key, of in tiny_overrides.items() if key not in ("data.val", "data.test")
    }
    setup = make_setup(override(catalog.load("baseline"), {**changes, "data.train": str(file)}))
    lines = [line for line in caplog.messages if line.startswith("note: ")]
    assert sum("of 200 texts are longer than 4 windows of 32 tokens" in line for line in lines) == 1
    assert sum(f"{file}:2 = {file}:6" in line for line in lines) == 1
    assert sum("all findings: jaxclf check" in line for line in lines) == 1
    assert "secretword" not in caplog.text
    assert {name: part.ids for name, part in setup.splits.items()} == {
        name: part.ids for name, part in read_data(setup.experiment.data).items()
    }
    assert {split["file"] for split in setup.provenance.record["splits"].values()} == {str(file)}


def test_evaluation_says_how_many_texts_are_cut(finished_run, tmp_path, rows, caplog):
    caplog.set_level("INFO")
    (tmp_path / "long.json").write_text(
        json.dumps([*rows[:3], {**rows[1], "id": "long", "text": LONG}])
    )
    evaluate_file(finished_run.folder, tmp_path / "long.json")
    assert "1 of 4 texts are longer than" in caplog.text


def test_the_agreement_of_annotators_is_shown(tiny_encoder, tmp_path, capsys):
    rows = [
        {"id": str(row), "text": f"text {row}", "labels": {"same": row % 2, "unlike": row // 2 % 2}}
        for row in range(40)
    ]
    again = [{**row, "labels": {**row["labels"], "unlike": int(row["id"]) % 2}} for row in rows]
    path = tmp_path / "two.jsonl"
    path.write_text("\n".join(map(json.dumps, rows + again)), encoding="utf-8")
    assert main(["--data", str(path), f"encoder.name={tiny_encoder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("label")).endswith("agreement")
    assert next(line for line in lines if line.startswith("same")).endswith("1.000")
    # Half of the pairs disagree: 1 - (1 / 2) / (2 * 40 * 40 / (80 * 79)) = 0.0125.
    assert next(line for line in lines if line.startswith("unlike")).endswith("0.013")
