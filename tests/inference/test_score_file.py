"""Scoring files: every form, in order, at flat memory, and to the same bytes however often it was
killed."""

import csv
import itertools
import json
import os
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
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from jaxclf import predict
from jaxclf.decisions.calibration import Calibration, to_json
from jaxclf.decisions.provenance import make_provenance
from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.overrides import override
from jaxclf.inference import journal as journals
from jaxclf.inference import score_file
from jaxclf.inference.classifier import Classifier
from jaxclf.inference.load import load
from jaxclf.inference.members import param_shapes
from jaxclf.inference.score_file import Shard, chunks, fingerprint, parse_shard, predict_file
from jaxclf.model.inference import length_balanced_order, prediction_shape
from jaxclf.model.storage.saved_model import SavedModel, open_encoder, save_model
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text import formats
from jaxclf.text.packing import example_count, plan
from jaxclf.text.reader import Parsed, read, stream
from jaxclf.types import Tokens, Windows

LABELS = ("joy", "fear", "anger")
ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
ROWS = 100
# Probabilities are written with six decimals, and may differ by 1e-6 between companies.
WRITTEN = 2e-6


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
def run(tiny_encoder, tiny_experiment, tmp_path_factory):
    """The folder of a random model, and its classifier."""
    folder = tmp_path_factory.mktemp("scoring") / "run"
    hf, tokenizer = open_encoder(tiny_encoder)
    rng = np.random.default_rng(0)
    shapes = flatten_params(param_shapes(tiny_experiment, hf, len(LABELS)))
    params = {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in shapes.items()}
    # In the midst of what this model says, so that each label is given to some.
    values = zip(LABELS, (0.0165, 0.185, 0.285), strict=True)
    record = {name: {"value": value, "split": "val", "rule": "fixed"} for name, value in values}
    curves = to_json(Calibration("temperature", ({"temperature": 4.0},) * 3))
    provenance = make_provenance(
        {}, {"average": "best", "calibration": "none", "threshold": "fixed"}
    )
    handover = SavedModel(
        tiny_experiment, hf, LABELS, record, curves, provenance, unflatten_dict(params)
    )
    save_model(folder / "model", handover, tokenizer, "a card")
    return folder, load(folder)


