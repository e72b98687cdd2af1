"""The words of a text, and which of them each token is a piece of."""

import unicodedata
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer

from jaxclf.types import Tokens, Windows

SPACE, LETTER, SIGN = -1, -2, -3
APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
# Scripts that put no spaces between words: each character may be one, or what the tokenizer joins.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


class TokenSpans(NamedTuple):
    """Tokens as `tokenize` gives them, and where they lie in their texts.

    spans: from which character to which. own: whether a token is of the text; the others are put
        around each window for the encoder.
    """

    tokens: Tokens
    spans: Int[np.ndarray, "tokens 2"]
    own: Bool[np.ndarray, " tokens"]


class Words(NamedTuple):
    """The words of a text that pieces of it lie in.

    spans: from which character to which, ascending, without overlap. of: the word of each piece.
    """

    spans: Int[np.ndarray, "words 2"]
    of: Int[np.ndarray, " pieces"]


def tokenize_with_spans(tokenizer: Tokenizer, texts: list[str], windows: Windows) -> TokenSpans:
    """The tokens that `tokenize` gives, in the same order, with their places."""
    reader = Tokenizer.from_str(tokenizer.to_str())  # its truncation is a setting: not the caller's
    reader.enable_truncation(windows.max_length, stride=windows.overlap)
    owned = [
        (owner, window)
        for owner, encoding in enumerate(reader.encode_batch(texts))
        for window in [encoding, *encoding.overflowing][: windows.max_windows]
    ]
    every = [window for _, window in owned]
    return TokenSpans(
        Tokens(
            np.concatenate([np.array(one.ids, np.int32) for one in every]),
            np.cumsum([0, *map(len, every)]).astype(np.int32),
            np.array([owner for owner, _ in owned], np.int32),
        ),
        np.concatenate([np.array(one.offsets, np.int64).reshape(-1, 2) for one in every]),
        np.concatenate([np.array(one.special_tokens_mask) for one in every]) == 0,
    )


def words_of(text: str, spans: Int[np.ndarray, "pieces 2"]) -> Words:
    """The words that pieces lie in: runs of letters and digits, or of other signs; where one piece
    reaches over several, they are one word.

    An apostrophe between letters is a letter. White space belongs to the word after it, since
    tokenizers write it as the beginning of that.
    """
    kinds = np.array(_kinds(text))
    visible = kinds != SPACE
    begins = visible & (np.diff(kinds, prepend=SPACE) != 0)
    count = int(begins.sum())
    number = np.minimum(np.cumsum(begins) - visible, count - 1)

    first = number[np.minimum(spans[:, 0], len(text) - 1)]
    joined = np.zeros(count, bool)  # to the word before
    for (start, end), word in zip(spans.tolist(), first, strict=True):
        last = start + max(len(text[start:end].rstrip()), 1) - 1
        joined[word + 1 : number[min(last, len(text) - 1)] + 1] = True
    whole = np.cumsum(~joined) - 1

    places = np.flatnonzero(visible)
    owners = whole[number[places]]
    used, of = np.unique(whole[first], return_inverse=True)
    return Words(
        np.stack(
            [
                places[np.searchsorted(owners, used)],
                places[np.searchsorted(owners, used, side="right") - 1] + 1,
            ],
            axis=1,
        ),
        of,
    )


def _kinds(text: str) -> list[int]:
    """What each character is: SPACE, LETTER, SIGN, or its own place where it may be a word alone.
    Marks and joiners are what they follow."""
    kinds: list[int] = []
    for place, (before, one, after) in enumerate(
        zip(f" {text}", text, f"{text[1:]} ", strict=False)
    ):
        category = unicodedata.category(one)
        if one.isspace():
            kinds.append(SPACE)
        elif (category[0] == "M" or category == "Cf") and kinds and kinds[-1] != SPACE:
            kinds.append(kinds[-1])
        elif unicodedata.name(one, "").startswith(UNSPACED):
            kinds.append(place)
        elif category[0] in "LN" or (one in APOSTROPHES and before.isalpha() and after.isalpha()):
            kinds.append(LETTER)
        else:
            kinds.append(SIGN)
    return kinds
