"""Check the values of a config.json against their ranges before a network is built."""

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from jaxclf.errors import DataError
from jaxclf.model.encoders.common import ACTIVATIONS

REQUIRED = object()


class ConfigField(NamedTuple):
    """A valid value: an integer in [low, high], any number in it, or one of `choices`.

    default: for a key that is missing or null; REQUIRED: such a key is an error.
    """

    low: float = 0
    high: float = 0
    integer: bool = True
    choices: tuple = ()
    default: Any = REQUIRED


# A hundred times the sizes of published encoders: a hostile config is refused before a network of
# its sizes is traced or allocated.
SIZE = ConfigField(1, 2**16)
LAYERS = ConfigField(1, 256)
VOCABULARY = ConfigField(1, 2**22)
POSITIONS = ConfigField(1, 2**20)
EPSILON = ConfigField(0, 0.1, integer=False)
ACTIVATION = ConfigField(choices=tuple(ACTIVATIONS))
EITHER = ConfigField(choices=(True, False), default=False)
NEVER = ConfigField(choices=(False,), default=False)

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": SIZE,
    "intermediate_size": SIZE,
}


def read_fields(config: Mapping[str, Any], fields: Mapping[str, ConfigField]) -> dict[str, Any]:
    """The values of some fields. Raises DataError that lists every invalid value."""
    values, errors = {}, []
    for name, field in fields.items():
        value = config.get(name)
        if value is None and field.default is not REQUIRED:
            values[name] = field.default
        elif value is None:
            errors.append(f"{name} is missing")
        elif not _is_valid(value, field):
            text = repr(value)
            shown = text if len(text) <= 40 else text[:40] + "…"
            errors.append(f"{name}={shown} is not {_expected(field)}")
        else:
            values[name] = value
    if errors:
        raise_config_error("; ".join(errors))
    return values


def raise_config_error(message: str) -> NoReturn:
    raise DataError(f"config.json: {message}")


def check_heads(hidden: int, heads: int) -> None:
    """Raise DataError if attention heads cannot share the hidden units evenly."""
    if hidden % heads:
        raise_config_error(f"{hidden} hidden units cannot be shared by {heads} attention heads")


def _is_valid(value: Any, field: ConfigField) -> bool:
    if field.choices:
        return any(type(value) is type(choice) and value == choice for choice in field.choices)
    types = int if field.integer else int | float
    return (
        isinstance(value, types)
        and not isinstance(value, bool)
        and field.low <= value <= field.high
    )


def _expected(field: ConfigField) -> str:
    if field.choices:
        return " or ".join(repr(choice) for choice in field.choices)
    kind = "an integer" if field.integer else "a number"
    return f"{kind} from {field.low} to {field.high}"
