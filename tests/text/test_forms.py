"""Files as spreadsheets, pandas, datasets and annotation tools write them."""

import contextlib
import gzip
import json
import random
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from jaxclf.errors import DataError
from jaxclf.text.annotators import agreement
from jaxclf.text.reader import read, stream

NAMES = ("bill", "late", "praise")
TEXTS = ("the bill is wrong", "it came late", "lovely", "late and too dear", "a parcel")
LABELS = ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0])
LISTS = [[name for name, value in zip(NAMES, row, strict=True) if value] for row in LABELS]


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def jsonl(path, rows):
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def table(*cells, header="text,bill,late,praise", mark=","):
    """A CSV of TEXTS with these cells of each row."""
    rows = [header, *(mark.join([text, *row]) for text, row in zip(TEXTS, cells, strict=True))]
    return "\n".join(rows) + "\n"


def values(no="0", yes="1"):
    return [[yes if value else no for value in row] for row in LABELS]


def joined(mark):
    return [[mark.join(names)] for names in LISTS]


def quote(cell):
    return '"' + cell.replace('"', '""') + '"'


def number(content):
    """With the row numbers in front that pandas writes of its index."""
    header, *lines = content.splitlines()
    return "".join([f",{header}\n", *(f"{row},{line}\n" for row, line in enumerate(lines))])


