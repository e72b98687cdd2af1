"""Ablations differ from the experiment in one choice each, and are trained and compared once."""

import pytest

from jaxclf import compare
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import iter_fields, override
from jaxclf.reports.tables import ablation_table
from jaxclf.training.ablation import (
    BASELINE,
    CHOICES,
    FULL,
    THRESHOLD,
    ablations,
    score_ablations,
    train_ablations,
)


def differing_keys(first, second):
    first_values, second_values = dict(iter_fields(first)), dict(iter_fields(second))
    return {key for key in first_values if first_values[key] != second_values[key]}


def test_each_ablation_reverts_one_choice():
    full = override(catalog.load("focal_attention"), {"train.epochs": 2, "seed": 3})
    baseline = catalog.load("baseline")
    experiments = ablations(full, baseline)
    assert list(experiments) == [
        FULL,
        "pool=cls",
        "head=native",
        "loss=bce",
        "sampler=shuffle",
        "optim.schedule=linear",
        BASELINE,
    ]
    assert experiments[FULL] is full
    for label, experiment in experiments.items():
        if label not in (FULL, BASELINE):
            key, _, name = label.partition("=")
            assert differing_keys(full, experiment) == {key}
            assert dict(iter_fields(experiment))[key] == dict(iter_fields(baseline))[key]
            assert dict(iter_fields(experiment))[key].name == name
    # The budget is that of the experiment.
    assert differing_keys(full, experiments[BASELINE]) == set(CHOICES)
    assert experiments[BASELINE].train.epochs == 2


def test_choices_equal_to_the_baseline_have_no_ablation():
    baseline = catalog.load("baseline")
    assert list(ablations(baseline, baseline)) == [FULL, BASELINE]


@pytest.mark.slow
def test_equal_experiments_are_trained_once_and_finished_runs_are_kept(
    capsys, tiny_overrides, tmp_path
):
    changes = {**tiny_overrides, "train.epochs": 1, "data.max_train_examples": 40}
    changes |= {"pool": "cls", "head": "native", "sampler": "shuffle", "loss": "bce"}
    words = [f"{key}={value}" for key, value in changes.items()]
    options = ["--ablate", "focal_attention", "--seeds", "1", "--out", str(tmp_path)]
    assert compare.main([*words[:3], *options, "--resamples", "200", *words[3:]]) == 0
    assert "optim.schedule=linear" in capsys.readouterr().out
    # A single choice differs, so reverting it gives the baseline.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("report.json")}
    assert len(times) == 2
    runs = train_ablations("focal_attention", changes, 1, tmp_path)
    assert list(runs) == [FULL, "optim.schedule=linear", BASELINE]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    record = score_ablations(runs, 200, 0)
    assert list(record) == ["optim.schedule=linear", BASELINE, THRESHOLD]
    assert [row[0] for row in ablation_table(record).rows] == list(record)
    assert compare.main([str(runs[FULL][0]), str(runs[BASELINE][0]), "--resamples", "200"]) == 0
    output = capsys.readouterr().out
    assert "no evidence of a difference" in output or "is better" in output
