"""The command tune: its arguments, its winner, and searches whose processes are killed.

Where a search is killed, a stand-in replaces training: the study is tested, not the network. Ten
rounds of it: ROUNDS=10 pytest -m slow tests/search/test_tune.py -k killed
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import optuna
import pytest
from small_search import SPACE

from jaxclf import tune
from jaxclf.errors import ConfigError, JaxclfError
from jaxclf.experiment import catalog
from jaxclf.experiment.overrides import override, parse_overrides
from jaxclf.search import study as studies
from jaxclf.search.run import check_exit, remove_fixed
from jaxclf.search.trials import trial_folder
from jaxclf.training.run import train

ROUNDS = int(os.environ.get("ROUNDS", "1"))
EXPERIMENT = '''"""An experiment with a space."""

from dataclasses import replace

from jaxclf.experiment import catalog
from jaxclf.experiment.config import Spec
from jaxclf.experiment.search_space import Choice, Float

baseline = catalog.load("baseline")
experiment = replace(baseline, head=Spec("linear"))
space = {
    "optim.lr": Float(1e-4, 1e-2, log=True),
    "pool": Choice("cls", "mean"),
    "loss": Choice("bce", Spec("focal", gamma=Float(1.0, 3.0))),
}
'''
# Replaces training in every process of a search. The trial with the number HELD trains for as long
# as its process lives. A silent trial counts as dead after seconds.
SITE_CUSTOMIZE = """
import math, os, time
import jaxclf.search.study, jaxclf.training.run

def train(experiment, out, resume="auto", *, report_score, score_test):
    assert resume == "never" and not score_test
    out.mkdir(parents=True)
    (out / "checkpoint").write_text("large")
    (out / "pid").write_text(str(os.getpid()))
    (out / "started").write_text("")
    score = 1 / (1 + abs(math.log10(experiment.optim.lr / 7e-4)))
    for epoch in range(experiment.train.epochs):
        time.sleep(0.05)
        report_score(score, (epoch + 1) / experiment.train.epochs)
        while int(out.name) == int(os.environ["HELD"]):
            time.sleep(0.05)
    return {"val": {experiment.train.metric: score}}

jaxclf.training.run.train = train
jaxclf.search.study.HEARTBEAT, jaxclf.search.study.GRACE = 1, 5
"""


@pytest.fixture
def small(tmp_path):
    """The path of an experiment with a space."""
    path = tmp_path / "small.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="session")
def overrides(tiny_overrides):
    """Words that make the experiment small."""
    names = ("encoder.name", "data.train", "data.val", "data.test", "data.max_length")
    return [*(f"{name}={tiny_overrides[name]}" for name in names), "train.epochs=2"]


def call(*words):
    return tune.main([str(word) for word in words])


def test_keys_of_the_command_line_are_not_searched():
    assert list(remove_fixed(SPACE, {"loss": "bce", "seed": 3})) == list(SPACE)[:3]
    with pytest.raises(ConfigError, match=r"loss\.gamma"):
        remove_fixed(SPACE, {"loss.gamma": 3.0})
    with pytest.raises(ConfigError, match="every dimension"):
        remove_fixed(SPACE, dict.fromkeys(SPACE))


@pytest.mark.slow
def test_the_winner_trained_again_has_its_score(capsys, small, overrides, tmp_path, demo_rows):
    out = tmp_path / "search"
    words = [*overrides[:2], "--exp", small, "--trials", 2, *overrides[2:4], "--out", out]
    words += overrides[4:]
    assert call(*words) == 0
    output = capsys.readouterr()
    lines = re.findall(r"^trial \d.*$", output.out, re.M)
    assert [line.split(":")[0] for line in lines] == ["trial 0 (1 of 2)", "trial 1 (2 of 2)"]
    assert {path.name for path in out.iterdir()} == {"study.db", "study.html", "trials"}
    assert not list((out / "trials").iterdir())
    tuned = tmp_path / "small_tuned.py"
    winner = catalog.load(str(tuned))
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{out / 'study.db'}")
    base = override(catalog.load(str(small)), parse_overrides(overrides))
    assert winner == override(base, study.best_trial.user_attrs["changes"])
    report = train(winner, tmp_path / "run")
    assert study.direction.name == "MINIMIZE"
    lines_logged = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines_logged]
    losses = [line.get("epoch/calibrated_log_loss", math.inf) for line in history]
    assert min(losses) == study.best_value
    assert "lower is better" in lines[0]
    page = (out / "study.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert f"{study.best_value:.4f}" in page
    # No score of the test split is shown, and no text.
    assert f"{report['test']['macro_f1']:.4f}" not in output.out + page + tuned.read_text()
    for row in demo_rows["train"] + demo_rows["val"][:48] + demo_rows["test"][:48]:
        assert row["text"] not in output.out + output.err + page
    # A second call trains nothing and writes the same.
    source = tuned.read_text()
    assert call(*words) == 0
    assert "trial 1 (2" not in capsys.readouterr().out
    assert tuned.read_text() == source


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exp", "baseline", "--trials", 3], "baseline.py: missing search space"),
        (["--exp", "focal_attentoin"], "'focal_attention'"),
        (["--exp", "focal_attention", "--trials", 0], "--trials 0"),
        (["--exp", "focal_attention", "--workers", 0], "--workers 0"),
        (["loss.gamma=3", "--exp", "focal_attention"], "loss.gamma"),
        (["--exp", "focal_attention", "optim.lr=3", "--trials", 3], "optim.lr=3"),
        (["--exp", "focal_attention", "head=native"], "pool=mean_max"),
        (["--exp", "focal_attention", "--storage", "nowhere"], "--storage"),
    ],
)
def test_a_mistake_is_one_line(capsys, tmp_path, overrides, words, message):
    assert call("--out", tmp_path / "search", *words, *overrides) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert output.out == ""
    assert not (tmp_path / "search" / "trials").exists()


def test_a_file_that_no_search_wrote_is_not_overwritten(capsys, small, overrides, tmp_path):
    tuned = tmp_path / "small_tuned.py"
    tuned.write_text("precious = 1\n")
    assert call("--exp", small, *overrides) == 2
    assert "--save-best" in capsys.readouterr().err
    assert tuned.read_text() == "precious = 1\n"


def launch(tmp_path, *words, held=-1):
    """Start the command in a process of its own, with SITE_CUSTOMIZE in it and in its workers."""
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE_CUSTOMIZE)
    return subprocess.Popen(
        [sys.executable, "-m", "jaxclf.tune", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{site}:{os.getcwd()}", "HELD": str(held)},
    )


def load_trials(out):
    storage = f"sqlite:///{out / 'study.db'}"
    return optuna.load_study(study_name=out.name, storage=storage).trials


def wait_for_trial(process, out, number):
    """Wait until this trial trains. Returns the trials of the study and the trial's process id."""
    folder = trial_folder(out, number)
    while not (folder / "started").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return load_trials(out), int((folder / "pid").read_text())