PLAIN = table(*values())
CSV = {
    "commas": (PLAIN, ""),
    "semicolons": (PLAIN.replace(",", ";"), "CSV (';')"),
    "a line that names the delimiter": ("sep=;\n" + PLAIN.replace(",", ";"), "CSV (';')"),
    "tabs in UTF-16": (PLAIN.replace(",", "\t"), "CSV (tab, UTF-16)"),
    "a byte order mark": ("\ufeff" + PLAIN, ""),
    "bare CR": (PLAIN.replace("\n", "\r"), ""),
    "spaces in the header": (PLAIN.replace("text,bill", "text, bill"), ""),
    "commas at the end of lines": (PLAIN.replace("\n", ",,\n"), "a column without a name"),
    "commas at the end of rows": (PLAIN.replace("\n", ",\n").replace("praise,", "praise"), ""),
    "empty rows": (PLAIN + ",,,\n,,,\n", ""),
    "an index": (number(PLAIN), "a column without a name"),
    "fractions": (table(*values("0.0", "1.0")), ""),
    "booleans": (table(*values("False", "True")), ""),
    "yes and no": (table(*values("no", "YES")), ""),
    "joined by |": (table(*joined("|"), header="text,labels"), "joined by '|'"),
    "joined by ;": (table(*joined("; "), header="text,labels"), "joined by ';'"),
    "joined by commas": (
        table(*[[f'"{", ".join(names)}"'] for names in LISTS], header="text,labels"),
        "joined by ','",
    ),
    "joined by #": (table(*joined("#"), header="text,label"), "joined by '#' in 'label'"),
    "lists of Python": (table(*[[f'"{names}"'] for names in LISTS], header="text,labels"), ""),
    "lists of numpy": (
        table(*[[f'"{np.array(names)}"'] for names in LISTS], header="text,labels"),
        "listed by name",
    ),
    "lists of JSON": (
        table(*[[quote(json.dumps(names))] for names in LISTS], header="text,labels"),
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CSV)
def test_csv_of_many_hands_is_read_as_what_it_means(tmp_path, name):
    content, note = CSV[name]
    path = write(tmp_path / "a.csv", content, "utf-16" if "UTF-16" in name else "utf-8")
    examples = read(path)
    assert examples.texts == TEXTS
    assert examples.names == NAMES
    assert examples.labels.tolist() == list(LABELS)
    assert note in examples.source
    assert [row.text for row in stream(path) if row.text] == list(TEXTS)


def test_endings_are_compared_without_case_and_gzip_is_read(tmp_path):
    rows = [{"text": text, "labels": names} for text, names in zip(TEXTS, LISTS, strict=True)]
    lines = jsonl(tmp_path / "a.NDJSON", rows).read_bytes()
    files = {
        "A.CSV": PLAIN.encode(),
        "a.csv.gz": gzip.compress(PLAIN.encode()),
        "a.JSONL.GZ": gzip.compress(lines),
        "a.ndjson": lines,
        "a.tsv.gz": gzip.compress(PLAIN.replace(",", "\t").encode("utf-16")),
        "a.json.gz": gzip.compress(json.dumps(rows).encode()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert read(tmp_path / name).labels.tolist() == list(LABELS)


def test_a_small_gzip_file_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"text,x\n" + b"a" * 2**27))
    with pytest.raises(DataError, match="too many for a file of its size"):
        list(stream(path))
    path.write_bytes(gzip.compress(PLAIN.encode())[:-9])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read(path)


def test_quotes_of_a_tsv_without_quoting_are_part_of_the_texts(tmp_path):
    texts = ['"great" she note', '"never', 'a 12" plate', '"all"']
    lines = ["text\tx", *(f"{text}\t1" for text in texts)]
    assert read(write(tmp_path / "a.tsv", "\n".join(lines))).texts == tuple(texts)
    quoted = 'text\tx\n"a ""b"""\t1\n"two\nlines"\t0\n"all"\t1\n'
    assert read(write(tmp_path / "b.tsv", quoted)).texts == ('a "b"', "two\nlines", "all")


def label_studio(task, names, **changes):
    result = [{"from_name": "topic", "type": "choices", "value": {"choices": names}}] * bool(names)
    annotation = {"completed_by": 1, "was_cancelled": False, "result": result} | changes
    return {"id": task, "annotations": [annotation], "data": {"text": TEXTS[task]}}


def label_studio_min(task, names):
    topic = {"topic": names[0] if len(names) == 1 else {"choices": names}} if names else {}
    meta = {"annotator": 1, "annotation_id": 7, "lead_time": 2.5, "created_at": "2024"}
    return {"text": TEXTS[task], "id": task, **meta, **topic}


def prodigy(task, names):
    options = [{"id": name, "text": name} for name in NAMES]
    hashes = {"_input_hash": task, "_task_hash": -task}
    return {"text": TEXTS[task], "options": options, "accept": names, "answer": "accept", **hashes}


def doccano(task, names):
    return {"id": task, "text": TEXTS[task], "label": names, "Comments": []}


def argilla(task, names):
    response = {"value": names, "user_id": "u", "status": "submitted"}
    fields = {"review": TEXTS[task]}
    return {"id": task, "fields": fields, "responses": {"topic": [response]}, "suggestions": {}}


def argilla_flat(task, names):
    answers = {"": [names], ".users": ["u"], ".status": ["submitted"]}
    responses = {f"topic.responses{key}": value for key, value in answers.items()}
    return {"id": task, "text": TEXTS[task], **responses}


def argilla_1(task, names):
    return {"text": TEXTS[task], "annotation": names, "annotation_agent": "u", "multi_label": True}


TOOLS = {
    "Label Studio JSON": label_studio,
    "Label Studio JSON-MIN": label_studio_min,
    "Prodigy": prodigy,
    "doccano": doccano,
    "Argilla": argilla,
    "Argilla flat": argilla_flat,
    "Argilla 1": argilla_1,
}


@pytest.mark.parametrize("name", TOOLS)
def test_exports_of_annotation_tools_are_recognized(tmp_path, name):
    rows = [TOOLS[name](task, names) for task, names in enumerate(LISTS)]
    path = write(tmp_path / "a.json", json.dumps(rows))
    examples = read(path)
    assert examples.texts == TEXTS
    assert examples.names == NAMES
    assert examples.labels.tolist() == list(LABELS)
    assert examples.source == f"a.json: 5 rows, {name.removesuffix(' flat')}, 3 labels"
    assert [row.text for row in stream(jsonl(tmp_path / "a.jsonl", rows)) if row.text] == list(
        TEXTS
    )


STRANGE = (None, [], {}, "", 5, -1.5, float("nan"), True, "a", [1], ["a"], {"a": 1}, [[0, 1, "x"]])
STRANGE += ({"choices": 5}, "\ud83d", 10**400, [10**400], [{}], [None])


def damage(value, rng):
    if rng.random() < 0.1:
        return rng.choice(STRANGE)
    if isinstance(value, dict):
        return {key: damage(item, rng) for key, item in value.items() if rng.random() > 0.04}
    return [damage(item, rng) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", [*TOOLS, "labels", "label"])
def test_records_with_strange_values_are_read_or_refused(tmp_path, name):
    rng = random.Random(name)
    make = TOOLS.get(name, lambda task, names: {"text": TEXTS[task], name: names})
    for _ in range(150):
        rows = [damage(make(task, names), rng) for task, names in enumerate(LISTS)]
        path = write(tmp_path / "a.json", json.dumps(rows))
        for how in ({}, {"labels": NAMES}, {"labeled": False}):
            with contextlib.suppress(DataError):
                read(path, **how)


def test_answers_that_do_not_count_are_counted(tmp_path):
    tasks = [label_studio(0, ["bill"]), label_studio(1, ["late"], was_cancelled=True)]
    tasks.append(label_studio(2, []) | {"annotations": []})
    source = read(write(tmp_path / "a.json", json.dumps(tasks))).source
    assert source.endswith("1 label; left out: 1 row skipped, 1 row not labeled")
    tasks = [prodigy(0, ["bill"]), prodigy(1, []) | {"answer": "reject"}]
    tasks.append(prodigy(2, []) | {"answer": "ignore"})
    source = read(jsonl(tmp_path / "a.jsonl", tasks)).source
    assert source.endswith("left out: 1 row rejected, 1 row ignored")
    draft = argilla(1, ["late"])
    draft["responses"]["topic"][0]["status"] = "draft"
    source = read(jsonl(tmp_path / "b.jsonl", [argilla(0, ["bill"]), draft])).source
    assert source.endswith("left out: 1 row discarded or drafts")
    assert len(list(stream(tmp_path / "b.jsonl"))) == 2


def test_one_label_a_question_leaves_other_labels_unknown(tmp_path):
    hashes = {"_input_hash": 0, "_task_hash": 0}
    tasks = [
        {"text": "a", "label": "bill", "answer": "accept", **hashes},
        {"text": "a", "label": "late", "answer": "reject", **hashes},
        {"text": "b", "label": "late", "answer": "accept", **hashes, "_input_hash": 1},
    ]
    examples = read(jsonl(tmp_path / "a.jsonl", tasks))
    assert examples.names == ("bill", "late")
    assert examples.labels.tolist() == [[1, 0], [0, 1]]
    assert examples.label_mask.tolist() == [[1, 1], [0, 1]]


def test_names_of_several_questions_are_kept_apart(tmp_path):
    tasks = [argilla(task, names) for task, names in enumerate(LISTS)]
    for task in tasks:
        answer = {"value": ["yes"], "user_id": "u", "status": "submitted"}
        task["responses"] |= {"urgent": [answer], "polite": [answer | {"value": []}]}
    examples = read(jsonl(tmp_path / "a.jsonl", tasks))
    assert examples.names == (*(f"topic: {name}" for name in NAMES), "urgent: yes")
    rows = [label_studio_min(0, ["bill"]) | {"shop": "north"}]
    with pytest.raises(DataError, match=r"any of shop, topic .* data\.ignore_columns=NAME"):
        read(jsonl(tmp_path / "b.jsonl", rows))
    assert read(tmp_path / "b.jsonl", ignore_columns=("shop",)).names == ("bill",)


def test_several_annotators_of_a_text_give_a_share(tmp_path):
    votes = [("0", TEXTS[0], "bill"), ("0", TEXTS[0], "late"), ("1", TEXTS[1], "bill")]
    votes += [("1", TEXTS[1], "bill"), ("2", TEXTS[2], "late")]
    content = "id,text,labels\n" + "".join(",".join(vote) + "\n" for vote in votes)
    examples = read(write(tmp_path / "a.csv", content))
    assert examples.ids == ("0", "1", "2")
    assert examples.labels.tolist() == [[0.5, 0.5], [1, 0], [0, 1]]
    assert examples.agreement == pytest.approx((0, 0))  # 2 pairs differ; 2 * 3 * 1 / 3 by chance
    assert "texts with several annotators: 2" in examples.source
    task = label_studio(0, ["bill"])
    task["annotations"] *= 2
    task["annotations"] += label_studio(0, ["late"])["annotations"]
    examples = read(write(tmp_path / "a.json", json.dumps([task])))
    assert examples.labels.tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)]]
    assert len(list(stream(tmp_path / "a.json"))) == 1


