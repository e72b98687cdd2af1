"""Labeling files: every format, in order, in bounded memory, and to the same bytes however often
the work is killed."""

import csv
import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from flax.traverse_util import unflatten_dict
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import LABELS
from tokenizers import Tokenizer

from jaxclf import predict
from jaxclf.decisions.calibration import Calibration
from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.overrides import override
from jaxclf.files import atomic
from jaxclf.files.atomic import part_path
from jaxclf.inference import journal as journals
from jaxclf.inference import score_file
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.load import load
from jaxclf.inference.score_file import chunks, fingerprint, predict_file
from jaxclf.inference.shard import Shard, parse_shard
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.parsed_rows import ParsedRow

EXTENSIONS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
OUTPUTS = (".json", ".jsonl", ".csv", ".tsv")
ROWS = 100
# Probabilities are written with six decimals, and differ by at most 1e-6 between batches.
ROUNDING = 2e-6


def write_rows(path, rows):
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, rows[0], delimiter="," if path.suffix == ".csv" else "\t")
            table.writeheader()
            table.writerows(rows)
    return path


@pytest.fixture(scope="module")
def rows(demo_rows):
    """Every third without an id; lengths from a word to several windows."""
    texts = [row["text"] for row in demo_rows["train"][:ROWS]]
    texts[7], texts[8] = "ok", " and ".join(texts[:4])
    return [
        {"id": None if index % 3 == 0 else f"r{index}", "text": text}
        for index, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def source(rows, tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("source") / "rows.jsonl", rows)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(score_file, "CHUNK_ROWS", 32)


@pytest.fixture(scope="module")
def expected(classifier, source, tmp_path_factory):
    """The output of uninterrupted work, by file extension."""
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, "CHUNK_ROWS", 32)
        for extension in OUTPUTS:
            assert predict_file(classifier, source, folder / f"out{extension}").rows == ROWS
    return {extension: (folder / f"out{extension}").read_bytes() for extension in OUTPUTS}


def replace_model(patch, answer):
    """texts -> probabilities, in place of the model."""
    patch.setattr(Classifier, "predict_proba", lambda _, texts: answer(texts))


def parse_output(content):
    lines = [json.loads(line) for line in content.decode().splitlines()]
    probs = np.array([list(line["prediction.probabilities"].values()) for line in lines])
    return [line["id"] for line in lines], [line["prediction.labels"] for line in lines], probs


# Output


def without_nulls(content):
    lines = [json.loads(line) for line in content.decode().splitlines()]
    return [{key: value for key, value in line.items() if value} for line in lines]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_input_format_gets_the_same_predictions(
    classifier, rows, expected, tmp_path, small_chunks, extension
):
    path = write_rows(tmp_path / f"in{extension}", rows)
    predict_file(classifier, path, tmp_path / "out.jsonl")
    content = (tmp_path / "out.jsonl").read_bytes()
    assert without_nulls(content) == without_nulls(expected[".jsonl"])


def test_rows_are_in_order_and_do_not_depend_on_each_other(classifier, rows, expected):
    ids, labels, probs = parse_output(expected[".jsonl"])
    assert ids == [row["id"] for row in rows]
    for index in (0, 7, 8, 40, ROWS - 1):
        (alone,) = classifier.predict_proba([rows[index]["text"]])
        np.testing.assert_allclose(probs[index], alone, atol=ROUNDING, rtol=0)
        assert labels[index] == classifier.predict([rows[index]["text"]])[0]
    assert {len(names) for names in labels} >= {0, 1, 2}
    for extension, delimiter in ((".csv", ","), (".tsv", "\t")):
        file = io.StringIO(expected[extension].decode(), newline="")
        table = list(csv.DictReader(file, delimiter=delimiter))
        assert [row["id"] or None for row in table] == ids
        assert [[name for name in LABELS if row[f"predicted.{name}"] == "1"] for row in table] == (
            labels
        )
        assert [[float(row[f"probability.{name}"]) for name in LABELS] for row in table] == (
            probs.tolist()
        )
    lines = map(json.loads, expected[".jsonl"].decode().splitlines())
    assert json.loads(expected[".json"]) == list(lines)


