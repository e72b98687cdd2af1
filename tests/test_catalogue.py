"""Experiments by name, by path and from a run: each one loads, and what is wrong is said."""

import ast
import json
import tomllib
from pathlib import Path

import pytest

from jaxclf import catalogue
from jaxclf.config import Experiment, to_dict
from jaxclf.errors import ConfigError
from jaxclf.train import REGISTRIES
from jaxclf.validation import check

CHECKOUT = Path(__file__).parent.parent
EXPERIMENTS = CHECKOUT / "experiments"

GOOD = """
from jaxclf.config import Data, Experiment
experiment = Experiment(Data("a.json", "b.json", "c.json"), seed=7)
"""


def complaint(name):
    with pytest.raises(ConfigError) as caught:
        catalogue.load(str(name))
    return str(caught.value)


def test_the_catalogue_is_the_files_in_their_order():
    files = sorted(path.name.removesuffix(".py") for path in EXPERIMENTS.glob("*.py"))
    assert catalogue.names() == files
    assert {"baseline", "focal_attention", "goemotions_ekman"} <= set(files)


@pytest.mark.parametrize("name", catalogue.names())
def test_every_experiment_loads_and_passes_its_check(name):
    experiment = catalogue.load(name)
    assert check(experiment, REGISTRIES) is experiment
    assert catalogue.load(name) == experiment
    assert catalogue.load(str(EXPERIMENTS / f"{name}.py")) == experiment


@pytest.mark.parametrize("name", catalogue.names())
def test_every_experiment_says_how_to_run_it(name):
    docstring = ast.get_docstring(ast.parse((EXPERIMENTS / f"{name}.py").read_text("utf-8")))
    assert docstring is not None
    assert f"python -m jaxclf.train --exp {name}" in map(str.strip, docstring.splitlines())


def test_every_experiment_is_in_the_wheel():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    packed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for path in EXPERIMENTS.glob("*.py"):
        assert packed[f"experiments/{path.name}"] == f"jaxclf/experiments/{path.name}"


def test_an_installed_package_brings_its_own_catalogue(tmp_path, monkeypatch):
    assert catalogue.folder() == EXPERIMENTS
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text(GOOD)
    monkeypatch.setattr(catalogue, "PACKAGE", tmp_path)
    assert catalogue.folder() == tmp_path / "experiments"
    assert catalogue.names() == ["mine"]
    assert catalogue.load("mine").seed == 7


@pytest.mark.parametrize("name", catalogue.names())
def test_a_runs_config_is_the_experiment_again(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(catalogue.load(name))))
    assert catalogue.load(str(path)) == catalogue.load(name)


def test_a_path_is_an_experiment_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    experiment = catalogue.load(str(path))
    assert isinstance(experiment, Experiment)
    assert (experiment.data.val, experiment.seed) == ("b.json", 7)


def test_a_name_that_is_not_there_gets_the_nearest():
    assert complaint("baselin") == "unknown experiment 'baselin'; did you mean 'baseline'?"
    assert complaint("qqq") == f"unknown experiment 'qqq'; there is: {', '.join(catalogue.names())}"


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
        ("from jaxclf.config import Experiments", "ImportError: cannot import name 'Experiments'"),
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
    path.write_text("from jaxclf import catalogue\ncatalogue.load('baselin')")
    assert "unknown experiment 'baselin'; did you mean 'baseline'?" in complaint(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"seed": 0,\n', ":2: not JSON: "),
        (b"", ":1: not JSON: "),
        (b'"\xff"', "not UTF-8"),
        (b"{}", "no 'data.train'"),
    ],
)
def test_what_is_wrong_with_a_runs_config_is_said(tmp_path, content, says):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert says in complaint(path)
