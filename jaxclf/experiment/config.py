"""An experiment as a value: its parts, dotted overrides, and the way to JSON and back."""

import dataclasses
import difflib
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from jaxclf.errors import ConfigError
from jaxclf.types import Windows


@dataclass(frozen=True, init=False)
class Spec:
    """A name in a registry and the options that function takes: `Spec("focal", gamma=2.0)`."""

    name: str
    options: dict[str, Any]

    def __init__(self, name: str, /, **options: Any):
        object.__setattr__(self, "name", name)
        # A list from JSON and a tuple from Python are the same value.
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        object.__setattr__(self, "options", plain)


@dataclass(frozen=True)
class Data:
    """Where the texts are and how they are cut into windows of tokens."""

    train: str
    val: str
    test: str
    labels: tuple[str, ...] = ()  # the order of the labels; empty: as the training file has them
    max_length: int = 128  # tokens in a window, and in a packed row
    max_windows: int = 4  # a longer text is cut after so many windows
    window_overlap: int = 16  # tokens that neighbouring windows share
    max_train_examples: int = 0  # so many training rows, the same for every seed; 0: all
    folds: int = 0  # training rows are cut into so many folds, and one held out; 0: all train
    fold: int = 0  # the one that is held out; its rows are scored as the split `held_out`
    soft_labels: str = (
        ""  # a file of probabilities (npz) to learn the training rows from; "": their labels
    )
    soft_label_weight: float = 1.0  # of those in what is learned, the rest being the labels
    label_descriptions: dict[str, str] = field(
        default_factory=dict
    )  # label -> what it means, for the card

    @property
    def windows(self) -> Windows:
        return Windows(self.max_length, self.max_windows, self.window_overlap)


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder: a built-in alias, a folder or a hub id."""

    name: str = "minilm"
    revision: str = ""  # commit of a hub id; filled in when the run is made
    dtype: str = "float32"  # of the computation; parameters are float32
    dropout: float = 0.1
    attention_dropout: float = 0.1


@dataclass(frozen=True)
class Optim:
    """AdamW and its schedule; steps are optimizer updates."""

    lr: float = 2e-4
    weight_decay: float = 0.01
    schedule: Spec = field(default_factory=lambda: Spec("cosine"))
    warmup_ratio: float = 0.1  # share of all updates
    max_grad_norm: float = 1.0  # largest global norm of a gradient
    gradient_accumulation_steps: int = 1  # micro-batches to an update
    freeze: tuple[str, ...] = ()  # paths held fixed: encoder/embeddings, encoder/layer_[0-3]
    layerwise_lr_decay: float = 1.0  # rate of each encoder layer, as a share of the one above
    head_lr_multiplier: float = 1.0  # rate of pool and head, as a multiple of the last layer's
    reinit_layers: int = 0  # last encoder layers that start at random
    init_bias_from_prior: bool = False  # the last bias starts at the labels' log odds; False: at 0


@dataclass(frozen=True)
class Regularization:
    """What keeps a network from learning its texts by heart."""

    rdrop: float = 0.0  # weight of the disagreement of two dropout passes; 0: one pass
    mixup: float = 0.0  # pooled texts are mixed in pairs by shares from Beta(mixup, mixup); 0: not
    adversarial: Spec = field(default_factory=lambda: Spec("none"))
    ema_decay: float = (
        0.0  # decay per update of a running mean of the weights, which is used; 0: none
    )
    weight_averaging: Spec = field(default_factory=lambda: Spec("best"))  # of the epochs' weights


@dataclass(frozen=True)
class Train:
    """The loop. A micro-batch holds `batch_size` examples on average: rows are packed full."""

    epochs: int = 3
    batch_size: int = 32
    metric: str = "macro_f1"  # on validation, with thresholds fitted there; higher is better
    patience: int = 0  # stop after so many epochs without a better score; 0: never
    checkpoint_every: int = 500  # updates between checkpoints, besides one per epoch


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on. What is written to the run is this, resolved, as JSON."""

    data: Data
    encoder: Encoder = Encoder()
    pool: Spec = field(default_factory=lambda: Spec("cls"))
    head: Spec = field(default_factory=lambda: Spec("native"))
    loss: Spec = field(default_factory=lambda: Spec("bce"))
    sampler: Spec = field(default_factory=lambda: Spec("shuffle"))
    augment: Spec = field(default_factory=lambda: Spec("none"))
    optim: Optim = Optim()
    regularization: Regularization = field(default_factory=Regularization)
    train: Train = Train()
    calibration: Spec = field(default_factory=lambda: Spec("none"))
    threshold: Spec = field(default_factory=lambda: Spec("per_label"))
    seed: int = 0


# An experiment, or another frozen dataclass of values, Specs and parts.
Values = TypeVar("Values")