@pytest.mark.parametrize("count", [2, 7])
def test_the_outputs_of_all_shards_are_the_output_of_the_file(
    classifier, source, expected, tmp_path, small_chunks, count
):
    parts = []
    for index in range(count):
        target = tmp_path / f"{index}.jsonl"
        predict_file(classifier, source, target, Shard(index, count))
        parts.append(target.read_bytes())
    sizes = [part.count(b"\n") for part in parts]
    assert max(sizes) - min(sizes) <= 1
    ids, labels, probs = parse_output(b"".join(parts))
    expected_ids, expected_labels, expected_probs = parse_output(expected[".jsonl"])
    assert (ids, labels) == (expected_ids, expected_labels)
    np.testing.assert_allclose(probs, expected_probs, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("extension", OUTPUTS)
def test_each_row_names_the_model_unless_told_not_to(
    classifier, source, expected, tmp_path, small_chunks, extension
):
    assert re.fullmatch(r"[0-9a-f]{12} jaxclf [\w.]+", classifier.identifier)
    target = tmp_path / f"out{extension}"
    predict_file(classifier, source, target, layout=score_file.Layout(model_column=False))
    named, bare = expected[extension].decode(), target.read_text()
    assert classifier.identifier not in bare
    cells = (f', "prediction.model": "{classifier.identifier}"', ",prediction.model")
    for cell in (
        *cells,
        "\tprediction.model",
        *(f"{mark}{classifier.identifier}" for mark in ",\t"),
    ):
        named = named.replace(cell, "")
    assert named == bare


def test_a_shard_may_be_empty(classifier, rows, tmp_path):
    path, outputs = write_rows(tmp_path / "in.jsonl", rows[:2]), []
    for index in range(3):
        predict_file(classifier, path, tmp_path / "out.csv", Shard(index, 3))
        outputs.append((tmp_path / "out.csv").read_text().splitlines())
    assert len({lines[0] for lines in outputs}) == 1
    assert [len(lines) for lines in outputs] == [1, 2, 2]


def test_an_id_may_repeat(classifier, tmp_path):
    path = write_rows(tmp_path / "in.csv", [{"id": "a", "text": "one"}, {"id": "a", "text": "two"}])
    assert predict_file(classifier, path, tmp_path / "out.csv").rows == 2


# Memory


@given(
    sizes=st.lists(st.integers(1, 9), max_size=40),
    max_rows=st.integers(1, 6),
    max_characters=st.integers(1, 30),
)
def test_chunks_hold_every_row_once_and_depend_on_no_earlier_row(sizes, max_rows, max_characters):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, "CHUNK_ROWS", max_rows)
        patch.setattr(score_file, "CHUNK_CHARACTERS", max_characters)
        rows = [
            ParsedRow(index, str(index), "x" * size, "", None, {})
            for index, size in enumerate(sizes)
        ]
        parts = list(chunks(rows))
        assert [row for part in parts for row in part] == rows
        for part in parts:
            assert 1 <= len(part) <= max_rows
            assert sum(len(row.text) for row in part[:-1]) < max_characters
        start = 0
        for index, part in enumerate(parts):
            assert list(chunks(rows[start:])) == parts[index:]
            start += len(part)


def test_a_long_file_is_scored_in_no_more_memory(classifier, tmp_path, monkeypatch, small_chunks):
    replace_model(monkeypatch, lambda texts: np.full((len(texts), 3), 0.5, np.float32))
    peaks = []
    for count in (300, 1500):
        path = write_rows(tmp_path / "in.jsonl", [{"text": f"text {row}"} for row in range(count)])
        tracemalloc.start()
        try:
            assert predict_file(classifier, path, tmp_path / "out.jsonl").rows == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # 1,200 more rows in memory would take 360 kB.
    assert peaks[1] < peaks[0] + 100_000, peaks


# Refused input


def test_bad_rows_are_named_before_any_row_is_scored(classifier, rows, tmp_path):
    path = tmp_path / "in.jsonl"
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join([*lines, '{"text": 1}', *lines, '{"txt": "a"}']))
    with pytest.raises(DataError) as refusal:
        predict_file(classifier, path, tmp_path / "out.jsonl")
    message = str(refusal.value)
    assert f"{path}:{ROWS + 1}: " in message
    assert f"{path}:{2 * ROWS + 2}: " in message
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "[]", "\n\n"])
def test_a_file_without_rows_is_refused(classifier, tmp_path, content):
    path = tmp_path / "in.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"in\.json:1"):
        predict_file(classifier, path, tmp_path / "out.jsonl")


