"""Texts -> ragged token ids, in windows where a text is longer than the encoder reads at once."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

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
    if not tokenizer.get_vocab_size():
        raise DataError(f"{path}: has no tokens; {ADVICE}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


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
