"""Tokenizers of encoder folders that hold vocabulary files and no tokenizer.json."""

import json
import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from jaxclf.errors import DataError
from jaxclf.files.untrusted import (
    TOKENIZER_LIMIT,
    TOKENIZER_PARTS,
    has_entry,
    parse_json,
    printable,
    read_json,
    safe_path,
)
from jaxclf.text.tokenizer.checks import ADVICE, check_for_panics, failures_as_data_error

log = logging.getLogger(__name__)

# By the `tokenizer_type` of AutoTokenizer, which is a model_type. AutoTokenizer itself would guess
# from a folder's `tokenizer_class`, which may name any class of transformers, models included.
VOCABULARY_FILES = {
    "bert": ["vocab.txt"],
    "distilbert": ["vocab.txt"],
    "electra": ["vocab.txt"],
    "roberta": ["vocab.json", "merges.txt"],
    "deberta": ["vocab.json", "merges.txt"],
    "deberta-v2": ["spm.model"],
    "xlm-roberta": ["sentencepiece.bpe.model"],
}
SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Options that may reach transformers; others of its options name files to open.
OPTIONS = set(
    """
    add_bos_token add_eos_token add_prefix_space added_tokens_decoder additional_special_tokens
    do_lower_case extra_special_tokens split_by_punct split_special_tokens strip_accents
    tokenize_chinese_chars trim_offsets
    """.split()
)
MAX_ADDED_TOKENS = 2048  # transformers takes quadratic time


def convert_vocabulary(folder: Path) -> Tokenizer:
    """The fast tokenizer that transformers' AutoTokenizer makes of a folder's vocabulary files.

    AutoTokenizer sees bounded copies of the files it needs and nothing else of the folder.
    Raises DataError.
    """
    settings = {
        name: read_json(folder, name) if has_entry(folder, name) else None
        for name in SETTINGS_FILES
    }
    tokenizer_type = _tokenizer_type(folder, settings["tokenizer_config.json"] or {})
    _keep_case_of_cased_words(folder, VOCABULARY_FILES[tokenizer_type][0], settings)
    with TemporaryDirectory(prefix="jaxclf-") as temporary:
        for name in VOCABULARY_FILES[tokenizer_type]:
            (Path(temporary) / name).write_bytes(_read_vocabulary(folder, name))
        for name, content in settings.items():
            if content is not None:
                kept = _checked_settings(content, folder / name)
                (Path(temporary) / name).write_text(json.dumps(kept), encoding="utf-8")
        with failures_as_data_error(folder):
            tokenizer = _auto_tokenizer(temporary, tokenizer_type)
            if tokenizer.encode_special_tokens:
                raise DataError(f"{folder}: split_special_tokens is not supported; {ADVICE}")
            serialized = tokenizer.to_str()
            check_for_panics(json.loads(serialized), folder)
            tokenizer = Tokenizer.from_str(serialized)  # as it will be read from now on
            _check_tokens(tokenizer, settings, folder)
    return tokenizer


def _keep_case_of_cased_words(folder: Path, name: str, settings: dict[str, Any]) -> None:
    """Turn lower case off where a vocab.txt has words with capitals and no setting decides.

    transformers would lower every text, since BERT's first release had no settings file.
    """
    options = settings["tokenizer_config.json"] or {}
    if name != "vocab.txt" or "do_lower_case" in options:
        return
    words = _read_vocabulary(folder, name).decode("utf-8", "replace").split("\n")
    cased = sum(word != word.lower() for word in words if not word.startswith("["))
    if cased > len(words) / 100:
        log.info("%s: %s has words with capitals, so texts keep their case", folder, name)
        settings["tokenizer_config.json"] = options | {"do_lower_case": False}


def _auto_tokenizer(folder: str, tokenizer_type: str) -> Tokenizer:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it notes that torch is missing
    from transformers import AutoTokenizer  # takes seconds to import

    return AutoTokenizer.from_pretrained(
        folder, tokenizer_type=tokenizer_type, trust_remote_code=False, local_files_only=True
    ).backend_tokenizer


def _tokenizer_type(folder: Path, options: dict[str, Any]) -> str:
    config = read_json(folder, "config.json")
    name = options.get("tokenizer_class") or config.get("tokenizer_class")
    name = name or config.get("model_type")
    if name is None:  # a config of the first releases: told from the files
        held = [kind for kind, files in VOCABULARY_FILES.items() if has_entry(folder, files[0])]
        name = next(iter(held), None)
    name = str(name)
    plain = name.removesuffix("Fast").removesuffix("Tokenizer").replace("-", "").lower()
    for tokenizer_type, files in VOCABULARY_FILES.items():
        if tokenizer_type.replace("-", "") == plain:
            for file in files:
                if not has_entry(folder, file):
                    raise DataError(
                        f"{folder}: has neither tokenizer.json nor the {file} of "
                        f"{printable(name)!r}; {ADVICE}"
                    )
            return tokenizer_type
    raise DataError(
        f"{folder}: has no tokenizer.json, and a tokenizer of type {printable(name)!r} cannot be "
        f"built from other files; {ADVICE}"
    )


def _read_vocabulary(folder: Path, name: str) -> bytes:
    content = safe_path(folder, name, TOKENIZER_LIMIT).read_bytes()
    if name.endswith(".json"):
        ids = parse_json(content, str(folder / name), TOKENIZER_PARTS).values()
        # The library counts up to the largest id.
        if not all(type(index) is int and 0 <= index < TOKENIZER_PARTS for index in ids):
            raise DataError(f"{folder / name}: ids must be below {TOKENIZER_PARTS:,}; {ADVICE}")
    elif content.count(b"\n") > TOKENIZER_PARTS:  # pieces of sentencepiece begin with this byte
        raise DataError(f"{folder / name}: more than {TOKENIZER_PARTS:,} tokens; {ADVICE}")
    return content


def _checked_settings(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The settings that may reach transformers. Raises DataError where they add too many tokens."""
    if path.name != "added_tokens.json":
        content = {
            name: value
            for name, value in content.items()
            if name in OPTIONS or name.endswith("_token")
        }
    for values in (content, *content.values()):
        if isinstance(values, dict | list) and len(values) > MAX_ADDED_TOKENS:
            raise DataError(f"{path}: more than {MAX_ADDED_TOKENS:,} added tokens; {ADVICE}")
    return content


def _check_tokens(
    tokenizer: Tokenizer, settings: dict[str, dict[str, Any] | None], folder: Path
) -> None:
    """Refuse tokens that the encoder was not trained with: transformers adds special tokens that a
    vocabulary lacks, and numbers added tokens itself."""
    decoder = (settings["tokenizer_config.json"] or {}).get("added_tokens_decoder")
    if decoder is None:
        declared = settings["added_tokens.json"] or {}
    else:
        declared = {token["content"]: int(index) for index, token in decoder.items()}
    for token, index in declared.items():
        if tokenizer.token_to_id(token) != index:
            raise DataError(f"{folder}: the token {token[:80]!r} does not get its id {index}")
    vocabulary = tokenizer.get_vocab(with_added_tokens=False).keys()
    unknown = getattr(tokenizer.model, "unk_token", None)
    needed = {*tokenizer.encode("").tokens} - declared.keys() | ({unknown} if unknown else set())
    for token in sorted(needed - vocabulary):
        raise DataError(f"{folder}: the vocabulary has no {token[:80]!r}; {ADVICE}")
