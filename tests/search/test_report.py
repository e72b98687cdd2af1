"""The page of a search shows its trials, its best trial and Optuna's plots, without a network."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from jaxclf.experiment.search_space import Choice, Float
from jaxclf.search.report import MIN_TRIALS, write_report

SPACE = {"optim.lr": Float(1e-4, 1e-2, log=True), "pool": Choice("cls", "<b>")}


@pytest.fixture
def study():
    return optuna.create_study(direction="maximize")


def add_trials(study, count, state=TrialState.COMPLETE):
    for _ in range(count):
        number = len(study.trials)
        params = {"optim.lr": 1e-4 * (number + 1), "pool": ["cls", "<b>"][number % 2]}
        study.add_trial(
            optuna.create_trial(
                state=state,
                value=0.5 + 0.01 * number if state == TrialState.COMPLETE else None,
                params=params,
                distributions={
                    "optim.lr": FloatDistribution(1e-4, 1e-2, log=True),
                    "pool": CategoricalDistribution(["cls", "<b>"]),
                },
                user_attrs={"changes": params, "error": "out of memory"},
                intermediate_values={} if state == TrialState.FAIL else {50: 0.4},
            )
        )


def write_page(study, tmp_path):
    return write_report(tmp_path / "study.html", "small", "map", study, SPACE).read_text()


def test_a_page_without_a_finished_trial_has_no_figure(study, tmp_path):
    add_trials(study, 2, TrialState.FAIL)
    page = write_page(study, tmp_path)
    assert "0 done, 0 pruned, 2 failed" in page
    assert "data:image/png" not in page


def test_importances_need_enough_trials(study, tmp_path):
    add_trials(study, MIN_TRIALS - 1)
    add_trials(study, 1, TrialState.PRUNED)
    assert write_page(study, tmp_path).count("data:image/png;base64,") == 2
    add_trials(study, 1)
    assert write_page(study, tmp_path).count("data:image/png;base64,") == 3


def test_the_page_shows_every_trial_and_escapes_its_values(study, tmp_path):
    add_trials(study, 1)
    write_page(study, tmp_path)  # each dimension has a single value
    add_trials(study, 1)
    add_trials(study, 1, TrialState.FAIL)
    page = write_page(study, tmp_path)
    assert '<p class="number">0.5100</p>' in page
    assert "the experiment before the search has 0.5000" in page
    for number in range(3):
        assert f'<th scope="row">{number:04d}</th>' in page
    assert "pool=&lt;b&gt;" in page
    assert "<b>" not in page
    assert "http://" not in page
    assert "https://" not in page
