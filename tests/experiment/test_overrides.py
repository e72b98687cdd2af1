"""Overrides, parsing and the way to JSON and back: one way to change an experiment."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.experiment.overrides import (
    OTHER_FILES,
    difference,
    from_dict,
    iter_fields,
    override,
    parse_overrides,
    to_dict,
)
from jaxclf.experiment.registries import REGISTRIES

PLAIN = Experiment(Data("a.json", "b.json", "c.json"))
SPECS = [key for key, value in iter_fields(PLAIN) if isinstance(value, Spec)]
EXPERIMENTS = pytest.mark.parametrize("name", catalog.names())
NUMBERS = st.integers(-9, 9) | st.floats(allow_nan=False) | st.none() | st.text(max_size=3)
OPTIONS = st.dictionaries(
    st.text(min_size=1, max_size=3), NUMBERS | st.lists(st.floats(0, 1)).map(tuple), max_size=3
)


def error_of(function, *arguments):
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    return str(caught.value)


def test_a_new_training_file_drops_the_files_of_the_previous_one():
    changed = override(PLAIN, {"data.test": "t.csv", "data.train": "mine.csv"})
    assert (changed.data.train, changed.data.val, changed.data.test) == ("mine.csv", "", "t.csv")
    kept = override(PLAIN, {"data.train": "mine.csv", "data.val": PLAIN.data.val})
    assert override(PLAIN, difference(PLAIN, kept)) == kept


def test_every_key_can_be_overridden_and_nothing_else_changes():
    values = {str: "z", int: 3, float: 0.25, tuple: ("u", "v"), Spec: Spec("z", option=1)}
    values |= {dict: {"u": "v"}, bool: True}
    literals = {"encoder.dtype": "bfloat16", "train.track": "wandb"}
    for key, value in iter_fields(PLAIN):
        expected = literals.get(key, values[type(value)])
        override_value = {"name": "z", "option": 1} if isinstance(value, Spec) else expected
        changed = dict(iter_fields(override(PLAIN, {key: override_value})))
        dropped = OTHER_FILES if key == "data.train" else {}
        assert changed == dict(iter_fields(PLAIN)) | dropped | {key: expected}
        assert type(changed[key]) is type(value)


def test_the_keys_of_the_contract_exist():
    keys = {"data.train", "encoder.name", "pool", "head", "loss", "sampler", "threshold", "seed"}
    keys |= {"optim.lr", "optim.schedule", "train.epochs", "train.metric"}
    assert keys <= dict(iter_fields(PLAIN)).keys()
    assert REGISTRIES.keys() == {*SPECS, "train.metric", "blend"}


@EXPERIMENTS
def test_an_experiment_overridden_with_its_own_values_is_itself(name):
    experiment = catalog.load(name)
    plain = to_dict(experiment)
    values = {
        key: plain[key.split(".")[0]][key.split(".")[1]] if "." in key else plain[key]
        for key, _ in iter_fields(experiment)
    }
    assert override(experiment, values) == experiment
    assert override(experiment, {}) == experiment
    assert override(PLAIN, values) == experiment


def test_naming_a_spec_drops_its_options_and_an_option_is_added():
    focal = override(PLAIN, {"loss": "focal", "loss.gamma": 3, "loss.alpha": 0.5})
    assert focal.loss == Spec("focal", gamma=3, alpha=0.5)
    assert override(focal, {"loss.gamma": 1.0}).loss == Spec("focal", gamma=1.0, alpha=0.5)
    assert override(focal, {"loss": "bce"}).loss == Spec("bce")
    assert override(focal, {"loss": "focal"}).loss == Spec("focal")
    assert override(focal, {"loss": {"name": "bce", "smoothing": 0.1}}).loss == Spec(
        "bce", smoothing=0.1
    )
    assert override(focal, {"loss": Spec("bce")}).loss == Spec("bce")
    assert override(PLAIN, {"optim.schedule.end_factor": 0.1}).optim.schedule == Spec(
        "cosine", end_factor=0.1
    )
    assert focal.loss == Spec("focal", gamma=3, alpha=0.5)  # as it was
    assert PLAIN.loss == Spec("bce")


def test_a_list_or_a_comma_makes_a_tuple_and_an_integer_a_float():
    for value in (["x", "y"], ("x", "y"), "x,y", " x , y,"):
        assert override(PLAIN, {"data.labels": value}).data.labels == ("x", "y")
    assert override(PLAIN, {"data.labels": ""}).data.labels == ()
    decay = override(PLAIN, {"optim.weight_decay": 1}).optim.weight_decay
    assert (decay, type(decay)) == (1.0, float)


@pytest.mark.parametrize(
    ("key", "start"),
    [
        ("los", "unknown key 'los'; did you mean 'loss'?"),
        ("lr", "unknown key 'lr'; did you mean 'optim.lr'?"),
        ("ema_decay", "unknown key 'ema_decay'; did you mean 'regularization.ema_decay'?"),
        ("train.epoch", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("optim.schedul.end", "unknown key 'optim.schedul.end'; did you mean 'optim.schedule'?"),
        ("data", "unknown key 'data'; "),
        ("seed.x", "unknown key 'seed.x'; "),
        ("loss.gamma.x", "unknown key 'loss.gamma.x'; "),
        ("", "unknown key ''; choose from: data.train, "),
    ],
)
def test_an_unknown_key_gets_the_nearest(key, start):
    assert error_of(override, PLAIN, {key: 1}).startswith(start)


@pytest.mark.parametrize(
    ("key", "value", "start"),
    [
        ("train.epochs", "many", "train.epochs='many': expected int"),
        ("train.epochs", 2.0, "train.epochs=2.0: expected int"),
        ("train.epochs", True, "train.epochs=True: expected int"),
        ("optim.lr", "2e-4", "optim.lr='2e-4': expected float"),
        ("optim.lr", False, "optim.lr=False: expected float"),
        ("optim.lr", None, "optim.lr=None: expected float"),
        pytest.param(
            "optim.weight_decay", 10**400, "optim.weight_decay=1000", id="too large a number"
        ),
        ("data.train", 3, "data.train=3: expected str"),
        ("data.labels", 3, "data.labels=3: expected a list, such as"),
        ("data.labels", ["x", 3], "data.labels=['x', 3]: expected a list, such as"),
        ("loss", 3, "loss=3: expected "),
        ("loss", {"gamma": 2.0}, "loss={'gamma': 2.0}: expected "),
        ("loss", ["focal"], "loss=['focal']: expected "),
    ],
)
def test_a_value_of_a_wrong_type_names_the_key_and_the_type(key, value, start):
    assert error_of(override, PLAIN, {key: value}).startswith(start)


@settings(deadline=None, max_examples=40)
@given(options=OPTIONS, texts=st.lists(st.text(), min_size=3, max_size=3), lr=st.floats(0, 1))
def test_json_round_trip_of_any_values(options, texts, lr):
    experiment = override(
        Experiment(Data(*texts, labels=tuple(texts)), loss=Spec("focal", **options)),
        {"optim.lr": lr},
    )
    assert from_dict(json.loads(json.dumps(to_dict(experiment)))) == experiment


def test_json_holds_a_spec_as_one_object():
    plain = to_dict(override(PLAIN, {"loss": "focal", "loss.gamma": 3.0}))
    assert plain["loss"] == {"name": "focal", "gamma": 3.0}
    assert plain["data"]["labels"] == []
    assert plain["optim"]["schedule"] == {"name": "cosine"}
    assert list(plain) == [part.name for part in dataclasses.fields(Experiment)]


@pytest.mark.parametrize("key", dict(iter_fields(PLAIN)))
def test_a_missing_key_has_its_default(key):
    blank = Experiment(Data("a", "b", "c"))
    plain = to_dict(override(blank, {"optim.lr": 0.5, "pool": "mean"}))
    head, _, tail = key.partition(".")
    del (plain[head] if tail else plain)[tail or head]
    if key in ("data.train", "data.val", "data.test"):
        assert error_of(from_dict, plain) == f"missing key {key!r}"
    else:
        assert dict(iter_fields(from_dict(plain)))[key] == dict(iter_fields(blank))[key]


@pytest.mark.parametrize(
    ("head", "tail", "start"),
    [
        ("train", "epoch", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("los", None, "unknown key 'los'; did you mean 'loss'?"),
        ("data", "test", "data.test=3: expected str"),
        ("seed", None, "seed='x': expected int"),
        ("train", None, "train='x': expected an object"),
    ],
)
def test_an_unknown_key_or_a_wrong_value_is_an_error(head, tail, start):
    plain = to_dict(PLAIN)
    if tail:
        plain[head][tail] = 3
    else:
        plain[head] = "x"
    assert error_of(from_dict, plain).startswith(start)


def test_words_are_parsed_to_values():
    words = ["loss.gamma=3", "optim.lr=1e-4", "pool=mean_max", "data.labels=x,y", "data.test=a=b"]
    words += ["loss.pos_weight=[1, 2]", 'data.val="3"', "loss.alpha=null", "data.train="]
    assert parse_overrides(words) == {
        "loss.gamma": 3,
        "optim.lr": 1e-4,
        "pool": "mean_max",
        "data.labels": "x,y",
        "data.test": "a=b",
        "loss.pos_weight": [1, 2],
        "data.val": "3",
        "loss.alpha": None,
        "data.train": "",
    }
    assert parse_overrides([]) == {}


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z.]+", fullmatch=True), NUMBERS | st.lists(NUMBERS)))
def test_every_json_value_can_be_a_word(changes):
    assert parse_overrides([f"{key}={json.dumps(value)}" for key, value in changes.items()]) == (
        changes
    )


def test_a_key_that_takes_a_string_takes_the_word_as_it_was_typed():
    words = ["encoder.name=2024", "data.train=007", "train.init_from=1e3", "data.labels=2024"]
    changes = parse_overrides([*words, "data.val=true", "train.epochs=2", "optim.freeze=1,2"])
    experiment = override(PLAIN, changes)
    assert experiment.encoder.name == "2024"
    assert (experiment.data.train, experiment.data.val) == ("007", "true")
    assert experiment.train.init_from == "1e3"
    assert experiment.data.labels == ("2024",)
    assert experiment.optim.freeze == ("1", "2")
    assert experiment.train.epochs == 2
    assert parse_overrides(['encoder.name="2024"']) == {"encoder.name": "2024"}


def test_a_word_without_an_equals_sign_is_an_error():
    assert error_of(parse_overrides, ["epochs"]) == (
        "'epochs' is not of the form key=value, such as train.epochs=1"
    )