def test_a_bad_output_is_refused(classifier, rows, tmp_path):
    path = write_rows(tmp_path / "in.jsonl", rows)
    for source, target, error, message in (
        (path, path, ConfigError, "is the input"),
        (path, tmp_path / "out.txt", ConfigError, r"\.csv, \.tsv, \.jsonl"),
        (path, tmp_path / "missing" / "out.csv", ConfigError, "does not exist"),
        (tmp_path / "no.csv", tmp_path / "out.csv", DataError, "no such file"),
        (tmp_path, tmp_path / "out.csv", DataError, "to_parquet"),
    ):
        with pytest.raises(error, match=message):
            predict_file(classifier, source, target)


def test_shards_are_counted_from_0():
    assert parse_shard("0/4") == (0, 4)
    assert parse_shard("3/4") == (3, 4)
    for text in ("4/4", "-1/4", "1", "a/b", "0/0", "1/2/3", "", "²/4"):
        with pytest.raises(ConfigError, match="I/N"):
            parse_shard(text)


# Stopped work


class KilledError(BaseException):
    """In place of a kill: no handler may catch it."""


def kill_at(patch, at, log):
    """Kill before the at-th call that makes a change permanent."""
    count = 0

    def patch_function(owner, name):
        real = getattr(owner, name)

        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count == at:
                log.append(name)
                raise KilledError
            return real(*args, **kwargs)

        patch.setattr(owner, name, wrapped)

    patch_function(journals.os, "fsync")
    patch_function(Path, "replace")
    patch_function(Path, "unlink")
    patch_function(journals, "append")


@pytest.mark.slow
@pytest.mark.parametrize("extension", OUTPUTS)
def test_a_kill_at_any_step_is_resumed_to_the_same_bytes(
    classifier, source, tmp_path, monkeypatch, extension
):
    monkeypatch.setattr(score_file, "CHUNK_ROWS", 60)  # two chunks
    counts = predict_file(classifier, source, tmp_path / f"expected{extension}")
    expected = (tmp_path / f"expected{extension}").read_bytes()
    scored = []
    real = classifier.predict_proba
    replace_model(monkeypatch, lambda texts: (scored.append(len(texts)), real(texts))[1])
    saved, log = [], []
    for at in range(1, 100):
        folder = tmp_path / str(at)
        folder.mkdir()
        target = folder / f"out{extension}"
        kills = len(log)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, at, log)
            try:
                predict_file(classifier, source, target)
            except KilledError:
                assert not target.exists() or log[-1] in ("fsync", "unlink")
        if len(log) == kills:
            break
        if part_path(target).exists():
            with part_path(target).open("ab") as file:
                file.write(b"half a li")
        # Killed while it released the lock: the same command is a new one.
        is_over = target.exists() and not journals.journal_path(target).exists()
        scored.clear()
        assert predict_file(classifier, source, target) == counts
        assert target.read_bytes() == expected
        assert [path.name for path in folder.iterdir()] == [target.name]
        if not is_over:
            saved.append(ROWS - sum(scored))
    assert {"fsync", "replace", "unlink", "append"} == set(log)
    # Rows in the journal are not scored again.
    assert sorted(set(saved)) == [0, 60, 100]
    assert saved == sorted(saved)


