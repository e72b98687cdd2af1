"""Data files: all formats give the same examples; errors name file and line and quote no text."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.errors import DataError
from jaxclf.text import formats, text_file
from jaxclf.text.formats import FORMATS
from jaxclf.text.label_values import canonical_name
from jaxclf.text.parsed_rows import NOT_LABELS
from jaxclf.text.reader import read
from jaxclf.text.rows import RowError

WORD = "raven"  # occurs in texts alone: a message with it quotes a text
ROW = '{"text": "a raven", "labels": {"x": 1, "y": 0}}'
FORMS = {
    ".json": "a JSON list",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_rows(path, rows):
    """Rows of one flat dict each in the format that the path's ending names."""
    if path.suffix == ".json":
        write(path, json.dumps(rows, indent=1))
    elif path.suffix in (".jsonl", ".ndjson"):
        write(path, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            table.writerow(rows[0])
            table.writerows(row.values() for row in rows)
    return path


def assert_same(first, second):
    assert first.ids == second.ids
    assert first.texts == second.texts
    assert first.names == second.names
    for name in ("labels", "label_mask"):
        array = getattr(first, name)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, getattr(second, name), strict=True)


def refusal(path, **how):
    """The message that a file is refused with; "" where it is read."""
    try:
        read(path, **how)
    except DataError as error:
        return str(error)
    return ""


def complaint(path, **how):
    message = refusal(path, **how)
    assert message
    assert WORD not in message
    return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reader")


# Files without errors

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
NAMES = st.lists(
    WORDS.map(canonical_name).filter(
        lambda name: name and name not in NOT_LABELS and name != "label"
    ),
    min_size=1,
    unique=True,
)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), names=NAMES, texts=st.lists(WORDS, min_size=1, max_size=5))
def test_every_format_gives_the_same_examples(folder, data, names, texts):
    ids = data.draw(st.lists(WORDS, min_size=len(texts), max_size=len(texts), unique=True))
    row = st.lists(st.sampled_from([0, 1, None]), min_size=len(names), max_size=len(names))
    values = [data.draw(row) for _ in texts]
    rows = [
        {"id": id_, "text": text, **dict(zip(names, row, strict=True))}
        for id_, text, row in zip(ids, texts, values, strict=True)
    ]
    for ending, form in FORMS.items():
        examples = read(write_rows(folder / f"same{ending}", rows))
        assert examples.ids == tuple(ids)
        assert examples.texts == tuple(texts)
        assert examples.names == tuple(names)
        assert examples.labels.dtype == examples.label_mask.dtype == np.float32
        assert examples.labels.tolist() == [[value or 0 for value in row] for row in values]
        assert examples.label_mask.tolist() == [
            [value is not None for value in row] for row in values
        ]
        count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
        assert examples.source == f"same{ending}: {count}, {form}, labels by column"


def test_every_format_is_tested():
    assert FORMS.keys() == FORMATS.keys()


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
@pytest.mark.parametrize("ending", FORMS)
def test_only_a_line_feed_or_carriage_return_ends_a_line(tmp_path, ending, mark):
    rows = [{"text": f"one{mark}two", "x": 1}, {"text": "three", "x": 0}]
    examples = read(write_rows(tmp_path / f"a{ending}", rows))
    assert examples.texts == (f"one{mark}two", "three")


def test_labels_in_an_object_in_columns_and_listed_by_name_mean_the_same(tmp_path):
    columns = [{"text": "a", "x": 0, "y": 1}, {"text": "b", "x": 1, "y": 1}]
    nested = [
        {"text": "a", "labels": {"x": 0, "y": 1}},
        {"text": "b", "labels": {"x": 1, "y": 1}},
    ]
    listed = [{"text": "a", "labels": ["y"]}, {"text": "b", "labels": ["y", "x"]}]
    for ending in (".json", ".jsonl", ".parquet"):
        flat = read(write_rows(tmp_path / f"columns{ending}", columns))
        assert_same(flat, read(write_rows(tmp_path / f"nested{ending}", nested)))
        examples = read(write_rows(tmp_path / f"listed{ending}", listed))
        assert_same(flat, examples)
        assert examples.source.endswith("labels listed by name")


