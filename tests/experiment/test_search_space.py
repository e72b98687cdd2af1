"""Search spaces are held to their experiments before any trial."""

import pytest

from jaxclf.errors import ConfigError
from jaxclf.experiment.config import Data, Experiment, Optim, Spec
from jaxclf.experiment.overrides import difference, override
from jaxclf.experiment.search_space import (
    Choice,
    Float,
    Int,
    check_space,
    dimensions,
    draw,
    format_changes,
)
from jaxclf.experiment.validation import check

BASE = Experiment(Data("a", "b", "c"), loss=Spec("focal", gamma=2.0), optim=Optim(lr=1e-3))
SPACE = {
    "optim.lr": Float(1e-4, 1e-2, log=True),
    "train.epochs": Int(2, 3),
    "pool": Choice("cls", "mean"),
    "loss": Choice("bce", Spec("focal", gamma=Float(1.0, 3.0), smoothing=0.0)),
}


def check_with_registries(space, base=BASE):
    return check_space(space, base, lambda experiment: check(experiment))


def test_a_draw_asks_only_for_dimensions_in_effect():
    names = []

    def suggest(name, dimension):
        names.append(name)
        return {"loss": loss, "pool": "mean"}.get(name, 2)

    loss = "bce"
    assert draw(SPACE, suggest)["loss"] == "bce"
    assert names == ["optim.lr", "train.epochs", "pool", "loss"]
    loss = "focal"
    changes = draw(SPACE, suggest)
    assert names[4:] == ["optim.lr", "train.epochs", "pool", "loss", "loss.focal.gamma"]
    assert override(BASE, changes).loss == Spec("focal", gamma=2, smoothing=0.0)
    assert list(dimensions(SPACE)) == [*names[:4], "loss.focal.gamma"]
    assert format_changes(changes).endswith("pool=mean loss=focal loss.gamma=2 loss.smoothing=0")


def test_the_experiment_is_a_point_of_its_space():
    initial = check_with_registries(SPACE)
    assert initial == {
        "optim.lr": 1e-3, "train.epochs": 3, "pool": "cls", "loss": "focal",
        "loss.focal.gamma": 2.0,
    }  # fmt: skip
    experiment = override(BASE, draw(SPACE, lambda name, _: initial[name]))
    # The default of an option is written out.
    assert difference(BASE, experiment) == {
        "loss": "focal", "loss.gamma": 2.0, "loss.smoothing": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        ({"optim.lrr": Float(1e-4, 1e-2)}, ["'optim.lrr'", "'optim.lr'"]),
        ({"optim.lr": Float(1e-4, 2.0)}, ["optim.lr=2", "(0, 1)"]),
        ({"train.epochs": Float(1.5, 3.5)}, ["train.epochs=1.5", "int"]),
        ({"pool": Choice("cls", "meen")}, ["pool='meen'", "'mean'"]),
        (
            {"loss": Choice("bce", Spec("focal", gama=Float(1.0, 3.0)))},
            ["loss.gama", "'focal'", "'gamma'"],
        ),
        (
            {"loss": Choice("bce", Spec("focal", gamma=Float(-1.0, 3.0)))},
            ["loss=focal", "loss.gamma=-1"],
        ),
        (
            {"data.max_length": Int(16, 128), "data.window_overlap": Int(8, 64)},
            ["data.window_overlap", "data.max_length"],
        ),
        ({"optim.lr": Float(1e-3, 1e-3)}, ["optim.lr", "range"]),
        ({"optim.lr": Float(1e-2, 1e-3)}, ["optim.lr", "range"]),
        ({"optim.weight_decay": Float(0.0, 1.0, log=True)}, ["optim.weight_decay", "log"]),
        ({"pool": Choice("cls")}, ["pool", "two values"]),
        ({"pool": Choice(["cls"][0], Spec("mean"), 3.5)}, ["pool=3.5"]),
        ({**SPACE, "loss.gamma": Float(1.0, 3.0)}, ["loss.gamma", "Spec"]),
        ({"seed": Int(0, 9)}, ["seed"]),
        ({"train.metric": Choice("macro_f1", "map")}, ["train.metric"]),
        ({"threshold": Choice("per_label", "shared")}, ["threshold"]),
        ({"train.patience": Int(1, 3)}, ["train.patience"]),
        ({"optim.lr": Float(1e-5, 1e-4)}, ["optim.lr=0.001"]),
        ({"loss": Choice("bce", "asymmetric")}, ["loss='focal'"]),
        ({"loss": Choice("bce", Spec("focal", gamma=Float(3.0, 4.0)))}, ["loss.gamma=2.0"]),
        (
            {"loss": Choice("bce", Spec("focal", gamma=2.0, smoothing=0.1))},
            ["loss.smoothing=0.0"],
        ),
    ],
)
def test_an_impossible_space_is_refused(space, parts):
    with pytest.raises(ConfigError) as caught:
        check_with_registries(space)
    for part in parts:
        assert part in str(caught.value)


def test_the_values_of_a_choice_have_different_names():
    with pytest.raises(ConfigError, match="Choice"):
        Choice("focal", Spec("focal", gamma=1.0))