def stop_after_two_chunks(classifier, source, target):
    """The content of OUTPUT.part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, "CHUNK_ROWS", 32)
        real, calls = classifier.predict_proba, []

        def answer(texts):
            calls.append(texts)
            if len(calls) == 3:
                raise KilledError
            return real(texts)

        replace_model(patch, answer)
        with pytest.raises(KilledError):
            predict_file(classifier, source, target)
    return part_path(target).read_bytes()


def test_stopped_work_of_another_shard_model_or_input_is_refused(
    classifier, rows, expected, tmp_path, small_chunks, monkeypatch
):
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    part = stop_after_two_chunks(classifier, source, target)
    assert part.count(b"\n") == 64

    def assert_refused(name, shard=score_file.WHOLE_FILE):
        with pytest.raises(ConfigError, match=f"out.jsonl .*another {name}; .*--resume never"):
            predict_file(classifier, source, target, shard)
        assert part_path(target).read_bytes() == part

    assert_refused("shard", Shard(0, 2))
    with pytest.raises(ConfigError, match="another layout"):
        predict_file(classifier, source, target, layout=score_file.Layout(model_column=False))
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "thresholds", classifier.thresholds + 1e-9)
        assert_refused("model")
    content = source.read_text()
    source.write_text(content.replace("ok", "no"))
    assert_refused("input")
    # The same content with another modification time is the same input.
    source.write_text(content)
    os.utime(source, (0, 0))
    predict_file(classifier, source, target)
    assert target.read_bytes() == expected[".jsonl"]


def test_resume_never_starts_again(
    classifier, source, expected, tmp_path, small_chunks, monkeypatch
):
    target = tmp_path / "out.jsonl"
    part = stop_after_two_chunks(classifier, source, target)
    part_path(target).write_bytes(part.replace(b"0.", b"1."))  # would show in the output
    assert predict_file(classifier, source, target, resume="never").rows == ROWS
    assert target.read_bytes() == expected[".jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    # Killed at its start, it leaves no journal of the discarded rows.
    stop_after_two_chunks(classifier, source, target)

    def kill(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(journals, "append", kill)
        with pytest.raises(KilledError):
            predict_file(classifier, source, target, resume="never")
    predict_file(classifier, source, target)
    assert target.read_bytes() == expected[".jsonl"]


def test_a_damaged_part_or_journal_is_refused(classifier, source, tmp_path):
    target = tmp_path / "out.jsonl"
    part = stop_after_two_chunks(classifier, source, target)
    part_path(target).write_bytes(part[:-1])
    with pytest.raises(DataError, match=r"shorter than .*--resume never"):
        predict_file(classifier, source, target)
    part_path(target).unlink()
    with pytest.raises(DataError, match=r"shorter than .*--resume never"):
        predict_file(classifier, source, target)
    journal = journals.journal_path(target)
    for content in ("", "[]", "{}", journal.read_text().replace("64", "64.0")):
        journal.write_text(content)
        with pytest.raises(DataError, match=r"out\.jsonl\.progress\.json"):
            predict_file(classifier, source, target)


def test_every_flipped_bit_of_stopped_work_is_named(classifier, source, tmp_path):
    """And so is a missing file; with --resume never the same command then finishes."""
    target = tmp_path / "out.jsonl"
    stop_after_two_chunks(classifier, source, target)
    rng = random.Random(0)
    for path in (part_path(target), journals.journal_path(target)):
        original = path.read_bytes()
        for _ in range(65):
            content = bytearray(original)
            content[rng.randrange(len(original))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
            with pytest.raises(DataError, match=rf"{re.escape(path.name)}.*--resume never"):
                predict_file(classifier, source, target)
        path.unlink()
        with pytest.raises(DataError, match=r"out\.jsonl.*--resume never"):
            predict_file(classifier, source, target)
        path.write_bytes(original)
    assert predict_file(classifier, source, target, resume="never").rows == ROWS


def test_two_processes_do_not_write_one_file(classifier, source, expected, tmp_path, small_chunks):
    target = tmp_path / "out.jsonl"
    part = stop_after_two_chunks(classifier, source, target)
    with atomic.lock(target):
        for resume in ("auto", "never"):
            with pytest.raises(ConfigError, match="another process"):
                predict_file(classifier, source, target, resume=resume)
    assert part_path(target).read_bytes() == part
    predict_file(classifier, source, target)
    assert target.read_bytes() == expected[".jsonl"]


def test_an_input_that_changes_while_it_is_read_is_refused(classifier, rows, tmp_path, monkeypatch):
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    real = classifier.predict_proba

    def touch(texts):
        os.utime(source, (0, 0))
        return real(texts)

    replace_model(monkeypatch, touch)
    with pytest.raises(DataError, match=r"in\.jsonl: changed .*--resume never"):
        predict_file(classifier, source, target)
    assert not target.exists()


def test_a_fingerprint_covers_everything_that_predictions_depend_on(
    run_folder, classifier, monkeypatch
):
    same = fingerprint(load(run_folder))
    assert same == fingerprint(classifier)
    (group,) = classifier.groups
    path, leaf = next(iter(flatten_params(group.params).items()))
    params = {**flatten_params(group.params), path: leaf.at[(0,) * leaf.ndim].add(1e-3)}
    tokenizer = Tokenizer.from_str(group.tokenizer.to_str())
    tokenizer.add_tokens(["qx"])
    changes = {
        "labels": ("joy", "fear", "rage"),
        "thresholds": classifier.thresholds * 0.9,
        "weights": classifier.weights * 0.5,
        "calibrations": [Calibration("temperature", ({"temperature": 2.0},) * 3)],
        "rules": ("a rule",),  # as a cascade has
        "groups": [group._replace(params=unflatten_dict(params))],
        "tokenizer": tokenizer,
        "experiment": override(group.experiment, {"data.max_windows": 2}),
    }
    fingerprints = {same}
    for name, value in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(classifier, name, value, raising=False)
            fingerprints.add(fingerprint(classifier))
    assert len(fingerprints) == 1 + len(changes)


KILLS = """
import json, os, random, signal, sys, threading
import jax
from jaxclf import predict
from jaxclf.inference import score_file

