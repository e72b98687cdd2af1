"""TensorBoard and a tracker get each figure once, under names that show where it is from."""

import json
import sys
import types

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override
from jaxclf.training.metrics_log import LOG_EVERY, MetricsLog
from jaxclf.training.trackers import hyperparameters, open_tracker
from jaxclf.types import Batch

EXPERIMENT = override(catalog.load("baseline"), {"loss": "focal", "loss.gamma": 3.0, "seed": 7})
EPOCH = {"epoch": 1, "train_loss": 0.5, "score": -0.4, "loss": 0.4, "macro_f1": 0.6, "f1/joy": 0.7}
FIGURES = {
    "train/loss", "train/grad_norm", "train/learning_rate", "train/examples_per_second",
    "train/tokens_per_second", "train/packing_efficiency", "val/loss", "val/macro_f1", "val/f1/joy",
}  # fmt: skip


def make_batch():
    ids, labels = np.ones((1, 4), np.int32), np.ones((1, 1), np.float32)
    return Batch(ids, ids, ids, ids, labels, labels, np.ones(1, np.float32))


def write_log(folder, tracker=None, epoch=EPOCH):
    with MetricsLog(folder, 0, hyperparameters(EXPERIMENT), tracker) as log:
        log.log_batch(0, LOG_EVERY, 0.5, 1.0, 1e-3, make_batch(), 0.1)
        log.log_epoch(LOG_EVERY, epoch)


def read_summaries(folder):
    """Every summary of TensorBoard's event files: (step, tag, value)."""
    summaries = []
    for path in (folder / "tensorboard").iterdir():
        data = path.read_bytes()
        while data:  # length, its checksum, the event, its checksum
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            summaries += [(event.step, value.tag, value) for value in event.summary.value]
    return summaries


def test_tensorboard_has_each_figure_once_and_both_losses_in_one_chart(tmp_path):
    write_log(tmp_path)
    summaries = read_summaries(tmp_path)
    figures = [
        (step, tag) for step, tag, value in summaries if value.WhichOneof("value") == "simple_value"
    ]
    assert sorted(figures) == sorted((LOG_EVERY, name) for name in FIGURES)
    values = {tag: value.simple_value for _, tag, value in summaries}
    assert values["val/f1/joy"] == pytest.approx(0.7)
    (layout,) = [value for _, tag, value in summaries if tag == "custom_scalars__config__"]
    assert all(
        name.encode() in layout.tensor.SerializeToString() for name in ("train/loss", "val/loss")
    )
    hparams = [value for _, tag, value in summaries if tag.startswith("_hparams_")]
    assert any(b"loss.gamma" in value.SerializeToString() for value in hparams)


def test_metrics_jsonl_keeps_its_names(tmp_path):
    write_log(tmp_path)
    batch, epoch = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert batch["loss"] == 0.5
    assert (epoch["epoch/loss"], epoch["epoch/macro_f1"], epoch["epoch/f1/joy"]) == (0.4, 0.6, 0.7)
    assert "epoch/score" not in epoch


class FakeSession:
    def __init__(self, id):
        self.id, self.logged, self.is_finished = id, [], False
        self.info = types.SimpleNamespace(run_id=id)

    def log(self, figures, step):
        self.logged.append((step, figures))

    def finish(self):
        self.is_finished = True


def fake_library(name, sessions):
    """A module with the functions of the tracker's library that are used."""

    def start(run_id, **options):
        sessions.append((FakeSession(run_id or "new"), run_id, options))
        return sessions[-1][0]

    module = types.ModuleType(name)
    if name == "wandb":
        module.init = lambda id, **options: start(id, **options)
    else:
        module.set_experiment = lambda project: None
        module.start_run = start
        module.log_params = lambda values: sessions[-1][2].update(config=values)
        module.log_metrics = lambda figures, step: sessions[-1][0].log(figures, step)
        module.end_run = lambda: sessions[-1][0].finish()
    return module


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_gets_the_figures_of_tensorboard(name, tmp_path, monkeypatch):
    sessions = []
    monkeypatch.setitem(sys.modules, name, fake_library(name, sessions))
    experiment = override(EXPERIMENT, {"train.track": name})
    write_log(tmp_path, open_tracker(tmp_path, experiment), EPOCH | {"map": float("nan")})
    session, run_id, options = sessions[0]
    assert run_id is None
    assert options["config"]["loss"] == "focal"
    assert options["config"]["loss.gamma"] == 3.0
    assert options["config"]["seed"] == 7
    assert session.is_finished
    names = [figure for _, figures in session.logged for figure in figures]
    assert sorted(names) == sorted(FIGURES)
    assert {step for step, _ in session.logged} == {LOG_EVERY}
    open_tracker(tmp_path, experiment)  # of a resumed run
    assert sessions[1][1] == "new"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named_and_never_imported_otherwise(
    name, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, name, None)
    assert open_tracker(tmp_path, EXPERIMENT) is None
    with pytest.raises(ConfigError, match=f"pip install 'jaxclf.{name}"):
        open_tracker(tmp_path, override(EXPERIMENT, {"train.track": name}))