def test_agreement_is_krippendorffs_alpha():
    """The example of two observers in Krippendorff 2011: alpha is 0.095. One label has no variance;
    a text with one answer does not count."""
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    votes = np.array([[vote, 0] for vote in [*first, *second, 1]], np.float32)
    alpha, undefined = agreement(votes, np.array([*range(10), *range(10), 10]))
    assert alpha == pytest.approx(0.095, abs=5e-4)
    assert np.isnan(undefined)


def test_numbers_are_labels_where_labels_are_named(tmp_path):
    ids = [[index for index, value in enumerate(row) if value] for row in LABELS]
    forms = {
        "as vectors": [[float(value) for value in row] for row in LABELS],
        "as class ids": ids,
    }
    for note, lists in forms.items():
        rows = [{"text": text, "labels": row} for text, row in zip(TEXTS, lists, strict=True)]
        path = jsonl(tmp_path / "a.jsonl", rows)
        assert read(path, NAMES).labels.tolist() == list(LABELS)
        assert f"labels {note}" in read(path, NAMES).source
        with pytest.raises(DataError, match=r"data\.labels=a,b,c names the labels"):
            read(path)
    cells = [[f'"{row}"'.replace(",", "")] for row in LABELS]  # numpy's way
    path = write(tmp_path / "a.csv", table(*cells, header="text,labels"))
    assert read(path, NAMES).labels.tolist() == list(LABELS)
    singles = [{"text": text, "label": index % 3} for index, text in enumerate(TEXTS)]
    assert read(jsonl(tmp_path / "b.jsonl", singles), NAMES).labels.argmax(1).tolist() == [
        0, 1, 2, 0, 1,
    ]  # fmt: skip
    for labels in (("a", "b"), ("a", "b", "c", "d")):  # vectors of another length
        with pytest.raises(DataError, match="a list of 3 values for"):
            read(write(tmp_path / "a.csv", table(*cells, header="text,labels")), labels)


