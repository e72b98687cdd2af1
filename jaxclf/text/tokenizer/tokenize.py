"""Texts -> ragged token ids, in windows where a text is longer than the encoder reads at once."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from jaxclf.errors import DataError
from jaxclf.files.untrusted import TOKENIZER_LIMIT, TOKENIZER_PARTS, has_entry, printable, read_json
from jaxclf.text.tokenizer.sentencepiece import sound
from jaxclf.text.tokenizer.vocabularies import build_tokenizer
from jaxclf.types import Tokens, Windows

TOKENIZER = "tokenizer.json"
ADVICE = "save the model's files anew"
CHUNK = 1024  # texts tokenized at a time, so that memory stays flat


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder: its tokenizer.json, without the truncation and padding that
    may ask for, or what its vocabulary files mean."""
    if not has_entry(folder, TOKENIZER):
        return build_tokenizer(folder)
    path = folder / TOKENIZER
    _check_for_panics(read_json(folder, TOKENIZER, TOKENIZER_LIMIT, TOKENIZER_PARTS), path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # the library raises Exception itself, and Rust's panic beside it
        raise DataError(f"{path}: not a tokenizer: {printable(str(error))}; {ADVICE}") from None
    if not tokenizer.get_vocab_size():
        raise DataError(f"{path}: has no tokens; {ADVICE}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _check_for_panics(content: dict[str, Any], path: Path) -> None:
    """What the library takes unchecked, to panic later on some text: a table of normalization that
    leads astray, added tokens that strip all there is of them."""
    parts = [content]
    while parts:
        part = parts.pop()
        if isinstance(charsmap := part.get("precompiled_charsmap"), str):
            try:
                fine = sound(base64.b64decode(charsmap, validate=True))
            except ValueError:
                fine = False
            if not fine:
                raise DataError(f"{path}: its rules of normalization are damaged; {ADVICE}")
        several = part.get("normalizers")
        inner = [part.get("normalizer"), *(several if isinstance(several, list) else [])]
        parts += [one for one in inner if isinstance(one, dict)]
    added = content.get("added_tokens") or []
    if not isinstance(added, list):
        raise DataError(f"{path}: added_tokens is no list; {ADVICE}")
    for token in added:
        text = token.get("content") if isinstance(token, dict) else None
        stripped = isinstance(token, dict) and (token.get("lstrip") or token.get("rstrip"))
        if not isinstance(text, str) or not text or (stripped and not text.strip()):
            raise DataError(f"{path}: {str(text)[:80]!r} is no added token; {ADVICE}")


def largest_id(tokenizer: Tokenizer) -> int:
    """The largest id the tokenizer can give, special tokens included."""
    around = tokenizer.encode("").ids
    return max([*tokenizer.get_vocab(with_added_tokens=True).values(), *around], default=-1)


def tokenize(
    tokenizer: Tokenizer,
    texts: list[str] | tuple[str, ...],
    windows: Windows,
) -> Tokens:
    """Each text as one window or several, every window with the encoder's special tokens."""
    reader = Tokenizer.from_str(tokenizer.to_str())  # its truncation is a setting: not the caller's
    reader.enable_truncation(windows.max_length, stride=windows.overlap)
    ids: list[np.ndarray] = []
    lengths: list[int] = []
    owners: list[int] = []
    for first in range(0, len(texts), CHUNK):
        for owner, encoding in enumerate(
            reader.encode_batch(list(texts[first : first + CHUNK])), first
        ):
            for window in [encoding, *encoding.overflowing][: windows.max_windows]:
                ids.append(np.array(window.ids, np.int32))
                lengths.append(len(window.ids))
                owners.append(owner)
    return Tokens(
        np.concatenate(ids) if ids else np.zeros(0, np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        np.array(owners, np.int32),
    )


def lengths(tokens: Tokens) -> np.ndarray:
    """Tokens of each example, those of all its windows together."""
    return np.bincount(tokens.example_index, np.diff(tokens.starts)).astype(np.int64)
