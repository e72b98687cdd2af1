"""The search: spaces held to their experiments, trials that outlive kills, and a winner that is an
experiment again.

Where a search is killed, a stand-in trains: what is tested is the study, not the network. By hand,
ten rounds of it: ROUNDS=10 pytest tests/test_tune.py -k killed
"""

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from jaxclf import tune
from jaxclf.errors import ConfigError, DivergedError, JaxclfError, StoppedError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Data, Experiment, Optim, Spec, override
from jaxclf.experiment.search_space import (
    Choice,
    Float,
    Int,
    check_space,
    dimensions,
    draw,
    format_changes,
)
from jaxclf.experiment.source import difference, to_python_source
from jaxclf.experiment.validation import check
from jaxclf.search import study, trials
from jaxclf.train import REGISTRIES
from jaxclf.training.run import train

ROUNDS = int(os.environ.get("ROUNDS", "1"))
BASE = Experiment(Data("a", "b", "c"), loss=Spec("focal", gamma=2.0), optim=Optim(lr=1e-3))
SPACE = {
    "optim.lr": Float(1e-4, 1e-2, log=True),
    "train.epochs": Int(2, 3),
    "pool": Choice("cls", "mean"),
    "loss": Choice("bce", Spec("focal", gamma=Float(1.0, 3.0), smoothing=0.0)),
}
MINE = '''"""A search for the tests."""

from dataclasses import replace

from jaxclf import catalogue
from jaxclf.experiment.config import Spec
from jaxclf.experiment.search_space import Choice, Float

baseline = catalogue.load("baseline")
experiment = replace(baseline, head=Spec("linear"))
space = {
    "optim.lr": Float(1e-4, 1e-2, log=True),
    "pool": Choice("cls", "mean"),
    "loss": Choice("bce", Spec("focal", gamma=Float(1.0, 3.0))),
}
'''
# In place of training, in every process of a search; one trial, by its number, goes on
# for as long as its process lives.
STAND_IN = """
import math, os, time
import jaxclf.training.run

def train(
    experiment, out, resume="auto", include_texts=False, report_score=None, score_test=True
):
    assert resume == "never" and not score_test
    out.mkdir(parents=True)
    (out / "checkpoint").write_text("large")
    score = 1 / (1 + abs(math.log10(experiment.optim.lr / 7e-4)))
    for epoch in range(experiment.train.epochs):
        time.sleep(0.05)
        report_score(score)
        while int(out.name) == int(os.environ["HELD"]):
            time.sleep(0.05)
    return {"val": {"score": score}}

jaxclf.training.run.train = train
"""


def score_of(experiment):
    return 1 / (1 + abs(math.log10(experiment.optim.lr / 7e-4)))


def stand_in(experiment, folder, watch):
    folder.mkdir(parents=True)
    for _ in range(experiment.train.epochs):
        watch(score_of(experiment))
    return score_of(experiment)


def space_error(space, base=BASE):
    with pytest.raises(ConfigError) as caught:
        check_space(space, base, REGISTRIES, lambda one: check(one, REGISTRIES))
    return str(caught.value)


def start(out, space=SPACE, base=BASE):
    own = check_space(space, base, REGISTRIES, lambda one: check(one, REGISTRIES))
    return study.open_study(f"sqlite:///{out / 'study.db'}", out, base, space, own)


def go(out, trials, run=stand_in):
    """A search in this process; what it told of each trial."""
    told = []
    trials.work(trials.Search(start(out), BASE, SPACE, trials, out), run, told.append)
    return told


# The space.


