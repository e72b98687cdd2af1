"""What the small JSON files of a model folder say of its tokenizer."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer

from jaxclf.errors import DataError
from jaxclf.files.untrusted import has_entry, read_json

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# In transformers' order, which numbers those that a vocabulary lacks.
NAMES = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]

Token = str | AddedToken


class Settings(NamedTuple):
    """What the small files of a folder say of its tokenizer."""

    folder: Path
    options: dict[str, Any]
    special: dict[str, Token]  # by name, with the defaults of the family
    declared: dict[int, AddedToken]  # by the id a file says they have
    extra: list[Token] | None  # None: tokenizer_config.json does not say
    older: list[Token]  # what special_tokens_map.json says, for then


def read_settings(folder: Path, options: dict[str, Any], defaults: list[str]) -> Settings:
    """As transformers reads them, over the family's special tokens in the order of NAMES.

    Beside an added_tokens_decoder in tokenizer_config.json, the older special_tokens_map.json and
    added_tokens.json count for nothing.
    """
    path, older_path = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    decoder = options.get("added_tokens_decoder")
    older = optional(folder, older_path.name) if decoder is None else {}
    extra = (options | older).get("extra_special_tokens", {})
    extra = extra or options.get("additional_special_tokens", extra)
    extra = None if extra == {} else tokens_in(extra, path)
    given = special_in(options, path) | special_in(older, older_path, special=True)
    options = options | older
    if options.get("split_special_tokens"):
        raise fault(path, "split_special_tokens is not supported")
    if decoder is None:
        names = {str(token) for token in [*map(given.get, NAMES), *(extra or [])]}
        pairs = [
            (number, {"content": text, "normalized": text not in names, "special": text in names})
            for text, number in optional(folder, "added_tokens.json").items()
        ]
    else:
        pairs = list(decoder.items()) if isinstance(decoder, dict) else [(decoder, None)]
    every = dict(zip(NAMES, defaults, strict=True)) | given
    known = {name: token for name, token in every.items() if token}
    listed = tokens_in(older.get("additional_special_tokens"), older_path, special=True)
    return Settings(folder, options, known, declared_in(pairs, folder), extra, listed)


def special_in(values: dict[str, Any], path: Path, **flags: bool) -> dict[str, Token | None]:
    return {
        key.removesuffix("_token"): token_in(value, path, **flags)
        for key, value in values.items()
        if key.endswith("_token") and (key[:-6] in NAMES or isinstance(value, str | dict))
    }


def token_in(value: Any, path: Path, **flags: bool) -> Token | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {flag: value[flag] for flag in FLAGS if flag in value} | flags
        if all(isinstance(flag, bool) for flag in flags.values()):
            return AddedToken(value["content"], **flags)
    raise fault(path, f"{str(value)[:80]!r} is no token")


def tokens_in(values: Any, path: Path, **flags: bool) -> list[Token]:
    if not isinstance(values, list | None):
        raise fault(path, f"{str(values)[:80]!r} is no list of tokens")
    return [token for token in (token_in(value, path, **flags) for value in values or []) if token]


def declared_in(pairs: list[tuple[Any, Any]], path: Path) -> dict[int, AddedToken]:
    declared = {}
    for number, value in pairs:
        token = token_in(value, path)
        if not isinstance(token, AddedToken) or not re.fullmatch("[0-9]{1,9}", str(number)):
            raise fault(path, f"{str(number)[:80]!r} is no id of a token")
        declared[int(number)] = token
    return declared


def add_tokens(tokenizer: Tokenizer, settings: Settings, implied: list[Token]) -> None:
    """Have these tokens found in a text before anything else is."""
    named = list(settings.special.values())
    known = {str(token) for token in settings.declared.values()}
    others = [*named, *(implied if settings.extra is None else settings.extra)]
    tokens = [settings.declared[number] for number in sorted(settings.declared)]
    for token in (token for token in others if str(token) not in known):
        tokens.append(AddedToken(token, special=True) if isinstance(token, str) else token)
    for token in tokens:
        token.special = token.special or str(token) in map(str, named)
        normalizer = tokenizer.normalizer if token.normalized else None
        text = normalizer.normalize_str(str(token)) if normalizer else str(token)
        if not text.strip():  # found between other tokens, it makes the library panic
            raise fault(settings.folder, f"{str(token)!r} is no token")
    tokenizer.add_tokens(tokens)
    for number, token in settings.declared.items():
        if tokenizer.token_to_id(str(token)) != number:
            raise fault(settings.folder, f"{number} is not the id of the token {str(token)!r}")


def special(settings: Settings, name: str) -> str:
    if name not in settings.special:
        raise fault(settings.folder, f"its files say that there is no {name}_token")
    return str(settings.special[name])


def option(settings: Settings, name: str, default: bool | None) -> Any:
    value = settings.options.get(name, default)
    if value is not default and not isinstance(value, bool):
        raise fault(settings.folder / "tokenizer_config.json", f"{name} is neither true nor false")
    return value


def optional(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder, name) if has_entry(folder, name) else {}


def fault(path: Path, reason: str) -> DataError:
    advice = "copy the model's files anew, or save its tokenizer.json there"
    return DataError(f"{path}: {reason}; {advice}")
