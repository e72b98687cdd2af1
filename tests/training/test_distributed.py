"""Several devices and hosts train the same model as one device does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Regularization
from jaxclf.training import distributed
from jaxclf.training.losses import LOSSES
from jaxclf.training.step import dropout_key, make_train_step
from jaxclf.types import Batch, LabelStats, State

ROWS, LENGTH, SLOTS = 3, 4, 5


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 9, (ROWS, LENGTH), np.int32)
    examples = np.array([[0, 0, 1, 1], [2, 2, 2, 2], [0, 3, SLOTS, SLOTS]], np.int32)
    labels = rng.integers(0, 2, (SLOTS, 2)).astype(np.float32)
    weight = np.array([1, 1, 1, 1, 0], np.float32)
    return Batch(ids, ids, np.minimum(ids, 1), examples, labels, np.ones_like(labels), weight)


def test_a_batch_lies_over_all_devices_and_its_examples_everywhere(batch):
    assert jax.device_count() == 2  # conftest
    found = distributed.shard_batch(batch)
    for name in ("ids", "positions", "segments", "examples"):
        part, whole = getattr(found, name), getattr(batch, name)
        assert part.shape == (ROWS + 1, LENGTH)
        assert [shard.data.shape for shard in part.addressable_shards] == [(2, LENGTH)] * 2
        np.testing.assert_array_equal(part[:ROWS], whole)
        assert (part[ROWS:] == (SLOTS if name == "examples" else 0)).all()
    for name in ("labels", "known", "weight"):
        part = getattr(found, name)
        assert len(part.addressable_shards) == 2
        for shard in part.addressable_shards:
            np.testing.assert_array_equal(shard.data, getattr(batch, name))


def test_several_devices_give_the_gradient_of_one(batch):
    """Rows of one example lie on two devices, and a pool is over both."""

    def apply(params, batch, key, mix):
        hidden = params["table"][batch.ids.reshape(-1)]
        slots = batch.examples.reshape(-1)
        return jax.ops.segment_sum(hidden, slots, num_segments=SLOTS + 1)[:SLOTS]

    table = np.random.default_rng(1).normal(size=(9, 2)).astype(np.float32)
    found = []
    for many in (False, True):
        placed = distributed.sharding_for(distributed.EVERYWHERE) if many else None
        stats, tx = LabelStats(np.ones(2), np.ones(2)), optax.sgd(1.0)
        step = make_train_step(apply, LOSSES["bce"], tx, stats, 4, Regularization(), 1, placed)
        params = {"table": jax.numpy.asarray(table)}
        state = State(jax.numpy.int32(0), params, tx.init(params), dropout_key(0))
        state = distributed.replicate(state) if many else state
        state, metrics = step(state, distributed.shard_batch(batch) if many else batch)
        if many:
            assert state.params["table"].sharding.is_fully_replicated
            assert len(state.params["table"].addressable_shards) == 2
        found.append((np.asarray(state.params["table"]), float(metrics.loss)))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-6)
    assert np.abs(found[0][0] - table).max() > 0.1
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-6)


@pytest.mark.parametrize(
    ("host", "coordinator", "said"),
    [
        ("2/2", "localhost:1", "give I/N"),
        ("-1/2", "localhost:1", "give I/N"),
        ("first", "localhost:1", "give I/N"),
        ("0/2", "localhost", "ADDRESS:PORT"),
    ],
)
def test_what_names_no_host_is_refused(host, coordinator, said):
    with pytest.raises(ConfigError, match=said):
        distributed.initialize(host, coordinator)


@pytest.fixture(scope="module")
def on_hosts(tiny_encoder, tiny_data, tmp_path_factory):
    """Start the real command on so many hosts of one device each: (out, their processes)."""
    folder = tmp_path_factory.mktemp("hosts")

    def begin(name, count, *of_last):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            at = f"127.0.0.1:{free.getsockname()[1]}"
        started = []
        for host in range(count):
            where = folder / f"host{host}"  # no common disk
            where.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "jaxclf.train", "--exp", "baseline", "--out", name]
            if count > 1:
                command += [
                    "--process-id",
                    str(host),
                    "--num-processes",
                    str(count),
                    "--coordinator-address",
                    at,
                ]
            command += [
                f"encoder.name={tiny_encoder}",
                *(f"data.{split}={path}" for split, path in tiny_data.items()),
                "data.max_length=32",
                "train.epochs=2",
                "train.batch_size=8",
                "train.checkpoint_every=3",
                # Several devices draw dropout by another generator than one does.
                "encoder.dropout=0",
                "encoder.attention_dropout=0",
                "head.dropout=0",
                *(of_last if host == count - 1 else ()),
            ]
            started.append(
                subprocess.Popen(
                    command,
                    cwd=where,
                    env={**os.environ, "XLA_FLAGS": ""},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return folder / "host0" / name, started

    return begin


def ended(started, code=0):
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [code] * len(started), said
    return said


@pytest.fixture(scope="module")
def two(on_hosts):
    """A run of two hosts, and what each said."""
    run, processes = on_hosts("two", 2)
    return run, ended(processes)


def test_two_hosts_train_what_one_does(on_hosts, two):
    one, process = on_hosts("one", 1)
    ended(process)
    two, said = two
    assert "report:" in said[0][0]
    assert "report:" not in said[1][0]
    assert not (two.parent.parent / "host1" / "two").exists()
    assert json.loads((two / "environment.json").read_text())["hosts"] == 2
    losses = [
        [
            line["epoch/train_loss"]
            for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
            if "epoch/train_loss" in line
        ]
        for run in (one, two)
    ]
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[0]) == 2
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=1e-4, err_msg=name)


def test_hosts_stop_together_and_go_on(on_hosts, two):
    torn, processes = on_hosts("torn", 2)
    until = time.monotonic() + 120
    while not list(torn.glob("integrity/*.json")) and time.monotonic() < until:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)  # not the first
    ended(processes, 128 + signal.SIGTERM)
    assert not (torn / "report.json").exists()
    _, processes = on_hosts("torn", 2)
    said = ended(processes)
    assert "resumed after batch" in said[0][1]
    assert (torn / "report.json").read_text() == (two[0] / "report.json").read_text()


def test_hosts_that_differ_all_say_so(on_hosts):
    out, processes = on_hosts("differ", 2, "seed=1")
    for _, said in ended(processes, 2):
        assert said.splitlines()[-1].startswith(
            "error: host 1 has other data or another experiment"
        )
    assert not out.exists()


def test_what_the_first_refuses_all_refuse(on_hosts):
    out, _ = on_hosts("full", 0)
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    _, processes = on_hosts("full", 2)
    for _, said in ended(processes, 2):
        assert "full is not empty and holds no run" in said.splitlines()[-1]
