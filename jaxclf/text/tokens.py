"""Texts -> ragged token ids, in windows where a text is longer than the encoder reads at once."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from jaxclf.errors import DataError
from jaxclf.text.vocabularies import build_tokenizer
from jaxclf.trust import TOKENIZER_LIMIT, file_in, holds
from jaxclf.types import Tokens

TOKENIZER = "tokenizer.json"

CHUNK = 1024  # texts tokenized at a time, so that memory stays flat


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder: its tokenizer.json, without the truncation and padding that
    may ask for, or what its vocabulary files mean."""
    if not holds(folder, TOKENIZER):
        return build_tokenizer(folder)
    path = file_in(folder, TOKENIZER, TOKENIZER_LIMIT)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises has no narrower type
        raise DataError(f"{path}: not a tokenizer: {error}; save the model's files anew") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def largest_id(tokenizer: Tokenizer) -> int:
    """The largest id the tokenizer can give, special tokens included."""
    around = tokenizer.encode("").ids
    return max([*tokenizer.get_vocab(with_added_tokens=True).values(), *around])


def tokenize(
    tokenizer: Tokenizer,
    texts: list[str] | tuple[str, ...],
    max_length: int,
    max_windows: int,
    overlap: int,
) -> Tokens:
    """Each text as one window or several, every window with the encoder's special tokens.

    max_length: most tokens in a window, special ones included.
    max_windows: what lies beyond so many windows of a text is cut off.
    overlap: tokens that two neighbouring windows share.
    """
    reader = Tokenizer.from_str(tokenizer.to_str())  # its truncation is a setting: not the caller's
    reader.enable_truncation(max_length, stride=overlap)
    ids: list[np.ndarray] = []
    lengths: list[int] = []
    owners: list[int] = []
    for first in range(0, len(texts), CHUNK):
        for owner, encoding in enumerate(
            reader.encode_batch(list(texts[first : first + CHUNK])), first
        ):
            for window in [encoding, *encoding.overflowing][:max_windows]:
                ids.append(np.array(window.ids, np.int32))
                lengths.append(len(window.ids))
                owners.append(owner)
    return Tokens(
        np.concatenate(ids) if ids else np.zeros(0, np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        np.array(owners, np.int32),
    )