def test_true_and_false_and_decimal_ones_are_labels_too(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a", "x": true, "y": 0.0, "z": "1"}')
    assert read(path).labels.tolist() == [[1, 0, 1]]
    flags = [{"text": "a", "x": True, "y": None}, {"text": "b", "x": False, "y": 1.0}]
    examples = read(write_rows(tmp_path / "a.parquet", flags))
    assert examples.labels.tolist() == [[1, 0], [0, 1]]
    assert examples.label_mask.tolist() == [[1, 0], [1, 1]]


def test_label_order_is_that_of_the_first_row_the_alphabet_or_the_argument(tmp_path):
    by_column = write(tmp_path / "a.jsonl", ROW.replace('"x": 1, "y": 0', '"y": 0, "x": 1'))
    assert read(by_column).names == ("y", "x")
    assert read(by_column, ("x", "y")).names == ("x", "y")
    assert read(by_column, ("x", "y")).labels.tolist() == [[1, 0]]
    listed = write_rows(
        tmp_path / "b.jsonl", [{"text": "a", "labels": ["b", "c"]}, {"text": "b", "labels": ["a"]}]
    )
    assert read(listed).names == ("a", "b", "c")
    assert read(listed, ("c", "d", "b", "a")).names == ("c", "d", "b", "a")
    assert read(listed, ("c", "d", "b", "a")).labels.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]
    assert read(listed, ("c", "d", "b", "a")).label_mask.all()


def test_rows_without_an_id_are_numbered(tmp_path):
    rows = [{"text": "a", "x": 1, "id": 17}, {"text": "b", "x": 0, "id": None}]
    for ending in FORMS:
        assert read(write_rows(tmp_path / f"a{ending}", rows)).ids == ("17", "1")
    unnamed = [{"text": "a", "x": 1}, {"text": "b", "x": 0}]
    for ending in FORMS:
        assert read(write_rows(tmp_path / f"b{ending}", unnamed)).ids == ("0", "1")


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".tsv"])
def test_a_byte_order_mark_windows_line_ends_and_blank_lines_change_nothing(tmp_path, ending):
    rows = [{"text": "a", "x": 1, "y": None}, {"text": "b", "x": 0, "y": 1}]
    plain = write_rows(tmp_path / f"a{ending}", rows)
    lines = plain.read_bytes().replace(b"\r\n", b"\n").strip().split(b"\n")
    marked = write(tmp_path / f"b{ending}", b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines) + b"\r\n\r\n")
    assert_same(read(plain), read(marked))


def test_a_cell_holds_line_breaks_delimiters_and_quotes(tmp_path):
    path = write(tmp_path / "a.csv", 'text,x\n"one\r\ntwo, ""three""\n",1\nfour,0\n')
    assert read(path).texts == ('one\r\ntwo, "three"\n', "four")


@pytest.mark.parametrize("ending", FORMS)
def test_long_texts_and_many_rows_are_read(tmp_path, ending):
    long = [{"text": "a" * 200_000, "x": 1}]
    assert read(write_rows(tmp_path / f"long{ending}", long)).texts == ("a" * 200_000,)
    many = [{"text": f"text {row}", "x": row % 2} for row in range(2500)]
    examples = read(write_rows(tmp_path / f"many{ending}", many))
    assert examples.texts == tuple(f"text {row}" for row in range(2500))
    assert examples.labels[:, 0].tolist() == [0, 1] * 1250
    assert "2,500 rows" in examples.source


def test_texts_alone_are_read_for_prediction(tmp_path):
    for ending in FORMS:
        rows = [{"id": "p", "text": "a", "comment": "b"}, {"id": "q", "text": "c", "comment": ""}]
        examples = read(write_rows(tmp_path / f"a{ending}", rows), labeled=False)
        assert (examples.ids, examples.texts, examples.names) == (("p", "q"), ("a", "c"), ())
        assert examples.labels.shape == examples.label_mask.shape == (2, 0)
        assert examples.source == f"a{ending}: 2 rows, {FORMS[ending]}"
    bare = write(tmp_path / "b.jsonl", '{"text": "a"}\n{"text": "b", "labels": {"x": "?"}}')
    assert read(bare, labeled=False).texts == ("a", "b")
    assert "no row is left" in complaint(write(tmp_path / "c.jsonl", '{"text": ""}'), labeled=False)