def iter_fields(experiment: Any) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every field; a Spec is one value."""
    for part in dataclasses.fields(experiment):
        value = getattr(experiment, part.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, Spec):
            for inner in dataclasses.fields(value):
                yield f"{part.name}.{inner.name}", getattr(value, inner.name)
        else:
            yield part.name, value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where something is close, else the list of what there is."""
    known = list(known)
    if not known:
        return ", nor any other"
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is: {', '.join(known)}"


def matches_type(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of an annotated type (int passes for float, a list for a
    tuple)."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(matches_type(value, one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(
            matches_type(one, typing.get_args(hint)[0]) for one in value
        )
    if typing.get_origin(hint) is dict:
        key, inner = typing.get_args(hint)
        return isinstance(value, dict) and all(
            matches_type(k, key) and matches_type(v, inner) for k, v in value.items()
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is None or hint is type(None):
        return value is None
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    return isinstance(value, hint)


def type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    return getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)  # type: ignore


def _coerce(key: str, value: Any, hint: Any) -> Any:
    """The value as the field holds it, or an error that names the key."""
    if hint is Spec:
        if isinstance(value, Spec):
            return value
        if isinstance(value, str):
            return Spec(value)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return Spec(value["name"], **{k: v for k, v in value.items() if k != "name"})
    elif typing.get_origin(hint) is tuple and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    elif matches_type(value, hint):
        if typing.get_origin(hint) is tuple:
            return tuple(value)
        if hint is not float:
            return value
        if isinstance(value, float) or abs(value) <= sys.float_info.max:
            return float(value)
    raise ConfigError(f"{key}={value!r}: expected {type_name(hint)}")


def override(experiment: Values, changes: Mapping[str, Any]) -> Values:
    """The experiment with values replaced under dotted keys: `{"loss.gamma": 3.0, "pool":
    "mean_max"}`.

    The only way values change: the command line, a search and the folds all come through here.
    Naming a Spec (`loss=bce`) drops the options of the one before; `loss.gamma=3` adds to those it
    has. Raises ConfigError for an unknown key or a value of another type.
    """
    for key, value in changes.items():
        current = dict(iter_fields(experiment))
        parent, _, last = key.rpartition(".")
        if isinstance(current.get(parent), Spec):
            spec = current[parent]
            experiment = _replace(
                experiment, parent, Spec(spec.name, **{**spec.options, last: value})
            )
        elif key in current:
            hint = hint_of(experiment, key)
            experiment = _replace(experiment, key, _coerce(key, value, hint))
        else:
            raise ConfigError(f"unknown key {key!r}" + did_you_mean(key, current))
    return experiment


def hint_of(experiment: Any, key: str) -> Any:
    """The annotation of the field that a key names."""
    head, _, tail = key.partition(".")
    owner = getattr(experiment, head) if tail else experiment
    return typing.get_type_hints(type(owner))[tail or head]


def _replace(experiment: Any, key: str, value: Any) -> Any:
    head, _, tail = key.partition(".")
    if tail:
        value = dataclasses.replace(getattr(experiment, head), **{tail: value})
    return dataclasses.replace(experiment, **{head: value})


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`["loss.gamma=3", "pool=mean_max"]` -> values: JSON where it is JSON, else the string
    itself."""
    changes = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not of the form key=value, such as train.epochs=1")
        try:
            changes[key] = json.loads(text)
        except json.JSONDecodeError:
            changes[key] = text
    return changes


def options_of(function: Callable) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a registered function: its signature is the schema."""
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def to_dict(experiment: Any) -> dict[str, Any]:
    """Plain JSON values; a Spec becomes `{"name": …, option: …}`."""

    def plain(value: Any) -> Any:
        if isinstance(value, Spec):
            return {"name": value.name, **{k: plain(v) for k, v in value.options.items()}}
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return list(value) if isinstance(value, tuple) else value

    return plain(experiment)


def from_dict(values: Mapping[str, Any]) -> Experiment:
    """The inverse of `to_dict`.

    A key that is missing has its default: a run of an older version lacks those that came later,
    whose defaults are what was before. One without a default, or unknown, is an error.
    """
    blank = Experiment(Data("", "", ""))
    known, changes = dict(iter_fields(blank)), {}
    for head, value in values.items():
        part = getattr(blank, head, None)
        whole = isinstance(part, Spec) or not dataclasses.is_dataclass(part)
        if not whole and not isinstance(value, Mapping):
            raise ConfigError(f"{head}={value!r}: expected an object")
        for key in [head] if whole else [f"{head}.{tail}" for tail in value]:
            if key not in known:
                raise ConfigError(f"unknown key {key!r}" + did_you_mean(key, known))
            changes[key] = value if whole else value[key.partition(".")[2]]
    for key in ("data.train", "data.val", "data.test"):
        if key not in changes:
            raise ConfigError(f"config.json has no {key!r}")
    return override(blank, changes)
