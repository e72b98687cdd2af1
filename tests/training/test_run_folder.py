"""A run folder is created once and resumed only with its experiment and its version."""

import json
from dataclasses import replace

import pytest

from jaxclf.errors import ConfigError
from jaxclf.experiment.overrides import override, to_dict
from jaxclf.training.run_folder import check_version, open_run, with_recorded_settings


def test_a_run_is_opened_again_with_its_experiment_and_version_only(tiny_experiment, tmp_path):
    out = tmp_path / "run"
    open_run(out, tiny_experiment, "never")
    plain = json.loads(json.dumps(to_dict(tiny_experiment)))
    assert json.loads((out / "config.json").read_text()) == plain
    (out / "environment.json").write_text(json.dumps({"jaxclf": "0.2.0"}))
    check_version(out)
    open_run(out, tiny_experiment, "auto")
    with pytest.raises(ConfigError, match="exists"):
        open_run(out, tiny_experiment, "never")
    with pytest.raises(ConfigError, match=r"run .*\(different seed\).*--out"):
        open_run(out, replace(tiny_experiment, seed=1), "auto")
    (out / "config.json").rename(out / "notes.txt")
    with pytest.raises(ConfigError, match="not empty"):
        open_run(out, tiny_experiment, "auto")


def test_recorded_settings_are_the_commit_and_smaller_micro_batches(tiny_experiment, tmp_path):
    assert with_recorded_settings(tmp_path, tiny_experiment) == tiny_experiment
    smaller = {"train.batch_size": 8, "optim.gradient_accumulation_steps": 4}
    recorded = override(tiny_experiment, {**smaller, "encoder.revision": "abc"})
    open_run(tmp_path, recorded, "auto")
    assert with_recorded_settings(tmp_path, tiny_experiment) == recorded
    other_batch = override(tiny_experiment, {"train.batch_size": 64})
    settled = with_recorded_settings(tmp_path, other_batch)
    assert settled == override(other_batch, {"encoder.revision": "abc"})


OLD_FILES = {
    "environment.json": {"jaxclf": "0.1.0"},
    "config.json": {"data": {"overlap": 16}, "regular": {"ema": 0.0}},
}


@pytest.mark.parametrize("name", OLD_FILES)
def test_a_run_of_version_01_is_refused_in_one_line(tiny_experiment, tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps(OLD_FILES[name]))
    for check in (
        lambda: check_version(tmp_path),
        lambda: open_run(tmp_path, tiny_experiment, "auto"),
        lambda: with_recorded_settings(tmp_path, tiny_experiment),
    ):
        with pytest.raises(ConfigError, match=r"written by jaxclf 0\.1.*--out") as caught:
            check()
        assert "\n" not in str(caught.value)