def test_a_draw_asks_only_for_what_exists():
    asked = []

    def suggest(name, dimension):
        asked.append(name)
        return {"loss": loss, "pool": "mean"}.get(name, 2)

    loss = "bce"
    assert draw(SPACE, suggest)["loss"] == "bce"
    assert asked == ["optim.lr", "train.epochs", "pool", "loss"]
    loss = "focal"
    changes = draw(SPACE, suggest)
    assert asked[4:] == ["optim.lr", "train.epochs", "pool", "loss", "loss.focal.gamma"]
    assert override(BASE, changes).loss == Spec("focal", gamma=2, smoothing=0.0)
    assert list(dimensions(SPACE)) == [*asked[:4], "loss.focal.gamma"]
    assert format_changes(changes).endswith("pool=mean loss=focal loss.gamma=2 loss.smoothing=0")


def test_a_space_knows_the_experiment_it_begins_with():
    own = check_space(SPACE, BASE, REGISTRIES, lambda one: check(one, REGISTRIES))
    assert own == {
        "optim.lr": 1e-3, "train.epochs": 3, "pool": "cls", "loss": "focal",
        "loss.focal.gamma": 2.0,
    }  # fmt: skip
    again = override(BASE, draw(SPACE, lambda name, _: own[name]))
    assert difference(BASE, again) == {
        "loss": "focal", "loss.gamma": 2.0, "loss.smoothing": 0.0,
    }  # fmt: skip  # the same, its default written out


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"optim.lrr": Float(1e-4, 1e-2)}, "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
        ({"optim.lr": Float(1e-4, 2.0)}, "space: optim.lr=2: optim.lr=2.0 is out of range (0, 1)"),
        ({"train.epochs": Float(1.5, 3.5)}, "train.epochs=1.5: expected int"),
        ({"pool": Choice("cls", "meen")}, "pool='meen'; did you mean 'mean'?"),
        (
            {"loss": Choice("bce", Spec("focal", gama=Float(1.0, 3.0)))},
            "loss.gama: 'focal' has no such option; did you mean 'gamma'?",
        ),
        (
            {"loss": Choice("bce", Spec("focal", gamma=Float(-1.0, 3.0)))},
            "space: loss=focal loss.gamma=-1: loss.gamma=-1.0 is out of range",
        ),
        (
            {"data.max_length": Int(16, 128), "data.window_overlap": Int(8, 64)},
            "data.window_overlap must be at most half of data.max_length",
        ),
        ({"optim.lr": Float(1e-3, 1e-3)}, "is no range from low to high"),
        ({"optim.lr": Float(1e-2, 1e-3)}, "is no range from low to high"),
        ({"optim.weight_decay": Float(0.0, 1.0, log=True)}, "a logarithm wants low above 0"),
        ({"pool": Choice("cls")}, "pool has no two values to choose from"),
        ({"pool": Choice(["cls"][0], Spec("mean"), 3.5)}, "pool=3.5: expected Spec"),
        ({**SPACE, "loss.gamma": Float(1.0, 3.0)}, "make it an option of a Spec there"),
        ({"seed": Int(0, 9)}, "its luck on validation would be searched for"),
        ({"train.metric": Choice("macro_f1", "map")}, "scored by different measures"),
        ({"threshold": Choice("per_label", "shared")}, "it is fitted after training"),
        ({"train.patience": Int(1, 3)}, "stopping later never lowers"),
        ({"optim.lr": Float(1e-5, 1e-4)}, "optim.lr=0.001 of the experiment is not in it"),
        ({"loss": Choice("bce", "zlpr")}, "loss='focal' of the experiment is not in it"),
        (
            {"loss": Choice("bce", Spec("focal", gamma=Float(3.0, 4.0)))},
            "loss.gamma=2.0 of the experiment is not in it",
        ),
        (
            {"loss": Choice("bce", Spec("focal", gamma=2.0, smoothing=0.1))},
            "loss.smoothing=0.0 of the experiment is not in it",
        ),
    ],
)
def test_a_space_that_cannot_be_is_refused(space, says):
    assert says in space_error(space)


def test_a_choice_has_names_of_its_own():
    with pytest.raises(ConfigError, match="two of one name"):
        Choice("focal", Spec("focal", gamma=1.0))