def test_shares_are_labels_in_every_form(tmp_path):
    rows = [{"text": "a", "x": 0.67, "y": 0}, {"text": "b", "x": 0, "y": 1}]
    examples = read(jsonl(tmp_path / "a.jsonl", rows))
    np.testing.assert_array_equal(examples.labels, np.array([[0.67, 0], [0, 1]], np.float32))
    german = "text;x;y\na;0,67;0\nb;0;1\n"
    again = read(write(tmp_path / "a.csv", german))
    np.testing.assert_array_equal(again.labels, examples.labels)


def test_columns_are_chosen_by_name(tmp_path):
    content = "date,comment_text,x,y\n2024,one,1,0\n2025,two,0,1\n"
    path = write(tmp_path / "a.csv", content)
    by_labels = read(path, ("y", "x"), text_column="comment_text")
    assert by_labels.labels.tolist() == [[0, 1], [1, 0]]
    ignoring = read(path, text_column="comment_text", ignore_columns=("date",))
    assert ignoring.names == ("x", "y")
    for examples in (by_labels, ignoring):
        assert examples.texts == ("one", "two")
        assert examples.source.endswith("left out: column 'date'")
    assert [row.text for row in stream(path, "comment_text")] == ["one", "two"]
    one_id = write(tmp_path / "b.csv", "id,text,x\n7,one,1\n7,two,0\n")
    with pytest.raises(DataError, match=r"data\.ignore_columns=id numbers the rows"):
        read(one_id)
    assert read(one_id, ignore_columns=("id",)).ids == ("0", "1")