@pytest.fixture(scope="module")
def classifier(run):
    return run[1]


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
def whole(classifier, source, tmp_path_factory):
    """What comes out where nothing intervenes, by ending."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, "CHUNK_ROWS", 32)
        for ending in score_file.WRITERS:
            assert predict_file(classifier, source, folder / f"whole{ending}") == ROWS
    return {ending: (folder / f"whole{ending}").read_bytes() for ending in score_file.WRITERS}


def answering(patch, answer):
    """texts -> probabilities, in place of the model."""
    patch.setattr(Classifier, "predict_proba", lambda _, texts: answer(texts))


def parsed(content):
    lines = [json.loads(line) for line in content.decode().splitlines()]
    probs = np.array([list(line["probabilities"].values()) for line in lines])
    return [line["id"] for line in lines], [line["labels"] for line in lines], probs


# What is written


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_form_gives_the_same_bytes(classifier, rows, whole, tmp_path, small_chunks, ending):
    path = write_rows(tmp_path / f"in{ending}", rows)
    predict_file(classifier, path, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == whole[".jsonl"]


def test_rows_are_in_order_and_as_alone(classifier, rows, whole):
    ids, labels, probs = parsed(whole[".jsonl"])
    assert ids == [row["id"] or str(index) for index, row in enumerate(rows)]
    for index in (0, 7, 8, 40, ROWS - 1):
        (alone,) = classifier.predict_proba([rows[index]["text"]])
        np.testing.assert_allclose(probs[index], alone, atol=WRITTEN, rtol=0)
        assert labels[index] == classifier.predict([rows[index]["text"]])[0]
    table = list(csv.DictReader(whole[".csv"].decode().splitlines()))
    assert [row["id"] for row in table] == ids
    assert [[name for name in LABELS if row[name] == "1"] for row in table] == labels
    assert [[float(row[f"probability_{name}"]) for name in LABELS] for row in table] == (
        probs.tolist()
    )
    assert {len(names) for names in labels} >= {0, 1, 2}


@pytest.mark.parametrize("count", [2, 7])
def test_shards_together_are_the_whole(classifier, source, whole, tmp_path, small_chunks, count):
    parts = []
    for index in range(count):
        target = tmp_path / f"{index}.jsonl"
        predict_file(classifier, source, target, Shard(index, count))
        parts.append(target.read_bytes())
    sizes = [part.count(b"\n") for part in parts]
    assert max(sizes) - min(sizes) <= 1
    ids, labels, probs = parsed(b"".join(parts))
    expected_ids, expected_labels, expected_probs = parsed(whole[".jsonl"])
    assert (ids, labels) == (expected_ids, expected_labels)
    np.testing.assert_allclose(probs, expected_probs, atol=WRITTEN, rtol=0)


def test_a_shard_may_be_empty(classifier, rows, tmp_path):
    path, written = write_rows(tmp_path / "in.jsonl", rows[:2]), []
    for index in range(3):
        predict_file(classifier, path, tmp_path / "out.csv", Shard(index, 3))
        written.append((tmp_path / "out.csv").read_text().splitlines())
    assert len({lines[0] for lines in written}) == 1
    assert [lines[1:2] == [] for lines in written] == [True, False, False]


def test_an_id_may_stand_twice(classifier, tmp_path):
    path = write_rows(tmp_path / "in.csv", [{"id": "a", "text": "one"}, {"id": "a", "text": "two"}])
    assert predict_file(classifier, path, tmp_path / "out.csv") == 2


# What it costs


@given(
    sizes=st.lists(st.integers(1, 9), max_size=40),
    most=st.integers(1, 6),
    characters=st.integers(1, 30),
)
def test_windows_hold_every_row_once_and_forget_what_came_before(sizes, most, characters):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, "CHUNK_ROWS", most)
        patch.setattr(score_file, "CHUNK_CHARACTERS", characters)
        rows = [Parsed(index, str(index), "x" * size, "", {}) for index, size in enumerate(sizes)]
        found = list(chunks(rows))
        assert [row for window in found for row in window] == rows
        for window in found:
            assert 1 <= len(window) <= most
            assert sum(len(row.text) for row in window[:-1]) < characters
        done = 0
        for index, window in enumerate(found):
            assert list(chunks(rows[done:])) == found[index:]
            done += len(window)


@pytest.mark.parametrize("ending", ENDINGS[:4])
def test_a_long_file_is_not_held(tmp_path, ending):
    text = "word " * 200
    path = write_rows(tmp_path / f"in{ending}", [{"text": f"{row} {text}"} for row in range(1000)])
    assert path.stat().st_size > 1_000_000
    tracemalloc.start()
    try:
        for found, row in enumerate(stream(path)):
            assert row.text.startswith(f"{found} ")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 999
    assert peak < 400_000


def test_a_row_group_is_not_held(tmp_path):
    """Of texts that hardly compress: a larger file takes Arrow no more memory."""
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


def test_a_long_file_is_scored_in_no_more_memory(classifier, tmp_path, monkeypatch, small_chunks):
    answering(monkeypatch, lambda texts: np.full((len(texts), 3), 0.5, np.float32))
    peaks = []
    for count in (300, 1500):
        path = write_rows(tmp_path / "in.jsonl", [{"text": f"text {row}"} for row in range(count)])
        tracemalloc.start()
        try:
            assert predict_file(classifier, path, tmp_path / "out.jsonl") == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # 1,200 rows more, were they held, would take 360 kB.
    assert peaks[1] < peaks[0] + 100_000, peaks


@pytest.mark.parametrize("length", [64, 128])
def test_dealt_texts_fill_the_rows(length):
    """Lengths as of GoEmotions: 19 tokens on average, here and there a long one."""
    rng = np.random.default_rng(0)
    sizes = np.clip(rng.lognormal(2.8, 0.55, 2000), 3, length).astype(np.int32)
    tokens = ragged(sizes)
    shape = prediction_shape(Windows(length, 6, 0))
    order = length_balanced_order(tokens, shape)
    assert sorted(order) == list(range(len(sizes)))
    by_length = np.argsort(-sizes).tolist()
    batches, in_order, longest_first = (
        len(list(plan(tokens, one, shape))) for one in (order, range(len(sizes)), by_length)
    )
    assert batches == np.ceil(sizes.sum() / (shape.rows * shape.length))
    assert batches < in_order < longest_first


def test_dealt_texts_of_a_word_fill_the_slots():
    tokens, shape = ragged(np.full(3000, 3, np.int32)), prediction_shape(Windows(64, 1, 0))
    assert len(list(plan(tokens, length_balanced_order(tokens, shape), shape))) == -(
        -3000 // shape.slots
    )
    assert length_balanced_order(ragged(np.zeros(0, np.int32)), shape) == []


def ragged(sizes):
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    tokens = Tokens(np.zeros(sizes.sum(), np.int32), starts, np.arange(len(sizes), dtype=np.int32))
    assert example_count(tokens) == len(sizes)
    return tokens


# What is refused


def test_a_bad_row_is_named_before_a_row_is_scored(classifier, rows, tmp_path):
    path = tmp_path / "in.jsonl"
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join([*lines, '{"text": " "}', *lines, '{"txt": "a"}']))
    with pytest.raises(DataError) as refusal:
        predict_file(classifier, path, tmp_path / "out.jsonl")
    assert str(refusal.value).splitlines() == [
        f"{path}:{ROWS + 1}: the text is empty; remove the row",
        f"{path}:{2 * ROWS + 2}: no 'text' column or key",
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_nothing_but_faults_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": 5}\n' * 25)
    with pytest.raises(DataError) as refusal:
        list(stream(path))
    lines = str(refusal.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and perhaps more"


@pytest.mark.parametrize("content", ["", "[]", "\n\n"])
def test_a_file_of_no_rows_is_refused(classifier, tmp_path, content):
    path = tmp_path / "in.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"in\.json:1: no rows"):
        predict_file(classifier, path, tmp_path / "out.jsonl")


def test_the_input_is_never_the_output(classifier, rows, tmp_path):
    path = write_rows(tmp_path / "in.jsonl", rows)
    with pytest.raises(ConfigError, match="is the input"):
        predict_file(classifier, path, path)
    with pytest.raises(ConfigError, match=r"\.jsonl or \.csv"):
        predict_file(classifier, path, tmp_path / "out.txt")
    with pytest.raises(ConfigError, match="does not exist"):
        predict_file(classifier, path, tmp_path / "nowhere" / "out.csv")
    with pytest.raises(DataError, match="no such file"):
        predict_file(classifier, tmp_path / "no.csv", tmp_path / "out.csv")


def test_a_shard_is_counted_from_0():
    assert parse_shard("0/4") == Shard(0, 4)
    assert parse_shard("3/4") == Shard(3, 4)
    for text in ("4/4", "-1/4", "1", "a/b", "0/0", "1/2/3", "", "²/4"):
        with pytest.raises(ConfigError, match="0/4 to 3/4"):
            parse_shard(text)


# Where it was cut short


class Killed(BaseException):
    """In place of a kill: nothing may catch it."""


def dying(patch, at, log):
    """Die before the at-th time that anything is made to last, and where it has been written half
    only."""
    count = 0

    def deadly(owner, name):
        real = getattr(owner, name)

        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count == at:
                log.append(name)
                raise Killed
            return real(*args, **kwargs)

        patch.setattr(owner, name, wrapped)

    deadly(journals.os, "fsync")
    deadly(Path, "replace")
    deadly(Path, "unlink")
    deadly(journals, "append")


@pytest.mark.parametrize("ending", score_file.WRITERS)
def test_wherever_it_dies_it_goes_on_to_the_same_bytes(
    classifier, source, tmp_path, monkeypatch, ending
):
    """With two windows."""
    monkeypatch.setattr(score_file, "CHUNK_ROWS", 60)
    predict_file(classifier, source, tmp_path / f"whole{ending}")
    whole = (tmp_path / f"whole{ending}").read_bytes()
    scored = []
    real = classifier.predict_proba
    answering(monkeypatch, lambda texts: (scored.append(len(texts)), real(texts))[1])
    saved, log = [], []
    for at in range(1, 100):
        folder = tmp_path / str(at)
        folder.mkdir()
        target = folder / f"out{ending}"
        died = len(log)
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, at, log)
            try:
                predict_file(classifier, source, target)
            except Killed:
                assert not target.exists() or log[-1] == "unlink"
        if len(log) == died:
            break
        part = part_path(target)
        if part.exists():
            with part.open("ab") as file:
                file.write(b"half a li")
        scored.clear()
        assert predict_file(classifier, source, target) == ROWS
        assert target.read_bytes() == whole
        assert [path.name for path in folder.iterdir()] == [target.name]
        saved.append(ROWS - sum(scored))
    assert {"fsync", "replace", "unlink", "append"} == set(log)
    # What was in the journal is not scored again.
    assert sorted(set(saved)) == [0, 60, 100]
    assert saved == sorted(saved)


def half_done(classifier, source, target, shard=score_file.WHOLE_FILE):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, "CHUNK_ROWS", 32)
        real, calls = classifier.predict_proba, []

        def twice(texts):
            calls.append(texts)
            if len(calls) == 3:
                raise Killed
            return real(texts)

        answering(patch, twice)
        with pytest.raises(Killed):
            predict_file(classifier, source, target, shard)
    return part_path(target).read_bytes()


def test_other_work_is_not_mixed_in(classifier, rows, whole, tmp_path, small_chunks, monkeypatch):
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    before = half_done(classifier, source, target)
    assert before.count(b"\n") == 64

    def refused(match, shard=score_file.WHOLE_FILE):
        with pytest.raises(
            ConfigError, match=f"out.jsonl was begun with another {match}; --resume"
        ):
            predict_file(classifier, source, target, shard)
        assert part_path(target).read_bytes() == before

    refused("shard", Shard(0, 2))
    with monkeypatch.context() as patch:
        patch.setattr(classifier, "thresholds", classifier.thresholds + 1e-9)
        refused("model")
    content = source.read_text()
    source.write_text(content.replace("ok", "no"))
    refused("input")
    # The same content under another time is the same input.
    source.write_text(content)
    os.utime(source, (0, 0))
    predict_file(classifier, source, target)
    assert target.read_bytes() == whole[".jsonl"]


def test_never_begins_anew(classifier, source, whole, tmp_path, small_chunks, monkeypatch):
    target = tmp_path / "out.jsonl"
    half_done(classifier, source, target)
    # Rows of another model, were they kept, would show.
    other = part_path(target).read_bytes().replace(b"0.", b"1.")
    part_path(target).write_bytes(other)
    assert predict_file(classifier, source, target, resume="never") == ROWS
    assert target.read_bytes() == whole[".jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_never_leaves_no_journal_of_what_it_threw_away(
    classifier, source, whole, tmp_path, small_chunks, monkeypatch
):
    target = tmp_path / "out.jsonl"
    half_done(classifier, source, target)

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(journals, "append", die)
        with pytest.raises(Killed):
            predict_file(classifier, source, target, resume="never")
    predict_file(classifier, source, target)
    assert target.read_bytes() == whole[".jsonl"]


def test_a_part_or_a_journal_that_was_tampered_with_is_refused(classifier, source, tmp_path):
    target = tmp_path / "out.jsonl"
    before = half_done(classifier, source, target)
    part_path(target).write_bytes(before[:-1])
    with pytest.raises(DataError, match=r"shorter than .*--resume never"):
        predict_file(classifier, source, target)
    part_path(target).unlink()
    with pytest.raises(DataError, match=r"shorter than .*--resume never"):
        predict_file(classifier, source, target)
    for content in ("", "[]", "{}", journals.journal_path(target).read_text().replace("64", "64.0")):
        journals.journal_path(target).write_text(content)
        with pytest.raises(DataError, match=r"out\.jsonl\.progress\.json"):
            predict_file(classifier, source, target)


def test_two_processes_do_not_write_one_file(classifier, source, whole, tmp_path, small_chunks):
    target = tmp_path / "out.jsonl"
    before = half_done(classifier, source, target)
    with part_path(target).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for resume in ("auto", "never"):
            with pytest.raises(ConfigError, match="another process is writing"):
                predict_file(classifier, source, target, resume=resume)
    assert part_path(target).read_bytes() == before
    predict_file(classifier, source, target)
    assert target.read_bytes() == whole[".jsonl"]


def test_a_file_that_changes_while_it_is_read_is_no_result(classifier, rows, tmp_path, monkeypatch):
    source, target = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    real = classifier.predict_proba

    def touch(texts):
        os.utime(source, (0, 0))
        return real(texts)

    answering(monkeypatch, touch)
    with pytest.raises(DataError, match="changed while it was read; --resume never"):
        predict_file(classifier, source, target)
    assert not target.exists()


def test_a_fingerprint_is_of_all_that_answers_depend_on(run, monkeypatch):
    folder, classifier = run
    same = fingerprint(load(folder))
    assert same == fingerprint(classifier)
    others = {
        "labels": ("joy", "fear", "rage"),
        "thresholds": classifier.thresholds * 0.9,
        "weights": classifier.weights * 0.5,
        "calibrations": [Calibration("temperature", ({"temperature": 2.0},) * 3)],
        "rules": ("a stage of its own",),  # as a cascade has
    }
    (group,) = classifier.groups
    path, leaf = next(iter(flatten_params(group.params).items()))
    params = {**flatten_params(group.params), path: leaf.at[(0,) * leaf.ndim].add(1e-3)}
    tokenizer = Tokenizer.from_str(group.tokenizer.to_str())
    tokenizer.add_tokens(["qx"])
    experiment = override(group.experiment, {"data.max_windows": 3})
    others["groups"] = [group._replace(params=unflatten_dict(params))]
    others["tokenizer"], others["experiment"] = tokenizer, experiment
    found = {same}
    for name, value in others.items():
        with monkeypatch.context() as patch:
            patch.setattr(classifier, name, value, raising=False)
            found.add(fingerprint(classifier))
    assert len(found) == 1 + len(others)


KILLS = """
import json, os, random, signal, sys, threading
import jax
from jaxclf import predict
from jaxclf.experiment.overrides import override
from jaxclf.inference import score_file as scoring