def test_what_the_command_line_holds_fixed_is_not_searched():
    assert list(tune.without(SPACE, {"loss": "bce", "seed": 3})) == list(SPACE)[:3]
    with pytest.raises(ConfigError, match="loss is searched; give loss too"):
        tune.without(SPACE, {"loss.gamma": 3.0})
    with pytest.raises(ConfigError, match="nothing is left to search"):
        tune.without(SPACE, dict.fromkeys(SPACE))


# The study.


def test_a_search_begins_with_what_stands_and_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole, torn = tmp_path / "a" / "mine", tmp_path / "b" / "mine"
    for out in (whole, torn):
        out.mkdir(parents=True)
    told = go(whole, 6)
    assert [one.number for one in told] == list(range(6))
    assert override(BASE, told[0].changes).optim == BASE.optim
    assert told[0].score == score_of(BASE)
    assert all(len(one.epochs) in (2, 3) for one in told if one.state == "done")
    assert [len(go(torn, trials)) for trials in (3, 6, 6, 2)] == [3, 3, 0, 0]
    assert [one.changes for one in study.outcomes(start(torn))] == [one.changes for one in told]
    assert not list((whole / "trials").iterdir())


def test_a_poor_trial_is_pruned_and_a_failed_one_is_not_the_end(tmp_path):
    seen = []

    def run(experiment, folder, watch):
        folder.mkdir(parents=True)
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        number = int(folder.name)
        seen.append(number)
        if number == 1:
            raise DivergedError("the loss is nan")
        if number == 2:
            raise MemoryError
        if number == 3:
            watch(math.nan)
        for _ in range(experiment.train.epochs):
            watch(0.1 if number == 9 else 0.5 + 0.01 * number)
        return 0.5 + 0.01 * number

    told = go(tmp_path, 10, run)
    assert seen == list(range(10))
    states = {one.number: one.state for one in told}
    assert states == {**dict.fromkeys((0, *range(4, 9)), "done"), 1: "failed", 2: "failed",
                      3: "failed", 9: "pruned"}  # fmt: skip
    assert [told[number].error for number in (1, 2, 3)] == [
        "the loss is nan", "out of memory", "the score on validation is not a number",
    ]  # fmt: skip
    assert len(told[9].epochs) == 1
    assert not list((tmp_path / "trials").iterdir())


def test_a_fault_of_the_data_ends_the_search_and_counts_for_nothing(tmp_path):
    def run(experiment, folder, watch):
        raise ConfigError("no such file")

    with pytest.raises(ConfigError, match="no such file"):
        go(tmp_path, 3, run)
    assert [len(go(tmp_path, 3)), len(study.outcomes(start(tmp_path)))] == [3, 3]


def test_a_trial_that_was_stopped_is_run_again(tmp_path):
    drawn = []

    def run(experiment, folder, watch):
        drawn.append(experiment)
        if len(drawn) == 3:
            (folder / "half").mkdir(parents=True)
            raise StoppedError("stopped", signal.SIGINT)
        return stand_in(experiment, folder, watch)

    with pytest.raises(StoppedError):
        go(tmp_path, 4, run)
    go(tmp_path, 4, run)
    assert len(drawn) == 5
    assert drawn[3] == drawn[2]
    assert [one.number for one in study.outcomes(start(tmp_path))] == [0, 1, 3, 4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_destructor_swallows_is_not_lost(tmp_path, number):
    def run(experiment, folder, watch):
        with contextlib.suppress(StoppedError):
            signal.raise_signal(number)
        return stand_in(experiment, folder, watch)

    before = signal.getsignal(number)
    with pytest.raises(StoppedError) as caught:
        go(tmp_path, 2, run)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) == before
    assert not study.outcomes(start(tmp_path))


def test_a_signal_stops_a_trial_that_trains_at_once(tmp_path):
    went_on = []

    def run(experiment, folder, watch):
        signal.raise_signal(signal.SIGTERM)
        went_on.append(True)

    with pytest.raises(StoppedError):
        go(tmp_path, 2, run)
    assert not went_on