def test_rows_without_a_text_or_labels_are_left_out_and_counted(tmp_path):
    rows = [
        {"text": "a", "labels": ["x"]},
        {"text": None, "labels": ["x"]},
        {"text": " ", "labels": ["x"]},
        {"text": "b", "labels": None},
        {"text": "c"},
        {"text": "d", "labels": []},
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    examples = read(path)
    assert examples.texts == ("a", "d")
    assert examples.ids == ("0", "5")
    assert "left out: 2 rows without a text, 2 rows not labeled" in examples.source
    assert [row.text for row in stream(path)] == ["a", "", "", "b", "c", "d"]


def test_whole_numbers_are_ids_without_a_fraction(tmp_path):
    rows = [{"id": id_, "text": "a", "x": 1} for id_ in (3.0, 4, "5.0", 1.5, "v1.0")]
    assert read(jsonl(tmp_path / "a.jsonl", rows)).ids == ("3", "4", "5", "1.5", "v1.0")
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"id": [3.0, None], "text": ["a", "b"], "x": [0, 1]}), path
    )
    assert read(path).ids == ("3", "1")


def test_spellings_of_a_name_are_one_label(tmp_path):
    rows = [{"text": "a", "labels": [name]} for name in ("caf\u00e9", " cafe\u0301", "Caf\u00e9")]
    examples = read(jsonl(tmp_path / "a.jsonl", rows))
    assert examples.names == ("Caf\u00e9", "caf\u00e9")
    assert examples.labels.tolist() == [[0, 1], [0, 1], [1, 0]]
    assert "one label for every spelling of 'caf\u00e9'" in examples.source
    assert "differ in case only: 'caf\u00e9', 'Caf\u00e9'" in examples.source


def test_names_with_commas_are_pointed_out(tmp_path):
    cells = [['"health, safety"'], ["late"], ['"late, health, safety"'], ["late"], [""]]
    path = write(tmp_path / "a.csv", table(*cells, header="text,labels"))
    assert "'health', 'safety' occur only together" in read(path).source
    with pytest.raises(DataError, match="unknown label 'health'; did you mean 'health, safety'"):
        read(path, ("health, safety", "late"))
    barred = write(tmp_path / "b.csv", path.read_text().replace("late, h", "late|h"))
    assert read(barred).names == ("health, safety", "late")
    single = write(tmp_path / "c.csv", 'text,labels\na,"health, safety"\nb,late\n')
    assert read(single, ("health, safety", "late")).labels.tolist() == [[1, 0], [0, 1]]


def save_dataset(folder, features, columns):
    """A folder as `datasets.Dataset.save_to_disk` writes it."""
    folder.mkdir()
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    content = pyarrow.table(columns).replace_schema_metadata(metadata)
    with pyarrow.ipc.new_stream(folder / "data-00000-of-00001.arrow", content.schema) as file:
        file.write_table(content)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    return content


def test_a_saved_dataset_is_read_with_the_names_of_its_classes(tmp_path, monkeypatch):
    classes = {"names": list(NAMES), "_type": "ClassLabel"}
    features = {"text": {"dtype": "string", "_type": "Value"}, "labels": {"feature": classes}}
    ids = [[index for index, value in enumerate(row) if value] for row in LABELS]
    folder = tmp_path / "saved"
    content = save_dataset(folder, features, {"text": TEXTS, "labels": ids})
    pyarrow.parquet.write_table(content, tmp_path / "a.parquet")
    for path in (folder, tmp_path / "a.parquet"):
        examples = read(path)
        assert (examples.texts, examples.names) == (TEXTS, NAMES)
        assert examples.labels.tolist() == list(LABELS)
    with pytest.raises(DataError, match="a folder; name a file"):
        read(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "saved"]}')
    with pytest.raises(DataError, match=r"name one: .*/train, .*/saved"):
        read(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"Dataset\.to_parquet"):
        read(folder)


def test_the_column_that_lists_labels_may_have_another_name(tmp_path):
    content = "id;date;comment;tags\n1;May;a raven;bird, black\n2;May;a swan;bird\n"
    path = write(tmp_path / "a.csv", content)
    columns = {"text_column": "comment", "label_column": "tags"}
    examples = read(path, **columns)
    assert examples.names == ("bird", "black")
    assert examples.labels.tolist() == [[1, 1], [1, 0]]
    assert "'date'" in examples.source
    with pytest.raises(DataError, match=r"data\.text_column=comment"):
        read(path)
    with pytest.raises(DataError, match=r"data\.label_column=tags"):
        read(path, text_column="comment")
    with pytest.raises(DataError, match="no 'topics' column"):
        read(path, text_column="comment", label_column="topics")
