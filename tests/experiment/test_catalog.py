"""Experiments by name, by path and from a run: each loads, and each mistake is named."""

import ast
import json
import re
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxclf.errors import ConfigError, JaxclfError
from jaxclf.experiment import catalog
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


def error_of(name):
    with pytest.raises(JaxclfError) as caught:
        catalog.load(str(name))
    return str(caught.value)


def test_the_catalog_is_the_files_in_order():
    files = sorted(path.name.removesuffix(".py") for path in EXPERIMENTS.glob("*.py"))
    assert catalog.names() == files
    assert {"baseline", "focal_attention", "goemotions_ekman"} <= set(files)


@pytest.mark.parametrize("name", catalog.names())
def test_every_experiment_loads_passes_its_check_and_states_its_command(name):
    experiment = catalog.load(name)
    assert check(experiment) is experiment
    assert catalog.load(name) == experiment
    assert catalog.load(str(EXPERIMENTS / f"{name}.py")) == experiment
    docstring = ast.get_docstring(ast.parse((EXPERIMENTS / f"{name}.py").read_text("utf-8")))
    assert docstring is not None
    assert f"jaxclf train --exp {name}" in map(str.strip, docstring.splitlines())


def test_experiments_and_the_demonstration_set_are_in_the_wheel():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {"/experiments/*.py", "/data/*.json"} <= set(wheel["include"])
    assert wheel["sources"] == {"experiments": "jaxclf/experiments", "data": "jaxclf/data"}


def test_an_installed_package_contains_its_catalog(tmp_path, monkeypatch):
    assert catalog.folder() == EXPERIMENTS
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(GOOD)
    monkeypatch.setattr(catalog, "PACKAGE", tmp_path)
    assert catalog.folder() == tmp_path / "experiments"
    assert catalog.names() == ["mine"]
    assert catalog.load("mine").seed == 7


@pytest.mark.parametrize("name", catalog.names())
def test_the_config_of_a_run_loads_as_the_experiment(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(catalog.load(name))))
    assert catalog.load(str(path)) == catalog.load(name)


def test_an_unknown_name_gets_the_nearest():
    assert error_of("baselin") == "unknown experiment 'baselin'; did you mean 'baseline'?"
    assert error_of("qqq") == f"unknown experiment 'qqq'; choose from: {', '.join(catalog.names())}"


@pytest.mark.parametrize("name", ["mine.py", "config.json"])
def test_a_missing_file_is_named(tmp_path, name):
    assert error_of(tmp_path / name) == f"{tmp_path / name}: no such file"


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("", "experiment = Experiment(…)"),
        ("experiment = 3", "experiment = Experiment(…)"),
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
def test_an_error_in_a_file_names_the_file(tmp_path, source, part):
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert error_of(path).startswith(f"{path}: ")
    assert part in error_of(path)


def test_an_unknown_name_in_a_file_gets_the_nearest(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from jaxclf.experiment import catalog\ncatalog.load('baselin')")
    assert error_of(path) == "unknown experiment 'baselin'; did you mean 'baseline'?"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b'{"seed": 0,\n', ":2: not JSON: "),
        (b"", ":1: not JSON: "),
        (b'"\xff"', "not UTF-8"),
        (b"{}", "missing key 'data.train'"),
        (b"[]", "not a JSON object"),
        (b'{"regular": {}}', "written by jaxclf 0.1"),
    ],
)
def test_an_error_in_a_config_is_stated(tmp_path, content, part):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert part in error_of(path)


@pytest.mark.parametrize("name", SEARCHED)
def test_every_experiment_is_a_point_of_its_space(name):
    base, space = catalog.load(name), catalog.load_space(name)
    point = check_space(space, base, check)
    assert set(point) <= set(dimensions(space))
    assert draw(space, lambda key, _: point[key])["optim.lr"] == base.optim.lr
    assert catalog.load_space(str(EXPERIMENTS / f"{name}.py")) == space