def test_a_signal_after_training_keeps_the_result(tmp_path, monkeypatch):
    told = []

    def tell(outcome):
        signal.raise_signal(signal.SIGTERM)
        told.append(outcome.score)

    job = trials.Search(start(tmp_path), BASE, SPACE, 2, tmp_path)
    with pytest.raises(StoppedError):
        trials.work(job, stand_in, tell)
    assert told == [one.score for one in study.outcomes(job.study)]
    assert len(told) == 1


@pytest.mark.parametrize("moment", ["_suggest", "_check_number"])
def test_a_signal_waits_for_the_database(tmp_path, monkeypatch, moment):
    """Raised in the middle of a transaction it would leave the database locked for all others, and
    for the process itself when it tells that the trial was stopped."""
    done, went_on, ask = [], [], getattr(trials, moment)

    def interrupted(*given):
        signal.raise_signal(signal.SIGTERM)
        done.append(moment)
        return ask(*given)

    def run(experiment, folder, watch):
        watch(0.5)
        went_on.append(True)

    monkeypatch.setattr(trials, moment, interrupted)
    with pytest.raises(StoppedError):
        go(tmp_path, 2, run)
    assert done
    assert not went_on
    monkeypatch.undo()
    stopped, heir = start(tmp_path).get_trials()
    assert [stopped.state.name, heir.state.name] == ["FAIL", "WAITING"]
    assert stopped.intermediate_values == ({33: 0.5} if moment == "_check_number" else {})


def test_a_study_of_another_search_is_not_touched(tmp_path):
    go(tmp_path, 2)
    with pytest.raises(ConfigError, match="a search of another space; give another --out"):
        start(tmp_path, {"optim.lr": Float(1e-4, 1e-2)})
    with pytest.raises(ConfigError, match="a search of another experiment; give another --out"):
        start(tmp_path, base=override(BASE, {"seed": 1}))


# The winner as an experiment.


def test_a_winner_reads_as_a_change_and_is_styled(tmp_path):
    long = "/" + "a_folder/" * 12 + "train.json"
    changes = {"loss": {"name": "focal", "gamma": 2.125}, "optim.lr": 1.5e-05, "data.train": long}
    changes |= {"optim.freeze": ["encoder/embeddings"], "pool": "mean"}
    winner = override(catalog.load("baseline"), changes)
    words = f"    python -m jaxclf.tune {'a_word=1 ' * 20}"
    text = to_python_source("baseline", winner, "The baseline, but tuned.", ("It " * 60, words))
    path = tmp_path / "winner.py"
    path.write_text(text)
    assert catalog.load(str(path)) == winner
    same = to_python_source("baseline", catalog.load("baseline"), "The baseline.", ("As it is.",))
    (tmp_path / "same.py").write_text(same)
    assert catalog.load(str(tmp_path / "same.py")) == catalog.load("baseline")
    for command in ("format --check", "check"):
        config = Path(__file__).parent.parent.parent / "pyproject.toml"
        words = ["-m", "ruff", *command.split(), "--config", config, "--no-cache", tmp_path]
        done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


# The command.


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture(scope="module")
def words(tiny_encoder, tiny_data):
    """Overrides that make it small."""
    files = [f"data.{split}={path}" for split, path in tiny_data.items()]
    return [f"encoder.name={tiny_encoder}", *files, "data.max_length=32", "train.epochs=2"]


def run_here(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["tune", *map(str, words)])
    return tune.main()


