"""A small search without networks: its score depends on the learning rate alone."""

import math

from jaxclf.experiment.config import Data, Experiment, Optim, Spec, Train
from jaxclf.experiment.search_space import Choice, Float, Int, check_space
from jaxclf.experiment.validation import check
from jaxclf.search import study as studies
from jaxclf.search.trials import Search, run_trials

BASE = Experiment(
    Data("a", "b", "c"),
    loss=Spec("focal", gamma=2.0),
    optim=Optim(lr=1e-3),
    train=Train(metric="macro_f1"),
)
SPACE = {
    "optim.lr": Float(1e-4, 1e-2, log=True),
    "train.epochs": Int(2, 3),
    "pool": Choice("cls", "mean"),
    "loss": Choice("bce", Spec("focal", gamma=Float(1.0, 3.0), smoothing=0.0)),
}


def score_of(experiment):
    return 1 / (1 + abs(math.log10(experiment.optim.lr / 7e-4)))


def train(experiment, folder, report_score):
    folder.mkdir(parents=True)
    for epoch in range(experiment.train.epochs):
        report_score(score_of(experiment), (epoch + 1) / experiment.train.epochs)
    return score_of(experiment)


def open_study(out, space=SPACE, base=BASE):
    def check_experiment(experiment):
        check(experiment)

    initial = check_space(space, base, check_experiment)
    return studies.open_study(f"sqlite:///{out / 'study.db'}", out, base, space, initial)


def search(out, trials, run=train):
    """Search in this process. Returns the results that were reported."""
    results = []
    run_trials(Search(open_study(out), BASE, SPACE, trials, out), run, results.append)
    return results
