"""A search counts, prunes, fails, stops and resumes its trials, whatever ends a process."""

import contextlib
import math
import signal
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import TrialState
from small_search import BASE, SPACE, open_study, score_of, search, train

from jaxclf.errors import ConfigError, DivergedError, StoppedError
from jaxclf.experiment.overrides import override
from jaxclf.experiment.search_space import Float
from jaxclf.search import study as studies
from jaxclf.search import trials


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
    """Collecting the garbage of a network takes longer than a trial without one."""
    monkeypatch.setattr(trials.gc, "collect", lambda: 0)


def test_a_resumed_search_draws_what_an_uninterrupted_one_draws(tmp_path):
    uninterrupted, interrupted = tmp_path / "a" / "search", tmp_path / "b" / "search"
    for out in (uninterrupted, interrupted):
        out.mkdir(parents=True)
    results = search(uninterrupted, 6)
    assert [result.number for result in results] == list(range(6))
    assert override(BASE, results[0].changes).optim == BASE.optim
    assert results[0].score == score_of(BASE)
    assert all(len(result.epochs) in (2, 3) for result in results if result.state == "done")
    assert [len(search(interrupted, count)) for count in (3, 6, 6, 2)] == [3, 3, 0, 0]
    assert [result.changes for result in studies.trial_results(open_study(interrupted))] == [
        result.changes for result in results
    ]
    assert not list((uninterrupted / "trials").iterdir())


def test_poor_trials_are_pruned_and_failed_trials_do_not_end_the_search(tmp_path):
    numbers = []

    def run(experiment, folder, report_score):
        folder.mkdir(parents=True)
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        number = int(folder.name)
        numbers.append(number)
        if number == 1:
            raise DivergedError("the loss is nan")
        if number == 2:
            raise MemoryError
        if number == 3:
            report_score(math.nan, 0.5)
        for done in (0.5, 1.0):
            report_score(0.1 if number == 9 else 0.5 + 0.01 * number, done)
        return 0.5 + 0.01 * number

    results = search(tmp_path, 10, run)
    assert numbers == list(range(10))
    states = {result.number: result.state for result in results}
    assert states == {**dict.fromkeys((0, *range(4, 9)), "done"), 1: "failed", 2: "failed",
                      3: "failed", 9: "pruned"}  # fmt: skip
    assert [results[number].error for number in (1, 2, 3)] == [
        "the loss is nan", "out of memory", "the score on validation is not a number",
    ]  # fmt: skip
    assert len(results[9].epochs) == 1
    assert not list((tmp_path / "trials").iterdir())


def test_an_error_in_the_data_ends_the_search_and_is_no_result(tmp_path):
    def run(experiment, folder, report_score):
        raise ConfigError("no such file")

    with pytest.raises(ConfigError, match="no such file"):
        search(tmp_path, 3, run)
    assert len(search(tmp_path, 3)) == 3
    assert len(studies.trial_results(open_study(tmp_path))) == 3


def test_a_stopped_trial_is_run_again(tmp_path):
    experiments = []

    def run(experiment, folder, report_score):
        experiments.append(experiment)
        if len(experiments) == 3:
            (folder / "checkpoints").mkdir(parents=True)
            raise StoppedError("stopped", signal.SIGINT)
        return train(experiment, folder, report_score)

    with pytest.raises(StoppedError):
        search(tmp_path, 4, run)
    search(tmp_path, 4, run)
    assert len(experiments) == 5
    assert experiments[3] == experiments[2]
    results = studies.trial_results(open_study(tmp_path))
    assert [result.number for result in results] == [0, 1, 3, 4]


def test_a_trial_that_died_before_its_first_heartbeat_is_run_again(tmp_path, monkeypatch):
    search(tmp_path, 2)
    with pytest.warns(UserWarning, match="Heartbeat"):
        open_study(tmp_path).ask()  # claimed by a process that dies now

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(seconds=studies.GRACE + 1)

    monkeypatch.setattr(trials, "datetime", Later)
    assert [result.number for result in search(tmp_path, 4)] == [3, 4]
    trial = open_study(tmp_path).get_trials()[2]
    assert trial.state == TrialState.FAIL
    assert not studies.is_finished(trial)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_error_is_swallowed_stops_at_the_next_check(tmp_path, number):
    def run(experiment, folder, report_score):
        with contextlib.suppress(StoppedError):
            signal.raise_signal(number)
        return train(experiment, folder, report_score)

    handler = signal.getsignal(number)
    with pytest.raises(StoppedError) as caught:
        search(tmp_path, 2, run)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) == handler
    assert not studies.trial_results(open_study(tmp_path))


def test_a_signal_stops_a_training_trial_at_once(tmp_path):
    after_signal = []

    def run(experiment, folder, report_score):
        signal.raise_signal(signal.SIGTERM)
        after_signal.append(True)

    with pytest.raises(StoppedError):
        search(tmp_path, 2, run)
    assert not after_signal


def test_a_signal_after_training_keeps_the_result(tmp_path):
    scores = []

    def report(result):
        signal.raise_signal(signal.SIGTERM)
        scores.append(result.score)

    study = open_study(tmp_path)
    with pytest.raises(StoppedError):
        trials.run_trials(trials.Search(study, BASE, SPACE, 2, tmp_path), train, report)
    assert scores == [result.score for result in studies.trial_results(study)]
    assert len(scores) == 1


@pytest.mark.parametrize("name", ["_suggest", "_check_number"])
def test_a_signal_during_a_transaction_waits_for_its_end(tmp_path, monkeypatch, name):
    """Otherwise the database would stay locked for all processes, this one included."""
    calls, after_signal, function = [], [], getattr(trials, name)

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGTERM)
        calls.append(name)
        return function(*arguments)

    def run(experiment, folder, report_score):
        report_score(0.5, 1 / 3)
        after_signal.append(True)

    monkeypatch.setattr(trials, name, interrupted)
    with pytest.raises(StoppedError):
        search(tmp_path, 2, run)
    assert calls
    assert not after_signal
    monkeypatch.undo()
    stopped, retried = open_study(tmp_path).get_trials()
    assert [stopped.state.name, retried.state.name] == ["FAIL", "WAITING"]
    assert stopped.intermediate_values == ({33: 0.5} if name == "_check_number" else {})


def test_a_study_of_another_search_is_not_touched(tmp_path):
    search(tmp_path, 2)
    with pytest.raises(ConfigError, match=r"another space.*--out"):
        open_study(tmp_path, {"optim.lr": Float(1e-4, 1e-2)})
    with pytest.raises(ConfigError, match=r"another experiment.*--out"):
        open_study(tmp_path, base=override(BASE, {"seed": 1}))


def test_a_study_of_version_0_1_is_refused(tmp_path):
    study = optuna.create_study(
        study_name=tmp_path.name, storage=f"sqlite:///{tmp_path / 'study.db'}"
    )
    study.set_user_attr("experiment", {"regular": {"ema": 0.0}})
    study.set_user_attr("space", "{'optim.decay': Float(low=0.0, high=0.1, log=False)}")
    with pytest.raises(ConfigError, match=r"0\.1.*--out"):
        open_study(tmp_path)