@pytest.mark.parametrize(
    "content", ["", "space = 3", "space = {}", "space = {'pool': ('cls', 'mean')}"]
)
def test_an_experiment_without_a_space_is_refused(tmp_path, content):
    path = tmp_path / "mine.py"
    path.write_text(GOOD + content)
    with pytest.raises(ConfigError, match=r"mine\.py: .*space") as caught:
        catalog.load_space(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="a run has no search space"):
        catalog.load_space("runs/a/config.json")


class StepMadeError(Exception):
    """Ends a training where its step is made."""


@pytest.fixture(scope="module")
def trace_cached(tiny_encoder, tiny_data, tmp_path_factory):
    """experiment -> the jaxpr of the training step that `train` would compile, its constants, and
    the first batch of each epoch. Nothing is compiled."""
    traces = {}
    changes = {f"data.{split}": str(path) for split, path in tiny_data.items()}
    changes |= {"encoder.name": str(tiny_encoder), "data.max_length": 32}

    def make_parts(experiment):
        parts = {}

        def stop(*arguments):
            raise StepMadeError(make_train_step(*arguments), arguments[2])

        with pytest.MonkeyPatch.context() as patch:
            keep = parts.setdefault
            patch.setattr(setup, "make_epochs", lambda *of: keep("epochs", make_epochs(*of)))
            patch.setattr(setup, "check_groups", lambda _, shapes: keep("shapes", shapes))
            patch.setattr(training, "make_train_step", stop)
            with pytest.raises(StepMadeError) as caught:
                training.train(experiment, tmp_path_factory.mktemp("traced"))
        return *caught.value.args, parts["shapes"], parts["epochs"]

    def trace(experiment):
        step, tx, shapes, epochs = make_parts(experiment)
        batches = [next(epochs.batches(epoch, 0)) for epoch in range(len(epochs.sizes))]
        key, ema = dropout_key(0), bool(experiment.regularization.ema_decay)
        state = jax.eval_shape(lambda of: init_state(of, tx.init(of), key, ema)[0], shapes)
        program = jax.make_jaxpr(step)(state, batches[0])
        text = re.sub(r"0x[0-9a-f]+", "", str(program))  # addresses of functions
        leaves = jax.tree.leaves((program.consts, batches))
        return [text, *(np.asarray(leaf).tobytes() for leaf in leaves)]

    def trace_once(experiment, again=False):
        experiment = override(experiment, changes)
        key = json.dumps(to_dict(experiment))
        if again or key not in traces:
            traces[key] = trace(experiment)
        return traces[key]

    return trace_once


@pytest.mark.slow
def test_every_dimension_of_every_space_reaches_the_training_step(trace_cached):
    """Two values of each dimension make different programs of the training step or different
    batches. A dimension of several spaces is tried once."""
    base, tried = catalog.load("focal_attention"), set()
    assert trace_cached(base) == trace_cached(base, again=True)
    for name in SEARCHED:
        for key, dimension in catalog.load_space(name).items():
            for inner_name, inner in dimensions({key: dimension}).items():
                if inner_name in tried:
                    continue
                pair = [
                    override(base, changes_at(key, dimension, inner_name, end))
                    for end in ends(inner)[:2]
                ]
                if inner_name == key:  # compared with the experiment itself
                    pair = [base, *(experiment for experiment in pair if experiment != base)]
                assert trace_cached(pair[0]) != trace_cached(pair[1]), inner_name
                tried.add(inner_name)
    assert {"optim.lr", "loss.focal.gamma", "sampler.balanced.power", "train.epochs"} <= tried


def ends(dimension):
    return list(dimension.values) if isinstance(dimension, Choice) else dimension[:2]


def changes_at(key, dimension, name, value):
    """The changes that set a dimension of `key`, or one of its options, to a value."""
    chosen = {key: name.removeprefix(f"{key}.").split(".")[0], name: value}
    return draw({key: dimension}, lambda asked, of: chosen.get(asked, ends(of)[0]))
