"""Tokenization of texts into ragged token ids. Long texts become several windows."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from tokenizers import Encoding, Tokenizer

from jaxclf.errors import DataError
from jaxclf.files.untrusted import TOKENIZER_LIMIT, TOKENIZER_PARTS, has_entry, read_json
from jaxclf.text.tokenizer.checks import (
    ADVICE,
    check_added_tokens,
    check_for_panics,
    failures_as_data_error,
)
from jaxclf.text.tokenizer.from_encoder import convert_vocabulary
from jaxclf.types import Tokens, Windows

TOKENIZER = "tokenizer.json"
CHUNK = 1024  # texts tokenized at a time, so that memory stays flat


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder: its tokenizer.json, or else what its vocabulary files hold.

    Truncation and padding that a file asks for are turned off. Raises DataError.
    """
    path = folder / TOKENIZER
    if has_entry(folder, TOKENIZER):
        check_for_panics(read_json(folder, TOKENIZER, TOKENIZER_LIMIT, TOKENIZER_PARTS), path)
        with failures_as_data_error(path):
            tokenizer = Tokenizer.from_file(str(path))
    else:
        tokenizer = convert_vocabulary(folder)
    with failures_as_data_error(path):
        check_added_tokens(tokenizer, path)
        tokenizer.encode("")  # the library panics on special tokens without an id
    if not tokenizer.get_vocab_size():
        raise DataError(f"{path}: has no tokens; {ADVICE}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def largest_id(tokenizer: Tokenizer) -> int:
    """The largest id that a tokenizer can return, special tokens included."""
    special = tokenizer.encode("").ids
    return max([*tokenizer.get_vocab(with_added_tokens=True).values(), *special], default=-1)


def encode(
    tokenizer: Tokenizer, texts: list[str] | tuple[str, ...], windows: Windows
) -> Iterator[tuple[int, Encoding]]:
    """Each text as one or several windows, each with the encoder's special tokens: (index of the
    text, window)."""
    for example, encoding in enumerate(_encode_whole(tokenizer, texts, windows)):
        for window in [encoding, *encoding.overflowing][: windows.max_windows]:
            yield example, window


def is_cut(
    tokenizer: Tokenizer, texts: list[str] | tuple[str, ...], windows: Windows
) -> Bool[np.ndarray, " texts"]:
    """Whether each text is longer than its windows, so that its end is not read."""
    counts = [
        1 + len(encoding.overflowing) for encoding in _encode_whole(tokenizer, texts, windows)
    ]
    return np.array(counts, int) > windows.max_windows


def describe_cut(cut: int, total: int, windows: Windows) -> str:
    """A sentence on the number of texts that are cut; empty where there are none."""
    if not cut:
        return ""
    return (
        f"{cut:,} of {total:,} texts are longer than {windows.max_windows} windows of "
        f"{windows.max_length} tokens; what lies beyond was not read"
    )


def _encode_whole(
    tokenizer: Tokenizer, texts: list[str] | tuple[str, ...], windows: Windows
) -> Iterator[Encoding]:
    """Each text's first window; its `overflowing` are all others, however many there are."""
    truncating = _copy(tokenizer)  # truncation is a setting of the object
    truncating.enable_truncation(windows.max_length, stride=windows.overlap)
    for start in range(0, len(texts), CHUNK):
        yield from truncating.encode_batch(list(texts[start : start + CHUNK]))


def check_copy(tokenizer: Tokenizer, folder: Path) -> None:
    """Raise DataError if the tokenizer of a folder cannot be copied, as `encode` does it: merges
    that the library reads from a file may be refused in the text that it writes. Its ids must be
    small, since the library counts up to the largest."""
    with failures_as_data_error(folder / TOKENIZER):
        _copy(tokenizer)


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer.from_str(tokenizer.to_str())


def tokenize(tokenizer: Tokenizer, texts: list[str] | tuple[str, ...], windows: Windows) -> Tokens:
    """The token ids of `encode`."""
    return to_tokens(encode(tokenizer, texts, windows))


def to_tokens(windows: Iterable[tuple[int, Encoding]]) -> Tokens:
    """The token ids of windows, each with the index of its text."""
    ids, example_index = [np.zeros(0, np.int32)], []
    for example, window in windows:
        ids.append(np.array(window.ids, np.int32))
        example_index.append(example)
    return Tokens(
        np.concatenate(ids),
        np.cumsum([len(window) for window in ids]).astype(np.int32),
        np.array(example_index, np.int32),
    )


def lengths(tokens: Tokens) -> np.ndarray:
    """The number of tokens of each example, over all its windows."""
    return np.bincount(tokens.example_index, np.diff(tokens.starts)).astype(np.int64)
