"""One file is divided by its split column, by chance or as before; no row is in two splits."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Data
from jaxclf.text.data_splits import SPLITS, describe_unjudged, read_data, write_split
from jaxclf.text.folds import assign_parts
from jaxclf.text.splits import normalize

ROWS = [
    {
        "id": f"r{row}",
        "text": f"text {row if row % 10 else 'again'}",  # one text in ten rows
        "group": f"author {row // 2}" if row < 60 else "",
        "labels": {"a": row % 2, "rare": int(row % 20 == 1)},
    }
    for row in range(100)
]


def write(path, rows):
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.fixture
def data(tmp_path):
    return Data(write(tmp_path / "mine.json", ROWS), "", "")


def ids(data):
    return {name: part.ids for name, part in read_data(data).items()}


def test_one_file_is_divided_by_chance(data, caplog):
    caplog.set_level("INFO")
    splits = read_data(data)
    assert tuple(splits) == SPLITS
    assert sorted(id for part in splits.values() for id in part.ids) == sorted(
        row["id"] for row in ROWS
    )
    for part in splits.values():
        assert [ROWS[int(id[1:])]["text"] for id in part.ids] == list(part.texts)
        assert part.lines == tuple(1 for _ in part.ids)  # of one line of JSON
    for key in (lambda part: map(normalize, part.texts), lambda part: filter(None, part.groups)):
        sets = [set(key(part)) for part in splits.values()]
        assert sum(map(len, sets)) == len(set.union(*sets))
    assert [len(splits[name].ids) for name in SPLITS] == pytest.approx([70, 15, 15], abs=3)
    assert [int(splits[name].labels[:, 1].sum()) for name in SPLITS] == [3, 1, 1]
    (line,) = (message for message in caplog.messages if message.startswith("split of"))
    for part in ("mine.json", "70/15/15 %", "groups", "seed 0", f"{len(splits['val'].ids)} val"):
        assert part in line


def test_the_division_depends_on_its_own_seed_and_shares(data):
    assert ids(data) == ids(replace(data, max_length=7))
    assert ids(data) != ids(replace(data, split_seed=1))
    larger = ids(replace(data, val_share=0.3, test_share=0.1))
    assert [len(larger[name]) for name in SPLITS] == pytest.approx([60, 30, 10], abs=3)
    with pytest.raises(ConfigError, match=r"data\.val_share"):
        read_data(replace(data, val_share=0.5, test_share=0.5))


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_split_without_a_file_comes_from_the_training_rows(data, name, tmp_path):
    rows = [{**row, "id": f"o{row['id']}", "text": f"other {row['text']}"} for row in ROWS[:30]]
    splits = ids(replace(data, **{name: write(tmp_path / "other.json", rows)}))
    assert splits[name] == tuple(row["id"] for row in rows)
    missing = {"val": "test", "test": "val"}[name]
    assert len(splits[missing]) == pytest.approx(15, abs=3)
    assert sorted(splits["train"] + splits[missing]) == sorted(row["id"] for row in ROWS)


def test_a_split_column_comes_first(tmp_path, caplog):
    names = ["train", "Validation", "TEST", "dev", " train "]
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "split", "a"])
        writer.writerows([f"text {row}", names[row % 5], row % 2] for row in range(20))
    path = str(tmp_path / "mine.csv")
    splits = read_data(Data(path, path, path))
    assert splits["train"].names == ("a",)
    assert splits["val"].lines == (3, 5, 8, 10, 13, 15, 18, 20)
    assert [len(splits[name].ids) for name in SPLITS] == [8, 8, 4]
    assert not caplog.messages
    own_val = write(tmp_path / "val.json", [{"text": "b", "labels": {"a": 1}}])
    assert ids(Data(path, "", "")) == ids(Data(path, own_val, ""))
    (warning,) = caplog.messages
    assert "data.val=" in warning
    assert "split column" in warning


def test_a_column_that_names_no_test_rows_leaves_them_to_the_file_or_to_chance(tmp_path):
    rows = [{**row, "split": "dev" if index < 30 else "train"} for index, row in enumerate(ROWS)]
    path = write(tmp_path / "mine.json", rows)
    splits = ids(Data(path, "", ""))
    assert splits["val"] == tuple(row["id"] for row in ROWS[:30])
    assert len(splits["train"]) + len(splits["test"]) == 70
    tests = write(tmp_path / "test.json", [{**ROWS[0], "id": "t", "split": "test"}, ROWS[1]][:1])
    assert ids(Data(path, "", tests))["test"] == ("t",)


@pytest.mark.parametrize(
    ("splits", "parts"),
    [
        (["train", "holdout"], ["mine.json:2", "'holdout'"]),
        (["train", ""], ["mine.json:2", "no split"]),
        (["test", "test"], ["mine.json", "no train rows"]),
    ],
)
def test_a_faulty_split_column_is_named(tmp_path, splits, parts):
    rows = [json.dumps({**ROWS[index], "split": name}) for index, name in enumerate(splits)]
    (tmp_path / "mine.json").write_text("\n".join(rows))
    with pytest.raises(DataError) as error:
        read_data(Data(str(tmp_path / "mine.json"), "", ""))
    for part in parts:
        assert part in str(error.value)


def test_an_empty_training_file_is_named():
    with pytest.raises(ConfigError, match=r"data\.train is empty"):
        read_data(Data("", "", ""))


def test_a_written_split_is_taken_again_after_rows_came_and_moved(data, tmp_path):
    write_split(tmp_path, read_data(data))
    listed = replace(data, split=str(tmp_path / "split.json"))
    assert ids(listed) == ids(data)
    in_test = set(ids(data)["test"])
    same_group = next(row["group"] for row in ROWS if row["id"] in in_test and row["group"])
    added = [
        {"id": "new", "text": "new", "labels": ROWS[0]["labels"]},
        {"id": "tied", "text": "tied", "group": same_group, "labels": ROWS[0]["labels"]},
    ]
    # Without the old ids: rows are known by their texts.
    moved = [{**row, "id": f"x{row['id']}"} for row in reversed(ROWS)]
    write(tmp_path / "mine.json", [*added, *moved])
    grown = ids(listed)
    assert "new" in grown["train"]
    assert set(grown["test"]) == {f"x{id}" for id in in_test} | {"tied"}
    (tmp_path / "split.json").write_text("[]")
    with pytest.raises(DataError, match=r"split\.json: must list"):
        read_data(listed)


def test_labels_that_cannot_be_judged_are_named(data):
    splits = read_data(data)
    sentence = describe_unjudged(splits)
    assert "rare (1 val, 1 test)" in sentence
    assert "a (" not in sentence
    assert not describe_unjudged({name: splits["train"]._replace(
        labels=np.ones_like(splits["train"].labels)) for name in SPLITS})  # fmt: skip


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.booleans()), max_size=60),
    shares=st.sampled_from([(0.7, 0.15, 0.15), (0.85, 0.15), (0.1, 0.9)]),
)
def test_parts_have_their_shares_up_to_a_group(rows, shares):
    groups = np.array([row[0] for row in rows], np.int64)
    labels = np.array([row[1:] for row in rows], np.float32).reshape(-1, 2)
    part = assign_parts(labels, groups, shares)
    for index in range(len(shares)):
        assert not set(groups[part == index]) & set(groups[part != index])
    single = assign_parts(labels, np.arange(len(rows)), shares)
    for index, share in enumerate(shares):
        # Each of three strata (a label, the other, none) may be off by one row for each part.
        assert abs((single == index).sum() - share * len(rows)) <= 3 * len(shares)
