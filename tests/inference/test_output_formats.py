"""An output has the user's columns, their order and their style, and can be read as the input."""

import csv
import gzip
import io
import json

import numpy as np
import pytest
from tiny_models import LABELS

from jaxclf import predict
from jaxclf.errors import ConfigError, DataError
from jaxclf.inference.journal import Counts
from jaxclf.inference.output_formats import Layout
from jaxclf.inference.score_file import predict_file
from jaxclf.text.reader import read

TEXTS = ["I won", 'she said "no", twice', "two\nlines", "grün; a|b", "'tis"]
APPENDED = [f"predicted.{name}" for name in LABELS] + [f"probability.{name}" for name in LABELS]
APPENDED += ["prediction.cut", "prediction.model"]


def write_table(path, style, encoding="utf-8", texts=TEXTS):
    """A date, the text, three labels, a number with leading zeros; as bytes of whole rows."""
    file = io.StringIO(newline="")
    end = style.get("lineterminator", "\r\n")
    writer = csv.writer(file, **style | {"lineterminator": "\r\n"})
    writer.writerow(["date", "text", *LABELS, "no"])
    for index, text in enumerate(texts):
        values = [int(index % 3 == column) for column in range(3)]
        numbers = [*values, index] if "quoting" in style else [*map(str, values), f"00{index}"]
        writer.writerow([f"2024-01-0{index + 1}", text, *numbers])
    path.write_text(file.getvalue().replace("\r\n", end), encoding=encoding, newline="")
    return path


