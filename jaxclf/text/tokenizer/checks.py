"""Checks of a tokenizer from elsewhere: its libraries panic on what they accept unchecked."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from jaxclf.errors import DataError
from jaxclf.files.untrusted import printable

ADVICE = "copy the model's files again, or save its tokenizer.json there"


@contextmanager
def failures_as_data_error(path: Path) -> Iterator[None]:
    """Raise a DataError that names the path, in one line, for any failure of a tokenizer library.

    The except is broad: the libraries raise Exception itself and whatever the contents of a file
    lead to, and a panic in Rust is a BaseException.
    """
    try:
        yield
    except (DataError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        reason = printable(str(error)) or type(error).__name__
        raise DataError(f"{path}: not a tokenizer: {reason}; {ADVICE}") from None


def check_for_panics(content: dict[str, Any], path: Path) -> None:
    """Refuse the contents of a tokenizer.json on which the library would panic at some text later:
    a damaged normalization table, and added tokens that are empty or stripped to nothing.

    Raises DataError.
    """
    parts = [content]
    while parts:
        part = parts.pop()
        charsmap = part.get("precompiled_charsmap")
        if isinstance(charsmap, str) and not is_valid_charsmap(charsmap):
            raise DataError(f"{path}: precompiled_charsmap is damaged; {ADVICE}")
        sequence = part.get("normalizers")
        children = [part.get("normalizer"), *(sequence if isinstance(sequence, list) else [])]
        parts += [child for child in children if isinstance(child, dict)]
    added = content.get("added_tokens") or []
    if not isinstance(added, list):
        raise DataError(f"{path}: added_tokens is not a list; {ADVICE}")
    for token in added:
        text = token.get("content") if isinstance(token, dict) else None
        is_stripped = isinstance(token, dict) and (token.get("lstrip") or token.get("rstrip"))
        if not isinstance(text, str) or not text or (is_stripped and not text.strip()):
            raise DataError(f"{path}: {str(text)[:80]!r} is not an added token; {ADVICE}")


def check_added_tokens(tokenizer: Tokenizer, path: Path) -> None:
    """Refuse added tokens that normalization empties, on which the library panics too.

    Raises DataError.
    """
    normalizer = tokenizer.normalizer
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.normalized and normalizer and not normalizer.normalize_str(token.content):
            raise DataError(f"{path}: {token.content[:80]!r} is not an added token; {ADVICE}")


def is_valid_charsmap(encoded: str) -> bool:
    """Whether a base64 normalization table can be followed: its trie and replacements lead nowhere
    outside, and its texts are UTF-8.

    The format is the double array of https://github.com/s-yata/darts-clone. The library follows
    it unchecked, and panics on the text that leads outside.
    """
    try:
        charsmap = base64.b64decode(encoded, validate=True)
        size = int.from_bytes(charsmap[:4], "little")
        if not size or size % 1024 or len(charsmap) < 4 + size:  # nodes lie in blocks of 256
            return False
        texts = np.frombuffer(charsmap[4 + size :].decode().encode() + b"\0", np.uint8)
    except ValueError:
        return False
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4).astype(np.int64)
    children = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))
    nodes = units < 2**31  # the others hold where a replacement begins
    nodes[0] = True
    if children[nodes].max() >= len(units):
        return False
    begins = units[children[nodes & (units & 256 > 0)]] % 2**31
    return bool(begins.max(initial=0) < len(texts) and not (texts[begins] >> 6 == 0b10).any())