# Files with errors

# (name of the file, its content, line of the error or 0, a part of the reason)
ERRORS = {
    **{
        case["error"]: (case["file"], case["content"], case["line"], case["reason"])
        for case in json.loads((Path(__file__).parent / "bad_files.json").read_text("utf-8"))
    },
    "endless nesting": ("a.json", "[" * 100_000, 1, ""),
    "endless number": ("a.jsonl", '{"text": "raven", "x": ' + "9" * 5000 + "}", 1, ""),
    "not UTF-8": ("a.csv", b'text,x\n"raven\n",1\nraven\xe9,1', 4, "save the file as UTF-8"),
    "not UTF-16": (
        "a.csv",
        "text,x\nraven,1".encode("utf-16") + b"\0",
        2,
        "save the file as UTF-8",
    ),
}


@pytest.mark.parametrize(("name", "content", "line", "reason"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_named_by_file_and_line(tmp_path, name, content, line, reason):
    path = write(tmp_path / name, content)
    message = complaint(path)
    assert message.startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert reason in message
    assert "\n" not in message


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text('a\n,"', min_size=1).filter(str.strip), min_size=1), data=st.data())
def test_a_line_is_where_its_row_begins(folder, texts, data):
    bad = data.draw(st.integers(0, len(texts) - 1))
    rows = [{"text": text, "x": 7 if row == bad else 1} for row, text in enumerate(texts)]
    cells = [f'"{row["text"].replace(chr(34), chr(34) * 2)}",{row["x"]}\n' for row in rows]
    objects = [json.dumps(row, indent=data.draw(st.sampled_from([None, 1]))) for row in rows]
    before = "text,x\n" + "".join(cells[:bad])
    path = write(folder / "line.csv", before + "".join(cells[bad:]))
    assert complaint(path).startswith(f"{path}:{before.count(chr(10)) + 1}: label 'x'")
    before = "[\n" + "".join(f"{row},\n" for row in objects[:bad])
    path = write(folder / "line.json", before + ",\n".join(objects[bad:]) + "]")
    assert complaint(path).startswith(f"{path}:{before.count(chr(10)) + 1}: label 'x'")


@pytest.mark.parametrize("count", [1, 2, 5, 6, 1200])
@pytest.mark.parametrize("ending", FORMS)
def test_equal_errors_are_one_line_with_their_count(tmp_path, ending, count):
    rows = [{"text": WORD, "x": 1}, *({"text": WORD, "x": 5} for _ in range(count))]
    path = write_rows(tmp_path / f"a{ending}", rows)
    (message,) = complaint(path).splitlines()
    line_of = {".json": lambda row: 2 + 4 * row, ".csv": lambda row: 2 + row}
    line_of[".tsv"] = line_of[".csv"]
    lines = [line_of.get(ending, lambda row: 1 + row)(row) for row in range(1, count + 1)]
    assert message.startswith(f"{path}:{lines[0]}: label 'x'")
    assert (f"{count:,} rows" in message) == (count > 1)
    if count > 1:
        named = message.rpartition("lines ")[2].rstrip(")").split(", ")
        assert named == [str(line) for line in lines[:5]] + ["…"] * (count > 5)


def test_ten_reasons_are_listed(tmp_path):
    rows = [{"text": WORD, "labels": {f"x{row}": 2 for row in range(25)}}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    lines = complaint(path).splitlines()
    assert all(line.startswith(f"{path}:1: label 'x") for line in lines[:10])
    assert lines[10:] == ["and 15 more reasons"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", f'{{"text": 5}}\n{{"text": "raven", "x": 2}}\nraven\n{ROW}'),
        ("a.json", '[{"text": 5},\n{"text": "raven", "x": 2},\n{"text" "raven"}]'),
        ("a.csv", 'text,x,id\nraven,2,0\nraven,1,1,1\n"" raven,1,2\n'),
    ],
)
def test_a_broken_row_hides_no_error_before_it(tmp_path, name, content):
    path = write(tmp_path / name, content)
    first = 2 if name == "a.csv" else 1
    positions = [line.split(" ")[0] for line in complaint(path).splitlines()]
    assert positions[:3] == [f"{path}:{first + row}:" for row in range(3)]


