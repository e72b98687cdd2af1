"""Experiments by name, by path and from a run: each one loads, and what is wrong is said."""

import ast
import json
import re
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Experiment
from jaxclf.experiment.overrides import override, to_dict
from jaxclf.experiment.search_space import Choice, check_space, dimensions, draw
from jaxclf.experiment.validation import check
from jaxclf.training import run as training
from jaxclf.training import setup
from jaxclf.training.data import make_epochs
from jaxclf.training.loop import init_state
from jaxclf.training.step import dropout_key, make_train_step

CHECKOUT = Path(__file__).parent.parent.parent
EXPERIMENTS = CHECKOUT / "experiments"

SEARCHED = ["focal_attention", "goemotions_ekman", "goemotions_original"]

GOOD = """
from jaxclf.experiment.config import Data, Experiment
experiment = Experiment(Data("a.json", "b.json", "c.json"), seed=7)
"""


def complaint(name):
    with pytest.raises(ConfigError) as caught:
        catalog.load(str(name))
    return str(caught.value)


def test_the_catalogue_is_the_files_in_their_order():
    files = sorted(path.name.removesuffix(".py") for path in EXPERIMENTS.glob("*.py"))
    assert catalog.names() == files
    assert {"baseline", "focal_attention", "goemotions_ekman"} <= set(files)


@pytest.mark.parametrize("name", catalog.names())
def test_every_experiment_loads_and_passes_its_check(name):
    experiment = catalog.load(name)
    assert check(experiment) is experiment
    assert catalog.load(name) == experiment
    assert catalog.load(str(EXPERIMENTS / f"{name}.py")) == experiment


@pytest.mark.parametrize("name", catalog.names())
def test_every_experiment_says_how_to_run_it(name):
    docstring = ast.get_docstring(ast.parse((EXPERIMENTS / f"{name}.py").read_text("utf-8")))
    assert docstring is not None
    assert f"python -m jaxclf.train --exp {name}" in map(str.strip, docstring.splitlines())


def test_experiments_and_the_demonstration_set_are_in_the_wheel():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {"/experiments/*.py", "/data/*.json"} <= set(wheel["include"])
    assert wheel["sources"] == {"experiments": "jaxclf/experiments", "data": "jaxclf/data"}


def test_an_installed_package_brings_its_own_catalogue(tmp_path, monkeypatch):
    assert catalog.folder() == EXPERIMENTS
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(GOOD)
    monkeypatch.setattr(catalog, "PACKAGE", tmp_path)
    assert catalog.folder() == tmp_path / "experiments"
    assert catalog.names() == ["mine"]
    assert catalog.load("mine").seed == 7


@pytest.mark.parametrize("name", catalog.names())
def test_a_runs_config_is_the_experiment_again(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(catalog.load(name))))
    assert catalog.load(str(path)) == catalog.load(name)


def test_a_path_is_an_experiment_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    experiment = catalog.load(str(path))
    assert isinstance(experiment, Experiment)
    assert (experiment.data.val, experiment.seed) == ("b.json", 7)


def test_a_name_that_is_not_there_gets_the_nearest():
    assert complaint("baselin") == "unknown experiment 'baselin'; did you mean 'baseline'?"
    assert (
        complaint("qqq") == f"unknown experiment 'qqq'; choose from: {', '.join(catalog.names())}"
    )


