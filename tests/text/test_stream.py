"""Files are read in bounded memory, wherever their chunks end."""

import json
import os
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.errors import DataError
from jaxclf.text import formats, parquet, text_file
from jaxclf.text.reader import read, stream

EXTENSIONS = (".json", ".jsonl", ".csv", ".tsv")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_long_text_file_is_not_read_into_memory(tmp_path, extension):
    texts = [f"{row} " + "word " * 200 for row in range(1000)]
    path = tmp_path / f"in{extension}"
    path.write_text(
        {
            ".json": json.dumps([{"text": text} for text in texts], indent=1),
            ".jsonl": "\n".join(json.dumps({"text": text}) for text in texts),
        }.get(extension, "\n".join(["text", *texts]))
    )
    assert path.stat().st_size > 1_000_000
    tracemalloc.start()
    try:
        for index, row in enumerate(stream(path)):
            assert row.text.startswith(f"{index} ")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert index == 999
    assert peak < 400_000


def test_a_long_parquet_file_is_not_read_into_memory(tmp_path):
    """One row group of texts that hardly compress."""
    peaks = []
    for count in (1500, 4500):
        texts = pyarrow.array([os.urandom(2000).hex() for _ in range(count)])
        path = tmp_path / "in.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
        del texts
        assert pyarrow.parquet.read_metadata(path).num_row_groups == 1
        peaks.append(max(pyarrow.total_allocated_bytes() for _ in stream(path)))
    assert path.stat().st_size > 12_000_000
    assert peaks[1] < peaks[0] + 2_000_000, peaks


def test_a_file_of_bad_rows_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": 5}\n' * 25)
    with pytest.raises(DataError) as refusal:
        list(stream(path))
    assert len(str(refusal.value).splitlines()) <= 11


LINES = st.lists(
    st.sampled_from(
        [
            '{"text": "one"}', '{"id": 12.5, "text": "é 漢 😀"}', '{"text": "\\\\ud83d\\\\ude00"}',
            '"a"', "12", "-3.25e2", "null", '{"text": "a", "text": "b"}', '{"text": "tw', "}", "",
            '{"labels": [1, {"deep": []}], "text": "a\\\\n\\\\"b"}', ",", "[", "]", "\ufeff",
        ]
    ),
    max_size=6,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(
    lines=LINES,
    chunk_size=st.integers(1, 40),
    truncated=st.integers(0, 9),
    extension=st.sampled_from(EXTENSIONS),
)
def test_the_result_does_not_depend_on_where_chunks_end(
    tmp_path_factory, lines, chunk_size, truncated, extension
):
    path = tmp_path_factory.getbasetemp() / f"chunks{extension}"
    content = {
        ".json": "[\n" + ",\n ".join(lines) + "]\n",
        ".jsonl": "\n".join(lines),
        ".csv": 'text,x\n"' + '",1\n"'.join(lines),
        ".tsv": "text\n" + "\n".join(lines),
    }[extension]
    path.write_bytes(content[: len(content) - truncated].encode())

    def read_or_refuse():
        try:
            return list(stream(path)), read(path, labeled=False)
        except DataError as error:
            return str(error)

    expected = repr(read_or_refuse())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "CHUNK", chunk_size)
        assert repr(read_or_refuse()) == expected


def write_parquet(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return path


def parquet_bombs(rows, size):
    """Tables of few bytes with `rows` texts or labels of `size` characters."""
    indices = pyarrow.array([0] * rows, pyarrow.int32())
    repeated = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["a" * size]))
    distinct = [f"{row} ".ljust(size, "a") for row in range(rows)]
    labels = pyarrow.ListArray.from_arrays(
        pyarrow.array(range(rows + 1), pyarrow.int32()), repeated
    )
    return {
        "by dictionary": {"text": repeated},
        "dense": {"text": pyarrow.array(repeated.to_pylist())},
        "by compression": {"text": pyarrow.array(distinct)},
        "labels": {"text": ["a"] * rows, "labels": labels},
    }


@pytest.mark.parametrize("name", parquet_bombs(1, 1))
def test_a_small_parquet_file_does_not_fill_the_memory(tmp_path, monkeypatch, name):
    """At most MAX_BYTES are decoded at a time; a file whose rows are far larger is refused."""
    monkeypatch.setattr(parquet, "MAX_BYTES", 2**20)
    monkeypatch.setattr(text_file, "MAX_EXPANDED", 2**24)
    path = write_parquet(tmp_path / "a.parquet", parquet_bombs(400, 2**17)[name])
    assert path.stat().st_size < 120_000
    before, peaks = pyarrow.total_allocated_bytes(), [0]

    def consume():
        for _ in stream(path):
            peaks.append(pyarrow.total_allocated_bytes())

    for attempt in (consume, lambda: read(path)):
        with pytest.raises(DataError, match="too many for a file of its size; divide it"):
            attempt()
    assert max(peaks) - before < 2**23


def test_texts_that_repeat_are_read(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"text": ["the same"] * 5000, "x": [0, 1] * 2500})
    assert len(set(read(path).texts)) == 1


def test_parquet_times_are_no_fault_of_a_text(tmp_path):
    times = pyarrow.array([1, 2**62], pyarrow.timestamp("ns"))
    path = write_parquet(tmp_path / "a.parquet", {"text": ["a", "b"], "when": times})
    assert [row.text for row in stream(path)] == ["a", "b"]
    with pytest.raises(DataError, match="label 'when' must be 0, 1"):
        read(path)