def test_the_winner_trained_anew_has_its_score(
    monkeypatch, capsys, mine, words, tmp_path, demo_rows
):
    out = tmp_path / "search"
    assert run_here(monkeypatch, "--exp", mine, "--trials", 2, "--out", out, *words) == 0
    said = capsys.readouterr()
    lines = re.findall(r"^trial \d.*$", said.out, re.M)
    assert [line.split(":")[0] for line in lines] == ["trial 0 (1 of 2)", "trial 1 (2 of 2)"]
    assert lines[0].endswith("| the experiment as it stands")
    assert {path.name for path in out.iterdir()} == {"study.db", "study.html", "trials"}
    assert not list((out / "trials").iterdir())
    tuned = tmp_path / "mine_tuned.py"
    winner = catalog.load(str(tuned))
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{out / 'study.db'}")
    base = override(catalog.load(str(mine)), dict(word.split("=") for word in words[:4]))
    base = override(base, {"data.max_length": 32, "train.epochs": 2})
    assert winner == override(base, study.best_trial.user_attrs["changes"])
    report = train(winner, tmp_path / "run")
    assert report["val"]["macro_f1"] == study.best_value
    page = (out / "study.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert f"{study.best_value:.4f}" in page
    # Nothing of the test split is told, and no text of any.
    assert f"{report['test']['macro_f1']:.4f}" not in said.out + page + tuned.read_text()
    for row in demo_rows["train"] + demo_rows["val"][:48] + demo_rows["test"][:48]:
        assert row["text"] not in said.out + said.err + page
    # A second time: nothing is trained, and the same is written.
    before = tuned.read_text()
    assert run_here(monkeypatch, "--exp", mine, "--trials", 2, "--out", out, *words) == 0
    assert "trial 1 (2" not in capsys.readouterr().out
    assert tuned.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exp", "baseline", "--trials", 3], "baseline.py: the experiment has no search space"),
        (["--exp", "focal_attentoin", "--trials", 3], "did you mean 'focal_attention'?"),
        (["--exp", "focal_attention", "--trials", 0], "--trials 0: at least 1"),
        (["--exp", "focal_attention", "--trials", 3, "--workers", 0], "--workers 0: at least 1"),
        (["--exp", "focal_attention", "--trials", 3, "loss.gamma=3"], "give loss too"),
        (["--exp", "focal_attention", "--trials", 3, "optim.lr=3"], "optim.lr=3.0 is out of range"),
        (["--exp", "focal_attention", "--trials", 3, "head=native"], "pool=mean_max is twice as"),
        (["--exp", "focal_attention", "--trials", 3, "--storage", "what"], "--storage (not a data"),
    ],
)
def test_what_is_wrong_is_one_line(monkeypatch, capsys, tmp_path, words, arguments, message):
    assert run_here(monkeypatch, "--out", tmp_path / "search", *arguments, *words) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert said.out == ""
    assert not (tmp_path / "search" / "trials").exists()


def test_a_file_that_no_search_wrote_is_left_alone(monkeypatch, capsys, mine, words, tmp_path):
    tuned = tmp_path / "mine_tuned.py"
    tuned.write_text("precious = 1\n")
    assert run_here(monkeypatch, "--exp", mine, "--trials", 2, *words) == 2
    assert "is not from a search and is left alone" in capsys.readouterr().err
    assert tuned.read_text() == "precious = 1\n"


