"""Several devices and several processes train the same model as one device."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import chex
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


def test_rows_are_sharded_and_examples_are_replicated(batch):
    assert jax.device_count() == 2  # conftest
    sharded = distributed.shard_batch(batch)
    for name in ("ids", "positions", "segments", "examples"):
        array = getattr(sharded, name)
        chex.assert_shape(array, (ROWS + 1, LENGTH))
        assert [shard.data.shape for shard in array.addressable_shards] == [(2, LENGTH)] * 2
        np.testing.assert_array_equal(array[:ROWS], getattr(batch, name))
        assert (array[ROWS:] == (SLOTS if name == "examples" else 0)).all()
    for name in ("labels", "label_mask", "weight"):
        shards = getattr(sharded, name).addressable_shards
        assert len(shards) == 2
        for shard in shards:
            np.testing.assert_array_equal(shard.data, getattr(batch, name))


def test_several_devices_give_the_gradient_of_one_device(batch):
    """The rows of one example lie on two devices, so pooling spans both."""

    def apply(params, batch, key, mix):
        hidden = params["table"][batch.ids.reshape(-1)]
        slots = batch.examples.reshape(-1)
        return jax.ops.segment_sum(hidden, slots, num_segments=SLOTS + 1)[:SLOTS]

    table = np.random.default_rng(1).normal(size=(9, 2)).astype(np.float32)
    stats, tx = LabelStats(np.ones(2), np.ones(2)), optax.sgd(1.0)

    def train_one_step(sharding, replicate, shard_batch):
        step = make_train_step(apply, LOSSES["bce"], tx, stats, 4, Regularization(), 1, sharding)
        params = {"table": jax.numpy.asarray(table)}
        state = State(jax.numpy.int32(0), params, tx.init(params), dropout_key(0))
        state, metrics = step(replicate(state), shard_batch(batch))
        return state.params["table"], metrics.loss

    expected, expected_loss = train_one_step(None, lambda state: state, lambda batch: batch)
    sharding = distributed.sharding_for(distributed.REPLICATED)
    trained, loss = train_one_step(sharding, distributed.replicate, distributed.shard_batch)
    assert trained.sharding.is_fully_replicated
    assert len(trained.addressable_shards) == 2
    np.testing.assert_allclose(np.asarray(trained), np.asarray(expected), atol=1e-6)
    assert np.abs(np.asarray(expected) - table).max() > 0.1
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-6)


@pytest.mark.parametrize(
    ("process_id", "num_processes", "coordinator_address", "message"),
    [
        (2, 2, "localhost:1", "--process-id 2"),
        (-1, 2, "localhost:1", "--process-id -1"),
        (0, 2, "localhost", "--coordinator-address 'localhost'.*ADDRESS:PORT"),
    ],
)
def test_invalid_processes_are_errors(process_id, num_processes, coordinator_address, message):
    with pytest.raises(ConfigError, match=message):
        distributed.initialize(process_id, num_processes, coordinator_address)


@pytest.fixture(scope="module")
def start_run(tiny_encoder, tiny_data, tmp_path_factory):
    """Start the command in several processes with one device each: (run folder, processes)."""
    folder = tmp_path_factory.mktemp("processes")

    def start_run(name, num_processes, *options_of_last):
        with socket.socket() as free_socket:
            free_socket.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free_socket.getsockname()[1]}"
        processes = []
        for process_id in range(num_processes):
            cwd = folder / f"process-{process_id}"  # no shared disk
            cwd.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "jaxclf.train", "--exp", "baseline", "--out", name]
            if num_processes > 1:
                command += ["--process-id", str(process_id), "--num-processes", str(num_processes)]
                command += ["--coordinator-address", address]
            command += [
                f"encoder.name={tiny_encoder}",
                *(f"data.{split}={path}" for split, path in tiny_data.items()),
                "data.max_length=32",
                "train.epochs=2",
                "train.batch_size=8",
                "train.checkpoint_every=3",
                # Dropout masks depend on the number of devices.
                "encoder.dropout=0",
                "encoder.attention_dropout=0",
                "head.dropout=0",
                *(options_of_last if process_id == num_processes - 1 else ()),
            ]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            env = {**os.environ, "XLA_FLAGS": ""}
            processes.append(subprocess.Popen(command, cwd=cwd, env=env, **pipes))
        return folder / "process-0" / name, processes

    return start_run


def wait_for(processes, exit_code=0):
    """(stdout, stderr) of each process, after checking its exit code."""
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [exit_code] * len(processes), outputs
    return outputs


@pytest.fixture(scope="module")
def finished_pair(start_run):
    """A finished run of two processes, and their output."""
    run, processes = start_run("pair", 2)
    return run, wait_for(processes)


def read_train_losses(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["epoch/train_loss"] for line in lines if "epoch/train_loss" in line]


@pytest.mark.slow
def test_two_processes_train_the_model_of_one_process(start_run, finished_pair):
    single_run, processes = start_run("single", 1)
    wait_for(processes)
    run, outputs = finished_pair
    assert "report:" in outputs[0][0]
    assert "report:" not in outputs[1][0]
    assert not (run.parent.parent / "process-1" / run.name).exists()
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    losses = read_train_losses(run)
    assert len(losses) == 2
    assert losses == pytest.approx(read_train_losses(single_run), rel=1e-4)
    weights = load_file(run / "model" / "model.safetensors")
    expected = load_file(single_run / "model" / "model.safetensors")
    chex.assert_trees_all_close(weights, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_they_resume(start_run, finished_pair):
    run, processes = start_run("stopped", 2)
    deadline = time.monotonic() + 120
    while not list(run.glob("integrity/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    wait_for(processes, 128 + signal.SIGTERM)
    assert not (run / "report.json").exists()
    _, processes = start_run("stopped", 2)
    assert "resumed after batch" in wait_for(processes)[0][1]
    expected, _ = finished_pair
    assert (run / "report.json").read_text() == (expected / "report.json").read_text()


@pytest.mark.slow
def test_different_experiments_are_an_error_in_all_processes(start_run):
    run, processes = start_run("different", 2, "seed=1")
    for _, stderr in wait_for(processes, 2):
        assert stderr.splitlines()[-1].startswith("error: process 1 has a different experiment")
    assert not run.exists()


@pytest.mark.slow
def test_an_error_of_process_0_is_raised_in_all_processes(start_run):
    run, _ = start_run("occupied", 0)
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    _, processes = start_run("occupied", 2)
    for _, stderr in wait_for(processes, 2):
        assert "occupied is not empty" in stderr.splitlines()[-1]
