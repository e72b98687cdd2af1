"""The words of a text, and the word of each token."""

import unicodedata
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer

from jaxclf.text.tokenizer.tokenize import encode, to_tokens
from jaxclf.types import Tokens, Windows

SPACE, LETTER, SIGN = -1, -2, -3
APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
# Scripts without spaces between words: a word is a character, or what the tokenizer joins.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


class TokenSpans(NamedTuple):
    """The tokens of `tokenize` with their positions in the texts.

    spans: first character and the one after the last. is_text: whether a token comes from the text;
        the others are the encoder's special tokens.
    """

    tokens: Tokens
    spans: Int[np.ndarray, "tokens 2"]
    is_text: Bool[np.ndarray, " tokens"]


class Words(NamedTuple):
    """The words of a text that tokens lie in.

    spans: first character and the one after the last, ascending, without overlap. of: the index of
        the word of each token.
    """

    spans: Int[np.ndarray, "words 2"]
    of: Int[np.ndarray, " tokens"]


def tokenize_with_spans(tokenizer: Tokenizer, texts: list[str], windows: Windows) -> TokenSpans:
    """The tokens of `tokenize`, in the same order, with their positions."""
    pairs = list(encode(tokenizer, texts, windows))
    encodings = [window for _, window in pairs]
    return TokenSpans(
        to_tokens(pairs),
        np.concatenate([np.array(w.offsets, np.int64).reshape(-1, 2) for w in encodings]),
        np.concatenate([np.array(window.special_tokens_mask) for window in encodings]) == 0,
    )


def words_of(text: str, spans: Int[np.ndarray, "tokens 2"]) -> Words:
    """The words that tokens lie in: runs of letters and digits, or of other signs.

    Words that one token spans are joined. An apostrophe between letters is a letter. White space
    belongs to the word after it, as in tokenizers.
    """
    kinds = np.array(_kinds(text))
    visible = kinds != SPACE
    begins = visible & (np.diff(kinds, prepend=SPACE) != 0)
    count = int(begins.sum())
    number = np.minimum(np.cumsum(begins) - visible, count - 1)

    first = number[np.minimum(spans[:, 0], len(text) - 1)]
    is_joined = np.zeros(count, bool)  # to the word before
    for (start, end), word in zip(spans.tolist(), first, strict=True):
        last = start + max(len(text[start:end].rstrip()), 1) - 1
        is_joined[word + 1 : number[min(last, len(text) - 1)] + 1] = True
    word_ids = np.cumsum(~is_joined) - 1

    characters = np.flatnonzero(visible)
    words = word_ids[number[characters]]
    used, of = np.unique(word_ids[first], return_inverse=True)
    starts = characters[np.searchsorted(words, used)]
    ends = characters[np.searchsorted(words, used, side="right") - 1] + 1
    return Words(np.stack([starts, ends], axis=1), of)


def _kinds(text: str) -> list[int]:
    """The kind of each character: SPACE, LETTER, SIGN, or its index where it may be a word alone.
    Marks and joiners have the kind of the character before."""
    kinds: list[int] = []
    neighborhoods = zip(f" {text}", text, f"{text[1:]} ", strict=False)
    for index, (before, character, after) in enumerate(neighborhoods):
        category = unicodedata.category(character)
        if character.isspace():
            kinds.append(SPACE)
        elif (category[0] == "M" or category == "Cf") and kinds and kinds[-1] != SPACE:
            kinds.append(kinds[-1])
        elif unicodedata.name(character, "").startswith(UNSPACED):
            kinds.append(index)
        elif category[0] in "LN" or (
            character in APOSTROPHES and before.isalpha() and after.isalpha()
        ):
            kinds.append(LETTER)
        else:
            kinds.append(SIGN)
    return kinds
