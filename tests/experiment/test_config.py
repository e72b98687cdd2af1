"""An experiment is a value: one way to change it, and every mistake is told with its key."""

import copy
import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.errors import ConfigError
from jaxclf.experiment import catalog
from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.experiment.overrides import (
    from_dict,
    hint_of,
    iter_fields,
    options_of,
    override,
    parse_overrides,
    to_dict,
)
from jaxclf.experiment.registries import REGISTRIES, load_registry
from jaxclf.experiment.validation import check, check_labels
from jaxclf.types import Bound

PLAIN = Experiment(Data("a.json", "b.json", "c.json"))
SPECS = [key for key, value in iter_fields(PLAIN) if isinstance(value, Spec)]
EXPERIMENTS = pytest.mark.parametrize("name", catalog.names())


def complaint(function, *arguments):
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    return str(caught.value)


def checked(changes):
    return check(override(PLAIN, changes))


# Override


def test_every_key_can_be_overridden_and_nothing_else_changes():
    other = {str: "z", int: 3, float: 0.25, tuple: ("u", "v"), Spec: Spec("z", option=1)}
    other |= {dict: {"u": "v"}, bool: True}
    literals = {"encoder.dtype": "bfloat16"}
    for key, value in iter_fields(PLAIN):
        wanted = literals.get(key, other[type(value)])
        given_as = {"name": "z", "option": 1} if isinstance(value, Spec) else wanted
        changed = dict(iter_fields(override(PLAIN, {key: given_as})))
        assert changed == dict(iter_fields(PLAIN)) | {key: wanted}
        assert type(changed[key]) is type(value)


def test_the_keys_are_those_of_the_house():
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


def test_naming_a_spec_drops_its_options_and_an_option_adds_to_them():
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


def test_a_list_or_a_comma_makes_a_tuple_and_a_whole_number_a_float():
    for value in (["x", "y"], ("x", "y"), "x,y", " x , y,"):
        assert override(PLAIN, {"data.labels": value}).data.labels == ("x", "y")
    assert override(PLAIN, {"data.labels": ""}).data.labels == ()
    decay = override(PLAIN, {"optim.weight_decay": 1}).optim.weight_decay
    assert (decay, type(decay)) == (1.0, float)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("los", "unknown key 'los'; did you mean 'loss'?"),
        ("train.epoch", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("optim.schedul.end", "unknown key 'optim.schedul.end'; did you mean 'optim.schedule'?"),
        ("data", "unknown key 'data'; "),
        ("seed.x", "unknown key 'seed.x'; "),
        ("loss.gamma.x", "unknown key 'loss.gamma.x'; "),
        ("", "unknown key ''; choose from: data.train, "),
    ],
)
def test_an_unknown_key_gets_the_nearest(key, says):
    assert complaint(override, PLAIN, {key: 1}).startswith(says)


@pytest.mark.parametrize(
    ("key", "value", "says"),
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
        ("data.labels", 3, "data.labels=3: expected tuple[str, ...]"),
        ("data.labels", ["x", 3], "data.labels=['x', 3]: expected tuple[str, ...]"),
        ("loss", 3, "loss=3: expected "),
        ("loss", {"gamma": 2.0}, "loss={'gamma': 2.0}: expected "),
        ("loss", ["focal"], "loss=['focal']: expected "),
    ],
)
def test_a_value_of_another_type_names_the_key_and_the_type(key, value, says):
    assert complaint(override, PLAIN, {key: value}).startswith(says)


# Check


@EXPERIMENTS
def test_a_checked_experiment_is_returned_unchanged(name):
    experiment = catalog.load(name)
    before = to_dict(experiment)
    assert check(experiment) is experiment
    assert to_dict(experiment) == before


@pytest.mark.parametrize("key", SPECS)
def test_every_name_of_a_registry_is_accepted_with_its_defaults_as_options(key):
    for name, function in load_registry(key).items():
        options = {option: of.default for option, of in options_of(function).items()}
        assert checked({key: {"name": name, **options}})


@pytest.mark.parametrize(
    ("changes", "says"),
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
    ],
)
def test_an_unknown_name_option_or_value_is_named(changes, says):
    assert complaint(checked, changes).startswith(says)


def test_a_name_without_options_says_that_it_has_none():
    message = complaint(checked, {"sampler.power": 0.5})
    assert message.startswith("sampler.power: unknown option 'power' of 'shuffle'")
    assert not message.endswith(": ")


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
def test_an_experiment_written_in_python_is_held_to_its_types_too(key, value):
    # For users no beartype stands guard over the constructors: put the value in behind its back.
    experiment = copy.deepcopy(PLAIN)
    head, _, tail = key.partition(".")
    object.__setattr__(getattr(experiment, head) if tail else experiment, tail or head, value)
    assert complaint(check, experiment).startswith(f"{key}=")


BOUNDS = {
    key: bound
    for key, _ in iter_fields(PLAIN)
    for bound in getattr(hint_of(PLAIN, key), "__metadata__", ())
    if isinstance(bound, Bound)
}


