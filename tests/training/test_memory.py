"""A device that has no room gets less at a time, and the same update comes out."""

import json

import jax
import pytest

from jaxclf.errors import OutOfMemoryError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import override
from jaxclf.training import memory, run
from jaxclf.training.memory import halved, raise_on_oom
from jaxclf.training.step import make_train_step
from jaxclf.types import Batch, State

ROOM = 5  # texts at a time that the device of these tests has room for


def exhausted(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


@pytest.fixture
def little_room(monkeypatch):
    """A device without room for batches of more than ROOM texts; the sizes that were tried."""
    tried = []

    def make(apply, loss, tx, stats, batch_size, *rest):
        tried.append(batch_size)
        step = make_train_step(apply, loss, tx, stats, batch_size, *rest)
        return step if batch_size <= ROOM else exhausted

    monkeypatch.setattr(run, "make_train_step", make)
    return tried


@pytest.fixture
def experiment(tiny_encoder, tiny_data):
    return override(
        catalog.load("baseline"),
        {
            "encoder.name": str(tiny_encoder),
            **{f"data.{split}": str(path) for split, path in tiny_data.items()},
            "data.max_length": 32,
            "data.max_train_examples": 60,
            "train.epochs": 1,
            "train.checkpoint_every": 1,
            "train.batch_size": 16,
        },
    )


class KilledError(Exception):
    pass


def test_without_room_a_run_is_that_of_smaller_batches(experiment, little_room, tmp_path, capsys):
    def killed(score):
        raise KilledError

    out = tmp_path / "run"
    with pytest.raises(KilledError):
        run.train(experiment, out, report_score=killed, score_test=False)
    assert little_room == [16, 8, 4]
    said = capsys.readouterr().err
    for words in (
        "batch_size=8 optim.gradient_accumulation_steps=2",
        "batch_size=4 optim.gradient_accumulation_steps=4",
    ):
        assert words in said
    config = json.loads((out / "config.json").read_text())
    assert (config["train"]["batch_size"], config["optim"]["gradient_accumulation_steps"]) == (4, 4)

    # The same command goes on with them, to what asking for them gives.
    found = run.train(experiment, out, score_test=False)
    assert little_room == [16, 8, 4, 4]
    asked = override(experiment, {"train.batch_size": 4, "optim.gradient_accumulation_steps": 4})
    whole = run.train(asked, tmp_path / "asked", score_test=False)
    assert found["val"] == whole["val"]


def test_a_run_that_had_room_keeps_its_batches(experiment, tmp_path, monkeypatch):
    real = memory.raise_on_oom

    def once(step):
        calls = 0

        def limited(state, batch):
            nonlocal calls
            calls += 1
            return step(state, batch) if calls < 3 else exhausted()

        return real(limited)

    monkeypatch.setattr(run, "raise_on_oom", once)
    few = override(experiment, {"train.batch_size": 4})
    with pytest.raises(OutOfMemoryError, match="same command goes on"):
        run.train(few, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["batch_size"] == 4


def test_one_text_too_many_is_one_line(experiment, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "make_train_step", lambda *_: exhausted)
    with pytest.raises(OutOfMemoryError, match="for 1 texts at a time, which cannot be halved"):
        run.train(experiment, tmp_path / "run")


def test_halving_keeps_the_texts_of_an_update(experiment):
    found = halved(halved(override(experiment, {"optim.gradient_accumulation_steps": 3})))
    assert (found.train.batch_size, found.optim.gradient_accumulation_steps) == (4, 12)


def test_another_fault_of_the_device_is_not_taken_for_want_of_room():
    def broken(state, batch):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        raise_on_oom(broken)(State(*[None] * 5), Batch(*[None] * 7))
