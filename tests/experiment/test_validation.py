"""Every value of an experiment is checked, and every mistake names its key."""

import copy
import math

import pytest

from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.experiment.overrides import (
    hint_of,
    iter_fields,
    options_of,
    override,
)
from jaxclf.experiment.registries import load_registry
from jaxclf.experiment.validation import check, check_labels
from jaxclf.types import Bound

PLAIN = Experiment(Data("a.json", "b.json", "c.json"))
SPECS = [key for key, value in iter_fields(PLAIN) if isinstance(value, Spec)]
BOUNDS = {
    key: bound
    for key, _ in iter_fields(PLAIN)
    for bound in getattr(hint_of(PLAIN, key), "__metadata__", ())
    if isinstance(bound, Bound)
}


def error_of(function, *arguments):
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    return str(caught.value)


def check_changed(changes):
    return check(override(PLAIN, changes))


@pytest.mark.parametrize("key", SPECS)
def test_every_name_of_a_registry_is_accepted_with_its_defaults_as_options(key):
    for name, function in load_registry(key).items():
        options = {option: of.default for option, of in options_of(function).items()}
        assert check_changed({key: {"name": name, **options}})


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"loss": "fcal"}, "loss='fcal'; did you mean 'focal'?"),
        ({"pool": "qqq"}, "pool='qqq'; choose from: cls, mean, mean_max, attention"),
        ({"optim.schedule": "cosin"}, "optim.schedule='cosin'; did you mean 'cosine'?"),
        ({"train.metric": "macrof1"}, "train.metric='macrof1'; did you mean 'macro_f1'?"),
        ({"encoder.dtype": "bfloat"}, "encoder.dtype='bfloat'; did you mean 'bfloat16'?"),
        (
            {"loss": "focal", "loss.gama": 1},
            "loss.gama: unknown option 'gama' of 'focal'; did you mean 'gamma'?",
        ),
        ({"loss.gamma": 1}, "loss.gamma: unknown option 'gamma' of 'bce'; choose from: pos_weight"),
        ({"loss.name": "focal"}, "loss.name: unknown option 'name' of 'bce'"),
        ({"loss.smoothing": "much"}, "loss.smoothing='much': expected float"),
        ({"loss.pos_weight": [1, "x"]}, "loss.pos_weight="),
        ({"optim.schedule.end_factor": True}, "optim.schedule.end_factor=True: expected float"),
        (
            {"data.max_length": 30, "data.window_overlap": 16},
            "data.window_overlap=16 must be at most half of",
        ),
        ({"sampler.power": 0.5}, "sampler.power: unknown option 'power' of 'shuffle'"),
        # The message shows which end of a range is open.
        ({"optim.lr": 0.0}, "optim.lr=0.0 is out of range (0, 1)"),
        ({"encoder.dropout": 1}, "encoder.dropout=1.0 is out of range [0, 1)"),
        ({"head.dropout": 1.0}, "head.dropout=1.0 is out of range [0, 1)"),
        ({"loss": "focal", "loss.gamma": [2.0, -1.0]}, "loss.gamma=-1.0 is out of range"),
        ({"optim.schedule": {"name": "cosine_restarts", "cycles": 0}}, "optim.schedule.cycles=0"),
        ({"loss.pos_weight": 0.0}, "loss.pos_weight=0.0 is out of range (0, inf)"),
        *(
            ({"data.folds": folds, "data.fold": fold}, f"data.folds={folds}, data.fold={fold}:")
            for folds, fold in ((1, 0), (0, 1), (3, 3))
        ),
    ],
)
def test_an_unknown_name_option_or_value_is_refused(changes, start):
    message = error_of(check_changed, changes)
    assert message.startswith(start)
    assert not message.endswith(": ")  # an empty list of choices


def test_the_last_fold_is_accepted():
    assert check_changed({"data.folds": 3, "data.fold": 2})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", "3"),
        ("train.epochs", 2.5),
        ("optim.lr", "1e-4"),
        ("pool", "mean"),
        ("seed", True),
        ("data.test", 3),
        ("data.labels", "x,y"),
    ],
)
def test_an_experiment_written_in_python_is_checked_against_its_types(key, value):
    # Users have no beartype; bypass its check of the constructor.
    experiment = copy.deepcopy(PLAIN)
    head, _, tail = key.partition(".")
    object.__setattr__(getattr(experiment, head) if tail else experiment, tail or head, value)
    assert error_of(check, experiment).startswith(f"{key}=")


@pytest.mark.parametrize("key", BOUNDS)
def test_values_lie_within_their_bounds(key):
    low, high, open_below = BOUNDS[key]
    is_integer = isinstance(dict(iter_fields(PLAIN))[key], int)
    step = 1 if is_integer else 1e-9
    inside = [low + step if open_below else low, high - step if high < math.inf else 1e9]
    outside = [low if open_below else low - step, high, *([] if is_integer else [math.nan])]
    if key == "data.window_overlap":
        inside.pop()  # the upper end is half of max_length
    # Values of the keys that limit each other.
    roomy = {"data.max_length": 2**20 - 1, "data.window_overlap": 0, "data.folds": 2**10 - 1}
    for value in inside:
        assert check_changed({**roomy, key: value})
    for value in outside:
        message = error_of(check_changed, {**roomy, key: value})
        assert message.startswith(f"{key}=")
        assert "is out of range" in message


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        (
            {"threshold": "recall_at", "threshold.labels": ["c"]},
            "threshold.labels: unknown label 'c'",
        ),
        ({"loss": "focal", "loss.gamma": [1.0]}, "loss.gamma has 1 numbers"),
        (
            {"loss": "bce", "loss.pos_weight": [1.0, 2.0, 3.0]},
            "loss.pos_weight has 3 numbers for 2",
        ),
    ],
)
def test_options_about_labels_are_checked_against_the_labels(changes, start):
    names = ("stress", "neutral")
    message = error_of(check_labels, override(PLAIN, changes), names)
    assert start in message
    valid = {"threshold": "recall_at"}
    valid |= {"threshold.labels": ["stress"], "loss": "bce", "loss.pos_weight": [1.0, 2.0]}
    check_labels(override(PLAIN, valid), names)