def retry_of(trials, number):
    (trial,) = [trial for trial in trials if number in trial.system_attrs.get("retry_history", [])]
    return trial


def check_trials(out, count, killed, trials_before):
    """Check that no result was lost and that the killed trial was run again."""
    trials = load_trials(out)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert sum(map(studies.is_finished, trials)) == count
    for trial in trials_before:
        if studies.is_finished(trial):
            after = trials[trial.number]
            assert (after.value, after.params) == (trial.value, trial.params)
    assert trials[killed].state == optuna.trial.TrialState.FAIL
    retry = retry_of(trials, killed)
    assert studies.is_finished(retry)
    assert retry.params == trials[killed].params
    assert len(trials) == count + 1
    assert not list((out / "trials").iterdir())
    return trials


def printed_numbers(stdout):
    return [int(number) for number in re.findall(r"^trial (\d+) \(", stdout, re.M)]


@pytest.mark.slow
def test_a_killed_search_resumes(small, overrides, tmp_path):
    out = tmp_path / "search"
    words = ["--exp", small, "--out", out, "--trials", 4, *overrides]
    process = launch(tmp_path, *words, held=2)
    trials_before, _ = wait_for_trial(process, out, 2)
    process.kill()
    stdout, _ = process.communicate()
    assert printed_numbers(stdout) == [0, 1]
    assert (trial_folder(out, 2) / "checkpoint").exists()
    process = launch(tmp_path, *words)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert sorted(printed_numbers(stdout)) == [3, 4]
    check_trials(out, 4, 2, trials_before)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(ROUNDS))
def test_a_killed_worker_loses_nothing(small, overrides, tmp_path, turn):
    out, held = tmp_path / "search", (turn + 2) % 6
    words = ["--exp", small, "--out", out, "--trials", 6, "--workers", 2, *overrides]
    process = launch(tmp_path, *words, held=held)
    trials_before, worker = wait_for_trial(process, out, held)
    os.kill(worker, signal.SIGKILL)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert stderr.count("was stopped") == 1
    trials = check_trials(out, 6, held, trials_before)
    finished = [trial.number for trial in trials if studies.is_finished(trial)]
    assert sorted(printed_numbers(stdout)) == finished
    best = min(trial.value for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE)
    assert f"{best:.4f}" in (tmp_path / "small_tuned.py").read_text()


@pytest.mark.slow
def test_ctrl_c_stops_all_workers(small, overrides, tmp_path):
    out = tmp_path / "search"
    words = ["--exp", small, "--out", out, "--trials", 500, "--workers", 2, *overrides]
    process = launch(tmp_path, *words, held=1)
    _, worker = wait_for_trial(process, out, 1)
    while len(load_trials(out)) < 5:  # of the other worker
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    line = stderr.splitlines()[-1]
    assert line.startswith("stopped")
    assert str(out) in line
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert retry_of(load_trials(out), 1).state == optuna.trial.TrialState.WAITING
    assert not list((out / "trials").iterdir())


def test_the_error_of_a_worker_ends_the_search(tmp_path, caplog):
    log = tmp_path / "worker-2.log"
    log.write_text("epoch 1/2\nerror: train.json:3: not JSON\n")
    with pytest.raises(JaxclfError, match=r"^train.json:3: not JSON.*worker-2.log") as caught:
        check_exit(log, 2)
    assert caught.value.exit_code == 2
    check_exit(log, -9)
    (record,) = caplog.records
    assert "worker-2" in record.getMessage()