@pytest.mark.parametrize("name", ["mine.py", "config.json"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    assert complaint(tmp_path / name) == f"{tmp_path / name}: no such file"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "defines no `experiment = Experiment(…)`"),
        ("experiment = 3", "defines no `experiment = Experiment(…)`"),
        ("experiment = (", "SyntaxError: "),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be"),
        (
            "from jaxclf.experiment.config import Experiments",
            "ImportError: cannot import name 'Experiments'",
        ),
        ("experiment = Experiment()", "NameError: name 'Experiment' is not defined"),
        (GOOD.replace("seed", "sed"), "unexpected keyword argument 'sed'"),
        (f"{GOOD}\nexperiment.optin", "AttributeError: 'Experiment' object has no attribute 'opt"),
        ("int('many')", "ValueError: invalid literal for int()"),
        ("{}['lr']", "KeyError: 'lr'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path, source, says):
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert complaint(path).startswith(f"{path}: ")
    assert says in complaint(path)


def test_an_experiment_built_on_one_that_is_not_there_says_so(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from jaxclf.experiment import catalog\ncatalog.load('baselin')")
    assert "unknown experiment 'baselin'; did you mean 'baseline'?" in complaint(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"seed": 0,\n', ":2: not JSON: "),
        (b"", ":1: not JSON: "),
        (b'"\xff"', "not UTF-8"),
        (b"{}", "missing key 'data.train'"),
    ],
)
def test_what_is_wrong_with_a_runs_config_is_said(tmp_path, content, says):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert says in complaint(path)


@pytest.mark.parametrize("name", SEARCHED)
def test_every_space_is_one_that_its_experiment_lies_in(name):
    base, space = catalog.load(name), catalog.load_space(name)
    own = check_space(space, base, check)
    assert set(own) <= set(dimensions(space))
    assert draw(space, lambda key, _: own[key])["optim.lr"] == base.optim.lr
    assert catalog.load_space(str(EXPERIMENTS / f"{name}.py")) == space


@pytest.mark.parametrize(
    "content", ["", "space = 3", "space = {}", "space = {'pool': ('cls', 'mean')}"]
)
def test_an_experiment_without_a_space_says_so(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_text(GOOD + content)
    with pytest.raises(ConfigError, match=r"mine\.py: .*space") as caught:
        catalog.load_space(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="a run has no search space"):
        catalog.load_space("runs/a/config.json")


class BuiltError(Exception):
    """Ends a training where its step is made."""


@pytest.fixture(scope="module")
def traced(tiny_encoder, tiny_data, tmp_path_factory):
    """experiment -> what `train` would compute, by its own wiring: the program of the training
    step, the arrays in it, and each epoch's first batch. Nothing is compiled."""
    known = {}
    changes = {f"data.{split}": str(path) for split, path in tiny_data.items()}
    changes |= {"encoder.name": str(tiny_encoder), "data.max_length": 32}

    def parts_of(experiment):
        seen = {}

        def stop(*given):
            raise BuiltError(make_train_step(*given), given[2])

        with pytest.MonkeyPatch.context() as patch:
            keep = seen.setdefault
            patch.setattr(setup, "make_epochs", lambda *of: keep("epochs", make_epochs(*of)))
            patch.setattr(setup, "check_groups", lambda _, shapes: keep("shapes", shapes))
            patch.setattr(training, "make_train_step", stop)
            with pytest.raises(BuiltError) as caught:
                training.train(experiment, tmp_path_factory.mktemp("traced"))
        return *caught.value.args, seen["shapes"], seen["epochs"]

    def trace(experiment):
        step, tx, shapes, epochs = parts_of(experiment)
        batches = [next(epochs.batches(epoch, 0)) for epoch in range(len(epochs.sizes))]
        key, ema = dropout_key(0), bool(experiment.regularization.ema_decay)
        state = jax.eval_shape(lambda of: init_state(of, tx.init(of), key, ema)[0], shapes)
        program = jax.make_jaxpr(step)(state, batches[0])
        text = re.sub(r"0x[0-9a-f]+", "", str(program))  # where a function lies in memory
        leaves = jax.tree.leaves((program.consts, batches))
        return [text, *(np.asarray(leaf).tobytes() for leaf in leaves)]

    def cached(experiment, anew=False):
        experiment = override(experiment, changes)
        key = json.dumps(to_dict(experiment))
        if anew or key not in known:
            known[key] = trace(experiment)
        return known[key]

    return cached


def test_every_dimension_of_every_space_reaches_the_training_step(traced):
    """Others' searches have sampled values that never reached the loss. Of each dimension, two
    values must make another program of the training step or other batches; what two spaces share is
    tried once."""
    base, tried = catalog.load("focal_attention"), set()
    assert traced(base) == traced(base, anew=True)
    for searched in SEARCHED:
        for key, dimension in catalog.load_space(searched).items():
            for name, varied in dimensions({key: dimension}).items():
                if name in tried:
                    continue
                some = [override(base, at(key, dimension, name, end)) for end in ends(varied)[:2]]
                if name == key:  # against the value that stands
                    some = [base, *(one for one in some if one != base)]
                assert traced(some[0]) != traced(some[1]), name
                tried.add(name)
    assert {"optim.lr", "loss.focal.gamma", "sampler.balanced.power", "train.epochs"} <= tried


def ends(dimension):
    return list(dimension.values) if isinstance(dimension, Choice) else dimension[:2]


def at(key, dimension, name, value):
    """The changes that give the dimension `name`, `key`'s own or one that hangs on it, a value."""
    chosen = {key: name.removeprefix(f"{key}.").split(".")[0], name: value}
    return draw({key: dimension}, lambda asked, of: chosen.get(asked, ends(of)[0]))