def test_rows_that_list_names_and_rows_that_give_values_lose_no_label(tmp_path):
    listed, valued = '{"text": "raven", "labels": ["z"]}', '{"text": "raven", "labels": {"x": 1}}'
    for content in (f"{listed}\n{valued}", f"{valued}\n{listed}"):
        path = write(tmp_path / "a.jsonl", content)
        assert refusal(path) or {"x", "z"} == set(read(path).names)


def test_a_text_that_slipped_into_another_column_is_not_quoted(tmp_path):
    complaint(write(tmp_path / "a.csv", "text,x,y\nthe, raven,1\n"))
    complaint(write(tmp_path / "a.jsonl", '{"text": "the", "note": "raven"}'))


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv", ".tsv"])
def test_a_file_cut_or_short_of_any_character_is_read_or_refused_in_words(folder, ending):
    texts = ["one raven", 'one "raven", two\n', "raven\tten\u2028"]
    rows = [{"id": f"p{row}", "text": text, "x": row % 2} for row, text in enumerate(texts)]
    intact = write_rows(folder / f"intact{ending}", rows).read_bytes()
    for at in range(len(intact)):
        for content in (intact[:at], intact[:at] + intact[at + 1 :]):
            path = write(folder / f"hurt{ending}", content)
            message = refusal(path)
            assert not message or message.startswith(f"{path}:")
            assert WORD not in message


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path):
    rows = [{"text": f"raven {row}", "x": 1} for row in range(20)]
    intact = write_rows(tmp_path / "a.parquet", rows).read_bytes()
    damaged = [intact[:at] for at in range(0, len(intact), 7)]
    damaged += [b"PAR1" + b"raven " * 9 + (54).to_bytes(4, "little") + b"PAR1"]
    damaged += [intact[:8] + b"\xff" * 60 + intact[68:]]
    for content in damaged:
        path = write(tmp_path / "b.parquet", content)
        assert complaint(path).startswith(f"{path}: not Parquet")


def test_parquet_errors_are_named_by_row(tmp_path):
    rows = [{"text": WORD, "x": 1}, {"text": WORD, "x": 3}, {"text": WORD, "x": 4}]
    path = write_rows(tmp_path / "a.parquet", rows)
    assert complaint(path).startswith(f"{path}:2: label 'x' is 3; ")
    assert complaint(path).endswith("(2 rows: lines 2, 3)")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "a.parquet", [{"text": WORD, "x": 1}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'jaxclf[parquet]'" in complaint(path)


def test_a_missing_file_and_an_unknown_ending_are_refused(tmp_path):
    assert complaint(tmp_path / "a.json") == f"{tmp_path / 'a.json'}: no such file"
    assert "did you mean '.json'?" in complaint(write(tmp_path / "a.jsn", ROW))
    assert ".json, .jsonl, .ndjson, .csv, .tsv, .parquet" in complaint(
        write(tmp_path / "a.txt", WORD)
    )


def test_every_requested_label_must_be_in_the_file(tmp_path):
    path = write(tmp_path / "a.jsonl", ROW)
    assert "no label 'z'" in complaint(path, labels=("x", "y", "z"))
    assert "no label 'xx'; did you mean 'x'?" in complaint(path, labels=("xx", "y"))
    assert read(path, labels=("y",)).source.endswith("left out: column 'x'")
    listed = write(tmp_path / "c.jsonl", '{"text": "raven", "labels": ["x", "y"]}')
    assert "unknown label 'y'" in complaint(listed, labels=("x",))
    bare = write(tmp_path / "b.jsonl", '{"text": "raven", "labels": []}')
    assert "data.labels=a,b,c" in complaint(bare)
    assert read(bare, ("x", "y")).labels.tolist() == [[0, 0]]


def test_groups_are_read_and_are_not_labels(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,text,group,x\n1,one,anna,1\n2,two,,0\n3,three,7,0\n")
    examples = read(path)
    assert examples.groups == ("anna", "", "7")
    assert examples.names == ("x",)
    assert examples.source.endswith("in groups")
    nameless = tmp_path / "a.json"
    nameless.write_text('[{"text": "one", "labels": {"x": 1}}]')
    assert read(nameless).groups == ()
    nameless.write_text('[{"text": "one", "group": [1], "labels": {"x": 1}}]')
    with pytest.raises(DataError, match="'group' must be a string or a number"):
        read(nameless)


LONG = "x" * 200_000


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"text": "a", LONG: 5}),
        json.dumps({"text": "a", "x": 1}) + "\n" + json.dumps({"text": "a", LONG: 1}),
        json.dumps({"text": "a", LONG: 1}) + "\n" + json.dumps({"text": "a", "x": 1}),
        "\n".join(json.dumps({"text": text, "id": LONG, "x": 1}) for text in "ab"),
        json.dumps({"text": "a", LONG: 1})[:-1] + f', "{LONG}": 1}}',
        '{"text": "a", "x": ' + "9" * 4000 + "}",
        json.dumps({"text": "a", **{f"{index}{LONG[:1000]}": 1 for index in range(300)}})
        + "\n" + json.dumps({"text": "a", "other": 1}),
    ],
)  # fmt: skip
def test_a_message_is_short_whatever_a_name_is(tmp_path, content):
    message = complaint(write(tmp_path / "a.jsonl", content))
    assert len(message) < 15_000
    assert LONG[:2000] not in message


