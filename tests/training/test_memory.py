"""Out of memory: a run continues with smaller micro-batches and the same updates."""

import json

import jax
import pytest

from jaxclf.errors import OutOfMemoryError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.training import run
from jaxclf.training.memory import halve_micro_batch, raise_on_oom
from jaxclf.training.step import make_train_step
from jaxclf.types import Batch, State

LARGEST = 5  # the largest batch that the device of these tests has memory for


def run_out_of_memory(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


@pytest.fixture
def tried_sizes(monkeypatch):
    """The batch sizes tried on a device with memory for LARGEST texts."""
    sizes = []

    def make_limited_step(apply, loss, tx, stats, batch_size, *args):
        sizes.append(batch_size)
        step = make_train_step(apply, loss, tx, stats, batch_size, *args)
        return step if batch_size <= LARGEST else run_out_of_memory

    monkeypatch.setattr(run, "make_train_step", make_limited_step)
    return sizes


@pytest.fixture(scope="module")
def experiment(tiny_overrides):
    changes = {
        "data.max_train_examples": 60,
        "train.epochs": 1,
        "train.checkpoint_every": 1,
        "train.batch_size": 16,
    }
    return override(catalog.load("baseline"), {**tiny_overrides, **changes})


class KilledError(Exception):
    pass


@pytest.mark.slow
def test_a_run_halves_its_batches_and_resumes_with_them(experiment, tried_sizes, tmp_path, caplog):
    def kill(score, done):
        raise KilledError

    out = tmp_path / "run"
    with pytest.raises(KilledError):
        run.train(experiment, out, report_score=kill, score_test=False)
    assert tried_sizes == [16, 8, 4]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for message, size, steps in zip(warnings, (8, 4), (2, 4), strict=True):
        assert f"train.batch_size={size} optim.gradient_accumulation_steps={steps}" in message
    config = json.loads((out / "config.json").read_text())
    assert (config["train"]["batch_size"], config["optim"]["gradient_accumulation_steps"]) == (4, 4)

    resumed = run.train(experiment, out, score_test=False)
    assert tried_sizes == [16, 8, 4, 4]
    smaller = override(experiment, {"train.batch_size": 4, "optim.gradient_accumulation_steps": 4})
    assert run.train(smaller, tmp_path / "smaller", score_test=False) == resumed


@pytest.mark.slow
def test_a_run_with_a_checkpoint_keeps_its_batches(experiment, tmp_path, monkeypatch):
    def fail_at_third_step(step):
        calls = []

        def limited_step(state, batch):
            calls.append(batch)
            return step(state, batch) if len(calls) < 3 else run_out_of_memory()

        return raise_on_oom(limited_step)

    monkeypatch.setattr(run, "raise_on_oom", fail_at_third_step)
    with pytest.raises(OutOfMemoryError, match=f"resume from {tmp_path}"):
        run.train(override(experiment, {"train.batch_size": 4}), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["batch_size"] == 4


def test_a_batch_of_one_text_cannot_be_halved(experiment, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "make_train_step", lambda *_: run_out_of_memory)
    with pytest.raises(OutOfMemoryError, match=r"1 texts.*cannot be halved"):
        run.train(experiment, tmp_path / "run")


def test_halving_keeps_the_number_of_texts_of_an_update(experiment):
    experiment = override(experiment, {"optim.gradient_accumulation_steps": 3})
    quarter = halve_micro_batch(halve_micro_batch(experiment))
    assert (quarter.train.batch_size, quarter.optim.gradient_accumulation_steps) == (4, 12)


def test_errors_of_the_device_without_its_memory_are_raised_unchanged():
    def fail(state, batch):
        raise jax.errors.JaxRuntimeError("INTERNAL: unknown")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        raise_on_oom(fail)(State(*[None] * 5), Batch(*[None] * 7))