def test_without_optuna_it_says_what_to_install(monkeypatch, capsys, mine, words, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in ("trials", "study"):
        monkeypatch.delitem(sys.modules, f"jaxclf.search.{name}")
        monkeypatch.delattr(f"jaxclf.search.{name}")
    assert run_here(monkeypatch, "--exp", mine, "--trials", 2, "--out", tmp_path / "a", *words) == 2
    assert capsys.readouterr().err == "error: no optuna: pip install 'jaxclf[tune]'\n"
    assert not (tmp_path / "a").exists()


def test_help_suffices(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_here(monkeypatch, "--help")
    assert "python -m jaxclf.tune --exp focal_attention --trials 30" in capsys.readouterr().out


def launch(tmp_path, *words, held=-1):
    """The command in a process of its own, with the stand-in in it and all it starts."""
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(STAND_IN)
    return subprocess.Popen(
        [sys.executable, "-m", "jaxclf.tune", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{site}:{os.getcwd()}", "HELD": str(held)},
    )


def trials_of(out):
    storage = f"sqlite:///{out / 'study.db'}"
    return optuna.load_study(study_name=out.name, storage=storage).trials


def wait_for_trial(process, out, number):
    """The study's trials once this one trains."""
    while not (trials.folder_of(out, number) / "checkpoint").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return trials_of(out)


def check_trials(out, count, killed, before):
    """So many are finished, each number is there once, the killed were taken up, none was lost."""
    trials = trials_of(out)
    assert [one.number for one in trials] == list(range(len(trials)))
    assert sum(map(study.is_finished, trials)) == count
    for one in before:
        if study.is_finished(one):
            assert (trials[one.number].value, trials[one.number].params) == (one.value, one.params)
    for number in killed:
        assert trials[number].state == optuna.trial.TrialState.FAIL
        (heir,) = [one for one in trials if number in one.system_attrs.get("retry_history", [])]
        assert study.is_finished(heir)
        assert heir.params == trials[number].params
    assert len(trials) == count + len(killed)
    assert not list((out / "trials").iterdir())
    return trials


def numbers_told(stdout):
    return [int(number) for number in re.findall(r"^trial (\d+) \(", stdout, re.M)]


def test_a_killed_search_goes_on_to_its_number_and_no_further(mine, words, tmp_path):
    out = tmp_path / "search"
    arguments = ["--exp", mine, "--out", out, "--trials", 4, *words]
    process = launch(tmp_path, *arguments, held=2)
    before = wait_for_trial(process, out, 2)
    process.kill()
    stdout, _ = process.communicate()
    assert numbers_told(stdout) == [0, 1]
    assert (out / "trials" / "0002" / "checkpoint").exists()
    process = launch(tmp_path, *arguments)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert sorted(numbers_told(stdout)) == [3, 4]
    check_trials(out, 4, [2], before)


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_a_killed_worker_loses_nothing(mine, words, tmp_path, turn):
    out, held = tmp_path / "search", (turn + 2) % 6
    arguments = ["--exp", mine, "--out", out, "--trials", 6, "--workers", 2, *words]
    process = launch(tmp_path, *arguments, held=held)
    before = wait_for_trial(process, out, held)
    os.kill(before[held].user_attrs["process"][1], signal.SIGKILL)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert stderr.count("was stopped; the others take up its trial") == 1
    trials = check_trials(out, 6, [held], before)
    finished = [one.number for one in trials if study.is_finished(one)]
    assert sorted(numbers_told(stdout)) == finished
    best = max(one.value for one in trials if one.state == optuna.trial.TrialState.COMPLETE)
    assert f"{best:.4f}" in (tmp_path / "mine_tuned.py").read_text()


def test_ctrl_c_stops_all_workers(mine, words, tmp_path):
    out = tmp_path / "search"
    arguments = ["--exp", mine, "--out", out, "--trials", 500, "--workers", 2, *words]
    process = launch(tmp_path, *arguments, held=1)
    wait_for_trial(process, out, 1)
    while len(trials_of(out)) < 5:  # of the other worker
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == f"error: stopped; the same command goes on from {out}"
    trials = trials_of(out)
    for number in {one.user_attrs["process"][1] for one in trials if "process" in one.user_attrs}:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
    (heir,) = [one for one in trials if 1 in one.system_attrs.get("retry_history", [])]
    assert heir.state == optuna.trial.TrialState.WAITING
    assert not list((out / "trials").iterdir())


def test_an_error_of_a_worker_is_the_searchs_own(tmp_path, capsys):
    log = tmp_path / "worker-2.log"
    log.write_text("epoch 1/2\nerror: train.json:3: not JSON\n")
    with pytest.raises(
        JaxclfError, match=r"^train.json:3: not JSON \(see .*worker-2.log\)$"
    ) as one:
        tune._check_end(log, 2)
    assert one.value.exit_code == 2
    tune._check_end(log, -9)
    assert capsys.readouterr().err == "worker-2 was stopped; the others take up its trial\n"