def test_a_name_cannot_control_the_terminal(tmp_path):
    for name in ("\x1b[31mred", "a\rb", "\u202etxt", "a\nb"):
        message = complaint(write(tmp_path / "a.jsonl", json.dumps({"text": "a", name: 5})))
        assert message.isprintable()
        assert repr(name)[1:-1] in message


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("chunk", [1, 3, 2**16])
def test_a_byte_that_is_not_utf8_is_named_by_its_line(tmp_path, monkeypatch, newline, chunk):
    monkeypatch.setattr(text_file, "CHUNK", chunk)
    rows = ["text,x", "über,1", "b,0", 'a "bad" ', "d,1"]
    content = newline.join(rows).encode().replace(b"bad", b"b\xffd")
    assert complaint(write(tmp_path / "a.csv", content)).startswith(f"{tmp_path / 'a.csv'}:4: not")


def test_only_a_line_feed_counts_where_json_is_not_utf8(tmp_path):
    path = write(tmp_path / "a.json", b'[{"text": "a", "x": 1},\r\r\n{"text": "\xff"}]')
    assert complaint(path).startswith(f"{path}:2: not UTF-8")


class CountedKey(str):
    """A key that counts comparisons."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other_key):
        CountedKey.comparisons += 1
        return str.__eq__(self, other_key)


def test_a_duplicate_among_many_keys_is_found_in_linear_time():
    pairs = [(CountedKey(f"k{index}"), 1) for index in range(3000)]
    with pytest.raises(RowError, match="duplicate key 'k2990'"):
        formats.DECODER.object_pairs_hook([*pairs, (CountedKey("k2990"), 1)])
    assert CountedKey.comparisons < 30_000


def test_rows_of_many_labels_are_read(tmp_path):
    pairs = ", ".join(f'"k{index}": 1' for index in range(20_000))
    path = write(tmp_path / "a.jsonl", f'{{"text": "a", {pairs}}}\n' * 3)
    assert len(read(path).names) == 20_000


@pytest.mark.parametrize("value", ["5.0", "-3.0", "1e999", "-Infinity", "1.5"])
def test_a_value_that_is_no_label_is_named_by_row(tmp_path, value):
    path = write(tmp_path / "a.jsonl", f'{ROW}\n{{"text": "raven", "x": {value}, "y": 0}}')
    assert complaint(path).startswith(f"{path}:2: label 'x' is ")