@pytest.mark.parametrize("key", BOUNDS)
def test_values_lie_within_their_bounds(key):
    low, high, open_below = BOUNDS[key]
    whole = isinstance(dict(iter_fields(PLAIN))[key], int)
    step = 1 if whole else 1e-9
    inside = [low + step if open_below else low, high - step if high < math.inf else 1e9]
    outside = [low if open_below else low - step, high, *([] if whole else [math.nan])]
    if key == "data.window_overlap":
        inside.pop()  # the other end is half of max_length
    # Keys that bound each other are not to stand in each other's way.
    roomy = {"data.max_length": 2**20 - 1, "data.window_overlap": 0, "data.folds": 2**10 - 1}
    for value in inside:
        assert checked({**roomy, key: value})
    for value in outside:
        message = complaint(checked, {**roomy, key: value})
        assert message.startswith(f"{key}=")
        assert "is out of range" in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head.dropout": 1.0}, "head.dropout=1.0 is out of range [0, 1)"),
        ({"loss": "focal", "loss.gamma": [2.0, -1.0]}, "loss.gamma=-1.0 is out of range"),
        ({"optim.schedule": {"name": "cosine_restarts", "cycles": 0}}, "optim.schedule.cycles=0"),
        ({"loss.pos_weight": 0.0}, "loss.pos_weight=0.0 is out of range (0, inf)"),
    ],
)
def test_options_lie_within_their_bounds(changes, says):
    assert complaint(checked, changes).startswith(says)


def test_a_bound_says_which_end_belongs_to_it():
    assert complaint(checked, {"optim.lr": 0.0}) == "optim.lr=0.0 is out of range (0, 1)"
    assert (
        complaint(checked, {"encoder.dropout": 1}) == "encoder.dropout=1.0 is out of range [0, 1)"
    )


# To and from JSON


@EXPERIMENTS
def test_an_experiment_goes_through_json_and_back(name):
    experiment = catalog.load(name)
    assert from_dict(json.loads(json.dumps(to_dict(experiment)))) == experiment


NUMBERS = st.integers(-9, 9) | st.floats(allow_nan=False) | st.none() | st.text(max_size=3)
OPTIONS = st.dictionaries(
    st.text(min_size=1, max_size=3), NUMBERS | st.lists(st.floats(0, 1)).map(tuple), max_size=3
)


@settings(deadline=None, max_examples=40)
@given(options=OPTIONS, texts=st.lists(st.text(), min_size=3, max_size=3), lr=st.floats(0, 1))
def test_whatever_an_experiment_holds_goes_through_json_and_back(options, texts, lr):
    experiment = override(
        Experiment(Data(*texts, labels=tuple(texts)), loss=Spec("focal", **options)),
        {"optim.lr": lr},
    )
    assert from_dict(json.loads(json.dumps(to_dict(experiment)))) == experiment


def test_json_names_a_spec_and_its_options_side_by_side():
    plain = to_dict(override(PLAIN, {"loss": "focal", "loss.gamma": 3.0}))
    assert plain["loss"] == {"name": "focal", "gamma": 3.0}
    assert plain["data"]["labels"] == []
    assert plain["optim"]["schedule"] == {"name": "cosine"}
    assert list(plain) == [part.name for part in dataclasses.fields(Experiment)]


@pytest.mark.parametrize("key", dict(iter_fields(PLAIN)))
def test_a_missing_key_has_its_default_where_there_is_one(key):
    """A run of an older version lacks the keys that came later."""
    blank = Experiment(Data("a", "b", "c"))
    plain = to_dict(override(blank, {"optim.lr": 0.5, "pool": "mean"}))
    head, _, tail = key.partition(".")
    del (plain[head] if tail else plain)[tail or head]
    if key in ("data.train", "data.val", "data.test"):
        assert complaint(from_dict, plain) == f"missing key {key!r}"
    else:
        assert dict(iter_fields(from_dict(plain)))[key] == dict(iter_fields(blank))[key]


@pytest.mark.parametrize(
    ("head", "tail", "says"),
    [
        ("train", "epoch", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ("los", None, "unknown key 'los'; did you mean 'loss'?"),
        ("data", "test", "data.test=3: expected str"),
        ("seed", None, "seed='x': expected int"),
        ("train", None, "train='x': expected an object"),
    ],
)
def test_a_surplus_key_or_a_wrong_value_is_an_error(head, tail, says):
    plain = to_dict(PLAIN)
    if tail:
        plain[head][tail] = 3
    else:
        plain[head] = "x"
    assert complaint(from_dict, plain).startswith(says)


# The command line


def test_words_become_values():
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
def test_every_json_value_can_be_given_as_a_word(changes):
    assert parse_overrides([f"{key}={json.dumps(value)}" for key, value in changes.items()]) == (
        changes
    )


def test_a_word_without_an_equals_sign_is_an_error():
    assert complaint(parse_overrides, ["epochs"]) == (
        "'epochs' is not of the form key=value, such as train.epochs=1"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
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
def test_what_is_said_of_labels_is_held_to_those_there_are(changes, says):
    names = ("stress", "neutral")
    message = complaint(check_labels, override(PLAIN, changes), names)
    assert says in message
    fine = {"threshold": "recall_at"}
    fine |= {"threshold.labels": ["stress"], "loss": "bce", "loss.pos_weight": [1.0, 2.0]}
    check_labels(override(PLAIN, fine), names)


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (0, 1), (3, 3)])
def test_a_fold_is_one_of_the_folds(folds, fold):
    message = complaint(checked, {"data.folds": folds, "data.fold": fold})
    assert message.startswith(f"data.folds={folds}, data.fold={fold}:")
    assert checked({"data.folds": 3, "data.fold": 2})
