"""Comparison of runs: reading them, refusing pairs that do not match, the verdicts."""

import json

import numpy as np
import pytest

from jaxclf.decisions.compare_runs import compare_systems, comparison_record, read_system
from jaxclf.decisions.predictions import save_predictions
from jaxclf.decisions.thresholds import auto, per_label
from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.experiment.overrides import to_dict
from jaxclf.types import Predictions

NAMES = ("joy", "fear")
ROWS = 400


def make_run(folder, skill, seed=0, thresholds=(0.5, 0.4), names=NAMES, shift=0):
    """The folder of a run; all runs have the same labels."""
    truth = np.random.default_rng(7).random((ROWS, 2)) < 0.3
    noise = np.random.default_rng([8, seed]).random((ROWS, 2))
    probs = (skill * truth + (1 - skill) * noise).astype(np.float32)
    labels = truth.astype(np.float32)
    for split in ("val", "test"):
        ids = np.array([f"{split}-{row + shift}" for row in range(ROWS)])
        save_predictions(
            folder / "predictions" / f"{split}.npz", Predictions(ids, probs, labels, split)
        )
    (folder / "labels.json").write_text(json.dumps(names))
    if thresholds:
        record = {name: {"value": value} for name, value in zip(names, thresholds, strict=True)}
        (folder / "thresholds.json").write_text(json.dumps(record))
    return folder


def test_every_run_is_decided_by_its_thresholds(tmp_path):
    folders = [make_run(tmp_path / str(seed), 0.4, seed) for seed in range(3)]
    system = read_system("a", folders, "test")
    assert len(system.runs) == 3
    probs, decided = system.runs[1]
    np.testing.assert_array_equal(decided, probs >= [0.5, 0.4])
    half = read_system("a", folders, "test", half=True)
    np.testing.assert_array_equal(half.runs[1][1], probs >= 0.5)


def test_without_thresholds_they_are_fitted_on_val(tmp_path):
    folder = make_run(tmp_path / "run", 0.4, thresholds=None)
    ((probs, decided),) = read_system("a", [folder], "test").runs
    labels = read_system("a", [folder], "val").labels
    np.testing.assert_array_equal(decided, probs >= auto(labels, probs))
    # A configuration beside them may name another rule.
    experiment = Experiment(Data("a", "b", "c"), threshold=Spec("per_label"))
    (folder / "config.json").write_text(json.dumps(to_dict(experiment)))
    ((probs, decided),) = read_system("a", [folder], "test").runs
    np.testing.assert_array_equal(decided, probs >= per_label(labels, probs))


def test_the_verdict_does_not_depend_on_the_order(tmp_path):
    good = read_system("good", [make_run(tmp_path / "good", 0.5)], "test")
    poor = read_system("poor", [make_run(tmp_path / "poor", 0.2)], "test")
    forward = comparison_record(compare_systems(good, poor, 500, 0), NAMES)["metrics"]
    backward = comparison_record(compare_systems(poor, good, 500, 0), NAMES)["metrics"]
    for metric in ("macro_f1", "micro_f1", "map", "macro_auc"):
        assert forward[metric]["verdict"] == "A is better"
        assert backward[metric]["verdict"] == "B is better"
        low, high = forward[metric]["interval"]
        assert 0 < low < forward[metric]["difference"] < high
    assert forward["log_loss"]["difference"] < 0
    assert forward["log_loss"]["verdict"] == "A is better"


def test_a_run_does_not_differ_from_itself(tmp_path):
    run = read_system("a", [make_run(tmp_path / "a", 0.4)], "test")
    record = comparison_record(compare_systems(run, run, 200, 0), NAMES)
    for row in [*record["metrics"].values(), *record["f1"].values()]:
        assert row["difference"] == 0
        assert row["p"] == 1
        assert row["verdict"] == "no evidence of a difference"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("joy", "anger")}, "joy, anger"),
        ({"shift": 1}, "different examples"),
    ],
    ids=str,
)
def test_runs_that_do_not_match_are_refused(tmp_path, change, message):
    first = read_system("a", [make_run(tmp_path / "a", 0.4)], "test")
    second = read_system("b", [make_run(tmp_path / "b", 0.4, **change)], "test")
    with pytest.raises(DataError, match=message):
        compare_systems(first, second, 200, 0)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels\.json"):
        read_system("a", [tmp_path], "test")
