"""Planted faults are found, each with its kind and its lines; clean data have none."""

import csv

import numpy as np
import pytest

from jaxclf.experiment.config import Data
from jaxclf.text.check.findings import KINDS, gather
from jaxclf.text.check.near_duplicates import jaccard, near_duplicates
from jaxclf.text.check.run import find_faults, find_first
from jaxclf.text.data_splits import read_data

COLUMNS = ("text", "group", "joy", "fear", "anger")
SIZES = {"train": 120, "val": 40, "test": 40}


def clean_rows():
    """split -> rows, with texts of random words and random labels."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(4, 9))) for _ in range(2000)]
    rows = {}
    for split, size in SIZES.items():
        labels = rng.permuted(np.tile([[1], [1], [0], [0]], (size // 4, 3)), axis=0)
        rows[split] = [
            dict(
                zip(
                    COLUMNS,
                    (" ".join(rng.choice(words, rng.integers(20, 40))), "", *row),
                    strict=True,
                )
            )
            for row in labels.tolist()
        ]
    return rows


def write(folder, rows):
    files = {}
    for split, of_split in rows.items():
        files[split] = str(folder / f"{split}.csv")
        with open(files[split], "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(of_split[0]))
            writer.writeheader()
            writer.writerows(of_split)
    return Data(**files)


def check(folder, rows):
    return find_faults(gather(read_data(write(folder, rows))))


def copy(rows, source, target, **changes):
    """Row `target` gets the text and the labels of row `source`; both are (split, index)."""
    rows[target[0]][target[1]] = {**rows[source[0]][source[1]], **changes}


def set_text(*indices, text):
    def plant(rows):
        for index in indices:
            rows["train"][index]["text"] = text(rows["train"][index]["text"])

    return plant


def set_column(values):
    """Rewrite each row: values(row, split, index) -> changes."""

    def plant(rows):
        for split, of_split in rows.items():
            for index, row in enumerate(of_split):
                row |= values(row, split, index)

    return plant


def rename(old, new):
    def plant(rows):
        for split, of_split in rows.items():
            rows[split] = [{new if k == old else k: v for k, v in row.items()} for row in of_split]

    return plant


def without_last_word(text):
    return text.rpartition(" ")[0]


def cut_at_100(text):
    return text[:100].strip().ljust(100, "x")


def share_a_group(rows):
    for split, index in (("train", 4), ("train", 5), ("val", 6)):
        rows[split][index]["group"] = "one author"


# Name -> (kind, plant, places), each `split:line`, and None stands for "no places".
FAULTS = {
    "the same text twice": (
        "repeated",
        lambda rows: copy(rows, ("train", 3), ("train", 50)),
        [("train:5", "train:52")],
    ),
    "the same text but for case and spaces": (
        "repeated",
        lambda rows: copy(
            rows,
            ("val", 3),
            ("val", 9),
            text="  " + rows["val"][3]["text"].upper().replace(" ", "\n", 1),
        ),
        [("val:5", "val:11")],
    ),
    "the same text with other labels": (
        "conflict",
        lambda rows: copy(rows, ("train", 3), ("train", 50), joy=1 - rows["train"][3]["joy"]),
        [("train:5", "train:52")],
    ),
    "a training text in test": (
        "leak",
        lambda rows: copy(rows, ("train", 3), ("test", 7)),
        [("train:5", "test:9")],
    ),
    "a validation text in test": (
        "leak",
        lambda rows: copy(rows, ("val", 0), ("test", 39)),
        [("val:2", "test:41")],
    ),
    "nearly the same text": (
        "nearly repeated",
        lambda rows: copy(
            rows, ("train", 10), ("train", 11), text=without_last_word(rows["train"][10]["text"])
        ),
        [("train:12", "train:13")],
    ),
    "nearly the same text with other labels": (
        "near conflict",
        lambda rows: copy(
            rows,
            ("train", 10),
            ("train", 11),
            text=without_last_word(rows["train"][10]["text"]),
            fear=1 - rows["train"][10]["fear"],
        ),
        [("train:12", "train:13")],
    ),
    "nearly a training text in test": (
        "near leak",
        lambda rows: copy(
            rows, ("train", 10), ("test", 0), text=without_last_word(rows["train"][10]["text"])
        ),
        [("train:12", "test:2")],
    ),
    "a group in two splits": ("shared group", share_a_group, [("train:6", "val:8")]),
    "a label that is never set": (
        "constant label",
        set_column(lambda *_: {"anger": 0}),
        None,
    ),
    "two labels that are equal": (
        "equal labels",
        set_column(lambda row, *_: {"anger": row["joy"]}),
        None,
    ),
    "two labels that are opposites": (
        "equal labels",
        set_column(lambda row, *_: {"anger": 1 - row["joy"]}),
        None,
    ),
    "a label that is rare in train": (
        "too rare to learn",
        set_column(lambda row, split, index: {"anger": int(split != "train" or index < 9)}),
        None,
    ),
    "a label that is rare in test": (
        "too rare to judge",
        set_column(
            lambda row, split, index: {"anger": int(row["anger"] if split != "test" else index < 4)}
        ),
        None,
    ),
    "label names that differ in case": ("similar names", rename("anger", "Joy "), None),
    "a column that is no label": ("suspicious label", rename("anger", "annotator"), None),
    "a label that is mostly unknown": (
        "unknown labels",
        set_column(lambda row, split, index: {"anger": row["anger"] if index % 5 < 2 else ""}),
        None,
    ),
    "a row without any label value": (
        "unlabeled",
        lambda rows: rows["train"][20].update(joy="", fear="", anger=""),
        [("train:22",)],
    ),
    "a label that is much rarer in test": (
        "shift",
        set_column(
            lambda row, split, index: {"anger": int(row["anger"] if split != "test" else index < 6)}
        ),
        None,
    ),
    "a word that decides a label": (
        "shortcut",
        set_column(lambda row, *_: {"text": row["text"] + " q7" * row["anger"]}),
        [("train:",)],
    ),
    "UTF-8 read as Latin-1": (
        "broken characters",
        set_text(5, 8, text=lambda text: f"{text} café".encode().decode("latin-1")),
        [("train:7",), ("train:10",)],
    ),
    "a replacement character": (
        "broken characters",
        set_text(119, text=lambda text: f"{text} caf\ufffd"),
        [("train:121",)],
    ),
    "HTML": (
        "markup",
        set_text(6, text=lambda text: f"<p>{text}</p>"),
        [("train:8",)],
    ),
    "HTML entities": ("markup", set_text(7, text=lambda text: f"{text} &amp; x"), [("train:9",)]),
    "a text of digits": ("no words", set_text(9, text=lambda _: "12:30"), [("train:11",)]),
    "a text of one letter": ("very short", set_text(9, text=lambda _: "k"), [("train:11",)]),
    "texts that an export cut": (
        "exact length",
        set_column(lambda row, *_: {"text": cut_at_100(row["text"])}),
        [
            (f"{split}:{index + 2}",)
            for split, size in SIZES.items()
            for index in range(size)
        ],
    ),
    "a line break in a text before the row": (
        "very short",
        lambda rows: (
            rows["train"][2].update(text="a text\nof three\nlines that differs from all others"),
            rows["train"][9].update(text="k"),
        ),
        [("train:13",)],
    ),
}  # fmt: skip


def test_clean_data_have_no_fault(tmp_path):
    assert not check(tmp_path, clean_rows())


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_with_its_lines(tmp_path, name):
    kind, plant, places = FAULTS[name]
    rows = clean_rows()
    plant(rows)
    findings = {finding.kind: finding for finding in check(tmp_path, rows)}
    assert kind in findings
    expected = [
        tuple(f"{tmp_path}/{line.replace(':', '.csv:')}" for line in of_rows)
        for of_rows in places or []
    ]
    if kind == "shortcut":  # the first text with the word
        first = next(index for index, row in enumerate(rows["train"]) if row["anger"])
        expected = [(f"{tmp_path}/train.csv:{first + 2}",)]
    assert list(findings[kind].places) == expected


def test_every_kind_is_planted():
    assert {kind for kind, _, _ in FAULTS.values()} == set(KINDS) - {"cut texts"}


def test_the_most_important_come_first(tmp_path):
    rows = clean_rows()
    FAULTS["HTML"][1](rows)
    FAULTS["the same text with other labels"][1](rows)
    FAULTS["a training text in test"][1](rows)
    kinds = [finding.kind for finding in check(tmp_path, rows)]
    assert kinds == sorted(kinds, key=KINDS.index)
    first = find_first(read_data(write(tmp_path, rows)))
    assert [finding.kind for finding in first] == ["conflict", "markup"]


def test_no_sentence_shows_a_text(tmp_path):
    for _, plant, _ in FAULTS.values():
        rows = clean_rows()
        plant(rows)
        words = {word for of in rows.values() for row in of for word in row["text"].split()}
        for finding in check(tmp_path, rows):
            assert not {word for word in words if len(word) > 6} & set(str(finding).split())


def test_near_duplicates_are_those_of_all_pairs():
    """Random edits of random texts, from equal to unlike: brute force finds the same pairs."""
    rng = np.random.default_rng(0)
    texts = set()
    for _ in range(60):
        letters = rng.choice(list("abcdefgh "), rng.integers(20, 200))
        for edits in (0, 1, 2, 6):
            at = rng.integers(0, len(letters), edits)
            letters[at] = rng.choice(list("xyz"), edits)
            texts.add(" ".join("".join(letters).split()))
    texts = sorted(texts)
    encoded = [text.encode() for text in texts]
    expected = {
        (first, second)
        for first in range(len(texts))
        for second in range(first + 1, len(texts))
        if jaccard(encoded[first], encoded[second]) >= 0.8
    }
    pairs = {(first, second) for first, second, _ in near_duplicates(texts)}
    assert pairs <= expected
    # A text is found with some of its likes, not with all.
    assert {row for pair in expected for row in pair} == {row for pair in pairs for row in pair}
    assert near_duplicates(["a", "b", "abc"]) == []
    assert near_duplicates([]) == []