run, source, folder, cache = sys.argv[1:]
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
scoring.CHUNK_ROWS = 8
rng = random.Random(int.from_bytes(os.urandom(4)))


def command(output, after=None):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    append = scoring.journals.append

    def watched(part, target, found, block, rows):
        if found.rows >= after and not timer.ident:
            timer.start()
        return append(part, target, found, block, rows)

    if after is not None:
        # Within the time of some windows.
        timer = threading.Timer(rng.uniform(0, 0.01), os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        scoring.journals.append = watched
    sys.argv = ["predict", "--run", run, "--input", source, "--output", f"{folder}/{output}"]
    os._exit(predict.main())


def rows_done():
    with open(f"{folder}/torn.jsonl.progress.json") as file:
        return json.load(file)["rows"]


ends, done = [command("whole.jsonl")], [0]
for _ in range(5):
    ends.append(command("torn.jsonl", done[-1] + rng.randrange(8, 40)))
    done.append(rows_done())
ends.append(command("torn.jsonl"))
print(json.dumps([ends, done]))
"""


def test_killed_five_times_the_command_ends_in_the_same_bytes(
    run, source, tmp_path, tmp_path_factory
):
    """By SIGKILL at random moments; jax is not at work yet where the process forks."""
    lines = source.read_text(encoding="utf-8").splitlines()
    source = write_rows(tmp_path / "in.jsonl", [json.loads(line) for line in lines] * 6)
    cache = tmp_path_factory.mktemp("cache")
    answer = subprocess.run(
        [sys.executable, "-c", KILLS, str(run[0]), str(source), str(tmp_path), str(cache)],
        capture_output=True,
        text=True,
        check=True,
    )
    ends, done = json.loads(answer.stdout)
    exits = [os.waitstatus_to_exitcode(end) for end in ends]
    assert exits == [0, *[-signal.SIGKILL] * 5, 0]
    assert all(later > earlier for earlier, later in itertools.pairwise(done)), done
    assert done[-1] < 6 * ROWS, done
    assert "Traceback" not in answer.stderr
    whole = (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "torn.jsonl").read_bytes() == whole
    assert whole.count(b"\n") == 6 * ROWS
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_command_which_goes_on(
    classifier, source, whole, tmp_path, small_chunks, monkeypatch, capsys, number, code
):
    target = tmp_path / "out.jsonl"
    words = ["predict", "--run", "run", "--input", str(source), "--output", str(target)]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr("jaxclf.inference.load.load", lambda _: classifier)
    real = classifier.predict_proba

    def stopped(texts):
        if part_path(target).stat().st_size:
            os.kill(os.getpid(), number)
        return real(texts)

    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with monkeypatch.context() as patch:
            answering(patch, stopped)
            assert predict.main() == code
        assert "stopped; " in capsys.readouterr().err
        assert predict.main() == 0
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert capsys.readouterr().err.endswith(f"{ROWS} rows -> {target}\n")
    assert target.read_bytes() == whole[".jsonl"]


# How files are read

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
    chunk=st.integers(1, 40),
    cut=st.integers(0, 9),
    ending=st.sampled_from(ENDINGS[:4]),
)
def test_where_a_chunk_of_the_file_ends_is_not_to_be_seen(
    tmp_path_factory, lines, chunk, cut, ending
):
    path = tmp_path_factory.getbasetemp() / f"chunks{ending}"
    joined = {
        ".json": "[\n" + ",\n ".join(lines) + "]\n",
        ".jsonl": "\n".join(lines),
        ".csv": 'text,x\n"' + '",1\n"'.join(lines),
        ".tsv": "text\n" + "\n".join(lines),
    }[ending]
    path.write_bytes(joined[: len(joined) - cut].encode())

    def told():
        try:
            return list(stream(path)), read(path, labelled=False)
        except DataError as error:
            return str(error)

    usual = repr(told())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "CHUNK", chunk)
        assert repr(told()) == usual
