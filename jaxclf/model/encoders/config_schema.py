"""Values of a config.json, held to their ranges before anything is built of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxclf.errors import DataError

REQUIRED = object()


class ConfigField(NamedTuple):
    """What a value must be: a whole number in [low, high], a real one, or one of `choices`.

    default: taken where the file has no such key, or null; REQUIRED: it must.
    """

    low: float = 0
    high: float = 0
    whole: bool = True
    choices: tuple = ()
    default: Any = REQUIRED


# Bounds a hundred times what is published: they keep a hostile file from being traced or allocated.
SIZE = ConfigField(1, 2**16)
LAYERS = ConfigField(1, 256)
VOCABULARY = ConfigField(1, 2**22)
POSITIONS = ConfigField(1, 2**20)
EPSILON = ConfigField(0, 0.1, whole=False)
NEVER = ConfigField(choices=(False,), default=False)


def read_fields(config: Mapping[str, Any], fields: Mapping[str, ConfigField]) -> dict[str, Any]:
    """The values that `fields` names; DataError that lists everything amiss."""
    found, faults = {}, []
    for name, field in fields.items():
        value = config.get(name)
        if value is None and field.default is not REQUIRED:
            found[name] = field.default
        elif value is None:
            faults.append(f"{name} is missing")
        elif not _fits(value, field):
            faults.append(f"{name}={_short(value)} is not {_in_words(field)}")
        else:
            found[name] = value
    refuse(faults)
    return found


def refuse(faults: list[str]) -> None:
    """DataError where there is a fault."""
    if faults:
        raise DataError("config.json: " + "; ".join(faults))


def check_heads(hidden: int, heads: int) -> None:
    """Heads share the hidden units evenly."""
    if hidden % heads:
        refuse([f"{hidden} hidden units cannot be shared by {heads} attention heads"])


def _fits(value: Any, field: ConfigField) -> bool:
    if field.choices:
        return any(type(value) is type(one) and value == one for one in field.choices)
    kinds = int if field.whole else int | float
    return (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and field.low <= value <= field.high
    )


def _in_words(field: ConfigField) -> str:
    if field.choices:
        return " or ".join(repr(one) for one in field.choices)
    kind = "a whole number" if field.whole else "a number"
    return f"{kind} from {field.low} to {field.high}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