STYLES = {
    "comma": {},
    "unix": {"lineterminator": "\n"},
    "semicolon": {"delimiter": ";"},
    "all quoted": {"delimiter": ";", "quoting": csv.QUOTE_ALL, "lineterminator": "\n"},
    "as R": {"quoting": csv.QUOTE_NONNUMERIC, "lineterminator": "\n"},
    "bare CR": {"lineterminator": "\r"},
    "pipe": {"delimiter": "|"},
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_a_table_keeps_its_style_and_every_cell(classifier, tmp_path, style, encoding):
    source, target = write_table(tmp_path / "in.csv", style, encoding), tmp_path / "out.csv"
    predict_file(classifier, source, target)
    content = target.read_text(encoding=encoding)
    assert target.read_bytes()[:3] == source.read_bytes()[:3]
    delimiter = style.get("delimiter", ",")
    with (
        source.open(encoding=encoding, newline="") as old,
        target.open(encoding=encoding, newline="") as new,
    ):
        rows = list(csv.reader(old, delimiter=delimiter))
        written = list(csv.reader(io.StringIO(new.read(), newline=""), delimiter=delimiter))
    assert [row[: len(rows[0])] for row in written] == rows
    assert written[0][len(rows[0]) :] == APPENDED
    # Without its last cells, each line is that of the input.
    end = style.get("lineterminator", "\r\n")
    with target.open(encoding=encoding, newline="") as file:
        content = file.read()
    lines = content.split(end)
    kept = [delimiter.join(line.split(delimiter)[: -len(APPENDED)]) for line in lines]
    unwrapped = [line for line, full in zip(kept, lines, strict=True) if full.count(delimiter) > 10]
    with source.open(encoding=encoding, newline="") as file:
        original = file.read()
    assert len(unwrapped) == len(TEXTS) + 1
    assert all(line in original for line in unwrapped)


def test_a_table_without_quoting_stays_without(classifier, tmp_path):
    source, target = tmp_path / "in.tsv", tmp_path / "out.tsv"
    source.write_text('text\tjoy\n"Yes" she said\t1\n"no\t0\n')
    predict_file(classifier, source, target)
    lines = target.read_text().splitlines()
    assert lines[1].startswith('"Yes" she said\t1\t')
    assert lines[2].startswith('"no\t0\t')


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl", ".csv.gz", ".JSONL"])
def test_labels_are_read_from_the_output_as_from_the_input(classifier, tmp_path, ending):
    source = write_table(tmp_path / "in.csv", {"delimiter": ";"})
    target = tmp_path / f"out{ending}"
    predict_file(classifier, source, target)
    expected, examples = (read(path, ignore_columns=("date", "no")) for path in (source, target))
    assert (examples.texts, examples.names) == (expected.texts, LABELS)
    np.testing.assert_array_equal(examples.labels, expected.labels)
    # Predicting again replaces the predictions.
    again = tmp_path / f"again{ending}"
    predict_file(classifier, target, again)
    assert again.read_bytes() == target.read_bytes()


def test_json_keeps_its_keys_and_values(classifier, tmp_path):
    rows = [
        {"text": "a", "labels": ["joy"], "meta": {"n": [1.5, None]}, "id": 7},
        {"id": "x", "text": "b", "labels": [], "ok": True},
        {"text": "", "note": "\ud800"},
        {"text": None},
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    assert predict_file(classifier, source, tmp_path / "out.json").rows == len(rows)
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    for row, line in zip(rows, written, strict=True):
        assert list(line)[: len(row)] == list(row)
        assert {key: line[key] for key in row} == row
        has_labels = isinstance(line["prediction.labels"], list)
        assert has_labels == bool(row["text"])
    predict_file(classifier, source, tmp_path / "out.csv", layout=Layout(False))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["text", "labels", "meta", "id", "ok", "note", *APPENDED[:-1]]
    assert json.loads(table[0]["meta"]) == rows[0]["meta"]
    assert [row["ok"] for row in table] == ["", "true", "", ""]
    assert [row["predicted.joy"] != "" for row in table] == [True, True, False, False]


def test_rows_without_a_text_and_cut_texts_are_counted(classifier, tmp_path, monkeypatch, capsys):
    texts = ["short", "", " ", "many words " * 200, "more words " * 200]
    source = write_table(tmp_path / "in.csv", {}, texts=texts)
    monkeypatch.setattr("jaxclf.inference.load.load", lambda _: classifier)
    words = ["--run", "run", "--input", str(source), "--output", str(tmp_path / "out.csv")]
    assert predict.main(words) == 0
    message = capsys.readouterr().err
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["prediction.cut"] for row in table] == ["0", "", "", "1", "1"]
    labeled = sum(any(row[f"predicted.{name}"] == "1" for name in LABELS) for row in table)
    expected = Counts(5, 2, 3 - labeled, 2)
    assert str(expected) in message
    for part in ("3 texts", "2 cut", "2 rows without a text", f"{labeled} labeled"):
        assert part in message
    assert predict.main(["--run", "run", "short", texts[3]]) == 0
    assert capsys.readouterr().out.count("its end was not read") == 1


def test_the_column_of_texts_may_have_another_name(classifier, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("comment;stars\nfine;3\nbad;1\n")
    with pytest.raises(DataError, match="'text'"):
        predict_file(classifier, source, tmp_path / "out.csv")
    predict_file(classifier, source, tmp_path / "out.csv", layout=Layout(text_column="comment"))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(";")[:2] for line in lines] == [
        ["comment", "stars"],
        ["fine", "3"],
        ["bad", "1"],
    ]


def test_a_spreadsheet_computes_no_cell_on_request(classifier, tmp_path):
    """Numbers, and cells of the user unless asked for, stay as they are."""
    ids = ["=1+1", "@a", "+", "-5.5e3", "r1"]
    source = tmp_path / "in.csv"
    source.write_text("=id,text\n" + "".join(f"{name},a\n" for name in ids))
    escaped = ["'=id", "'=1+1", "'@a", "'+", "-5.5e3", "r1"]
    for escape, written in ((False, ["=id", *ids]), (True, escaped)):
        predict_file(classifier, source, tmp_path / "out.csv", layout=Layout(False, escape))
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
            assert [row[0] for row in csv.reader(file)] == written
    with pytest.raises(ConfigError, match=r"--escape-formulas applies to \.csv"):
        predict_file(classifier, source, tmp_path / "out.jsonl", layout=Layout(True, True))


def test_gzip_is_read_and_written(classifier, tmp_path):
    source = tmp_path / "in.csv.gz"
    plain = write_table(tmp_path / "in.csv", {})
    source.write_bytes(gzip.compress(plain.read_bytes()))
    predict_file(classifier, source, tmp_path / "out.csv.gz")
    predict_file(classifier, plain, tmp_path / "out.csv")
    content = gzip.decompress((tmp_path / "out.csv.gz").read_bytes())
    assert content == (tmp_path / "out.csv").read_bytes()
