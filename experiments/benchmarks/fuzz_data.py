"""Damaged data files of every format, for experiments.benchmarks.fuzz."""

import collections
import csv
import io
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow
import pyarrow.parquet

from jaxclf.errors import DataError
from jaxclf.text.reader import read, stream

ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
LABELS = ("calm", "tired", "naïve", "a=b")
NUM_ROWS = 60

INSERTED = (
    b'"', b'""', b"'", b",", b"\t", b"\r", b"\n", b"\r\n", b"\0", b"\0" * 1000, b"\xef\xbb\xbf",
    b"\xff\xfe", b"\x1b[31m", b"\xed\xa0\x80", b"\\ud83d", b"\\", b"{", b"}", b"[", b"]", b":",
    b"1e999", b"-1e400", b"NaN", b"-Infinity", b"9" * 5000, b"0." + b"3" * 5000, b"null",
    b"[" * 100_000, b'{"a":' * 50_000, b"A" * 2_000_000, b"=cmd|' /C calc'!A0",
    "\u2028\u0085\u202e".encode(), b'{"text": "a", "text": "b"}', b"text,text,text\n",
)  # fmt: skip


def make_rows(count: int) -> list[dict]:
    rng = random.Random(count)
    words = ["rain", "tea", "über", "漢字", "🙂", 'the "end"', "a,b", "tab\tbed", "line\nbreak"]
    return [
        {
            "id": f"row-{index}",
            "text": " ".join(rng.choices(words, k=rng.randint(1, 30))) + " .",
            "group": f"g{index % 7}",
            "labels": {name: rng.choice([0, 1, None]) for name in LABELS},
        }
        for index in range(count)
    ]


def write_rows(path: Path, rows: list[dict]) -> None:
    flat = [
        {key: value for key, value in row.items() if key != "labels"} | row["labels"]
        for row in rows
    ]
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), path)
    else:
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, flat[0], delimiter="," if path.suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(flat)
        path.write_bytes(file.getvalue().encode())


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.choices(range(len(content) + 1), k=2))
    return rng.choice([content[:start], content[end:], content[:start] + content[end:]])


def duplicate(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.choices(range(len(content) + 1), k=2))
    times = rng.choice([1, 1, 2, 20])
    return content[:end] + content[start:end] * times + content[end:]


def insert(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(INSERTED) * rng.choice([1, 1, 3]) + content[at:]


def overwrite(content: bytes, rng: random.Random) -> bytes:
    length = rng.choice([1, 4, 16, 512])
    at = rng.randrange(len(content))
    block = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    return content[:at] + block + content[at + length :]


def end_lines(content: bytes, rng: random.Random) -> bytes:
    return content.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\n\r", b"\n\n", b""]))


def encode(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(rng.choice(["utf-16", "utf-16-le", "utf-32", "cp1252"]), "replace")


def damage_twice(content: bytes, rng: random.Random) -> bytes:
    first, second = rng.choices([flip_bits, cut, duplicate, insert, overwrite], k=2)
    return second(first(content, rng) or b"\n", rng)


def repeat_text(row: dict, rng: random.Random) -> None:
    row["text"] = row["text"][:200] * rng.choice([10, 1000, 50_000])


def name_key(row: dict, rng: random.Random) -> None:
    names = ["\x1b]0;x\x07", "=1+1", "", "text", "labels", "x" * 200_000, "\u202eb", "a\nb", "id"]
    row["labels"] = {**row["labels"], rng.choice(names): rng.choice([0, 1, 5])}


def add_keys(row: dict, rng: random.Random) -> None:
    row["labels"] = dict.fromkeys(map(str, range(rng.choice([100, 20_000]))), 1)


def replace_value(row: dict, rng: random.Random) -> None:
    values = [0.5, -3.0, 5, 10**400, float("nan"), "yes", True, "", None, [1], {"a": {"b": 1}}]
    key = rng.choice(["id", "text", "group", "labels", "label"])
    if key == "label":
        row["labels"] = {**row["labels"], rng.choice(LABELS): rng.choice(values)}
    else:
        row[key] = rng.choice(values)


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bits, cut, duplicate, insert, overwrite, end_lines, encode, damage_twice),
)
ROWS: tuple[Callable[[dict, random.Random], None], ...] = (
    *(repeat_text, name_key, add_keys, replace_value),
)


def damage_rows(folder: Path, rng: random.Random, target: Path) -> str:
    """Rows with values that nobody expects, as JSON: duplicate keys are written too."""
    rows = make_rows(NUM_ROWS)
    function = rng.choice(ROWS)
    for _ in range(rng.choice([1, 1, 5])):
        function(rng.choice(rows), rng)
    text = json.dumps(rows) if target.suffix == ".json" else "\n".join(map(json.dumps, rows))
    if rng.random() < 0.3:
        key = rng.choice(["text", "calm", "labels"])
        text = text.replace(f'"{key}"', f'"{key}": 1, "{key}"', rng.choice([1, -1]))
    target.write_text(text, encoding="utf-8")
    return function.__name__


def make_columns(rng: random.Random) -> tuple[str, pyarrow.Table]:
    """Parquet tables of few bytes that grow when they are read, and of unusual types."""
    count = rng.choice([10, 1024, 20_000])
    long_text = "long " * rng.choice([10, 20_000, 1_600_000])
    indices = pyarrow.array([0] * min(count, 1024), pyarrow.int32())
    dictionary = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([long_text]))
    ones = pyarrow.array([1] * len(indices))
    tables = {
        "long text by dictionary": lambda: {"text": dictionary, "x": ones},
        "long value by dictionary": lambda: {"text": ["a"] * len(indices), "x": dictionary},
        "bytes": lambda: {"text": [b"\xff\xfe", b"a"], "x": [1, 0]},
        "numbers": lambda: {"text": [1.5, 2.5], "x": [1, 0]},
        "lists": lambda: {"text": ["a"] * count, "labels": [["x"] * 50] * count},
        "objects": lambda: {"text": ["a"] * count, "labels": [{"x": 1, "y": None}] * count},
        "many columns": lambda: {"text": ["a"], **{f"c{index}": [1] for index in range(count)}},
        "times": lambda: {"text": ["a"], "x": pyarrow.array([2**62], pyarrow.timestamp("ns"))},
        "no columns": lambda: {},
    }
    name = rng.choice(list(tables))
    return name, pyarrow.table(tables[name]())


def prepare(folder: Path) -> None:
    for ending in ENDINGS:
        write_rows(path := folder / f"intact{ending}", make_rows(NUM_ROWS))
        assert len(read(path).ids) == sum(1 for _ in stream(path)) == NUM_ROWS


def damage(folder: Path, rng: random.Random, target: Path) -> tuple[Path, str]:
    ending = rng.choice(ENDINGS)
    path = target / f"file{ending}"
    if ending in (".json", ".jsonl") and rng.random() < 0.3:
        return path, f"{ending} {damage_rows(folder, rng, path)}"
    if ending == ".parquet" and rng.random() < 0.3:
        name, table = make_columns(rng)
        pyarrow.parquet.write_table(table, path)
        return path, f"{ending} columns: {name}"
    function = rng.choice(BYTES)
    path.write_bytes(function((folder / f"intact{ending}").read_bytes(), rng))
    return path, f"{ending} {function.__name__}"


def open_damaged(path: Path) -> None:
    """With and without labels; both are tried, and the first refusal is the answer."""
    refusals = []
    for consume in (read, consume_stream):
        try:
            consume(path)
        except DataError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def consume_stream(path: Path) -> None:
    rows: Iterable = stream(path)
    collections.deque(rows, maxlen=0)