run, source, folder, cache = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
score_file.CHUNK_ROWS = 8
rng = random.Random(int.from_bytes(os.urandom(4)))


def command(output, kill_after=None):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    append = score_file.journals.append

    def append_and_start_timer(part, target, journal, block, counts):
        if journal.rows >= kill_after and not timer.ident:
            timer.start()
        return append(part, target, journal, block, counts)

    if kill_after is not None:
        # The time of some chunks.
        timer = threading.Timer(rng.uniform(0, 0.01), os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        score_file.journals.append = append_and_start_timer
    words = ["--run", run, "--input", source, "--output", f"{folder}/{output}"]
    os._exit(predict.main(words))


def finished_rows():
    with open(f"{folder}/killed.jsonl.progress.json") as file:
        return json.load(file)["rows"]


codes, rows = [command("expected.jsonl")], [0]
for _ in range(5):
    codes.append(command("killed.jsonl", rows[-1] + rng.randrange(8, 40)))
    rows.append(finished_rows())
codes.append(command("killed.jsonl"))
print(json.dumps([codes, rows]))
"""


@pytest.mark.slow
def test_a_command_killed_five_times_ends_in_the_same_bytes(
    run_folder, source, tmp_path, tmp_path_factory
):
    """By SIGKILL at random moments. The process forks before jax starts any thread."""
    lines = source.read_text(encoding="utf-8").splitlines()
    source = write_rows(tmp_path / "in.jsonl", [json.loads(line) for line in lines] * 6)
    cache = tmp_path_factory.mktemp("cache")
    process = subprocess.run(
        [sys.executable, "-c", KILLS, str(run_folder), str(source), str(tmp_path), str(cache)],
        capture_output=True,
        text=True,
        check=True,
    )
    codes, rows = json.loads(process.stdout)
    exits = [os.waitstatus_to_exitcode(code) for code in codes]
    assert exits == [0, *[-signal.SIGKILL] * 5, 0]
    assert all(later > earlier for earlier, later in itertools.pairwise(rows)), rows
    assert rows[-1] < 6 * ROWS, rows
    assert "Traceback" not in process.stderr
    expected = (tmp_path / "expected.jsonl").read_bytes()
    assert (tmp_path / "killed.jsonl").read_bytes() == expected
    assert expected.count(b"\n") == 6 * ROWS
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_command_and_the_same_command_resumes(
    classifier, source, expected, tmp_path, small_chunks, monkeypatch, capsys, number, code
):
    target = tmp_path / "out.jsonl"
    words = ["--run", "run", "--input", str(source), "--output", str(target)]
    monkeypatch.setattr("jaxclf.inference.load.load", lambda _: classifier)
    real = classifier.predict_proba
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(texts):
        if part_path(target).stat().st_size:
            os.kill(os.getpid(), number)
        return real(texts)

    with monkeypatch.context() as patch:
        replace_model(patch, stop)
        assert predict.main(words) == code
    assert "run the same command again" in capsys.readouterr().err
    assert predict.main(words) == 0
    assert f"{target}: {ROWS} texts, " in capsys.readouterr().err
    assert target.read_bytes() == expected[".jsonl"]
    assert {number: signal.getsignal(number) for number in handlers} == handlers
