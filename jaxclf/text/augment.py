"""Augmentation that keeps a text's labels: (text, rng, options) -> text.

Word dropout, swaps, typos, synonyms and a deleted span, as in Wei and Zou 2019 (arXiv 1901.11196).
Words that may decide a label stay unchanged: negations with the two words after them, and the words
that an experiment protects.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np

from jaxclf.types import FRACTION

Augmenter = Callable[..., str]

PUNCTUATION = re.compile(r"^[\W_]+|[\W_]+$")
SCOPE = 2  # words after a negation that stay unchanged
LONGEST_SPAN = 0.2  # of a text's words
NEGATIONS = frozenset(
    """
    no not never none nobody nothing nowhere neither nor without cannot hardly barely scarcely
    rarely seldom stop stopped unless except
    aint arent cant couldnt didnt doesnt dont hadnt hasnt havent isnt mustnt neednt shouldnt wasnt
    werent wont wouldnt
    """.split()
)  # and all words that end in n't

# The keys beside each key of a keyboard.
_PAIRS = """
    q:wa w:qeas e:wrsd r:etdf t:ryfg y:tugh u:yihj i:uojk o:ipkl p:ol a:sqwz s:adwezx d:sferxc
    f:dgrtcv g:fhtyvb h:gjyubn j:hkuinm k:jliom l:kop z:xas x:zcsd c:xvdf v:cbfg b:vngh n:bmhj m:njk
    """
NEIGHBORS = {pair[0]: pair[2:] for pair in _PAIRS.split()}
# The words of a line of synonyms.txt mean the same in most sentences.
_GROUPS = Path(__file__).with_name("synonyms.txt").read_text(encoding="utf-8").splitlines()
SYNONYMS = {
    word: tuple(member for member in group if member != word)
    for group in map(str.split, _GROUPS)
    for word in group
}


def none(text: str, rng: np.random.Generator) -> str:
    """The unchanged text."""
    return text


def eda(
    text: str,
    rng: np.random.Generator,
    *,
    probability: Annotated[float, FRACTION] = 0.5,
    drop: Annotated[float, FRACTION] = 0.05,
    swap: Annotated[float, FRACTION] = 0.03,
    typo: Annotated[float, FRACTION] = 0.03,
    synonym: Annotated[float, FRACTION] = 0.1,
    span: Annotated[float, FRACTION] = 0.1,
    protected_words: tuple[str, ...] = (),
) -> str:
    """Vary the words of a text, except negations, the words after them, and protected words.

    probability: that the text is varied at all. drop, typo, synonym: probability for each free word
        (synonym: for words in the table). swap: for each pair of adjacent free words. span: that
        one run of free words, up to a fifth of the text, is deleted.
    protected_words: further words that stay unchanged, in lower case.
    At least one word stays.
    """
    if rng.random() >= probability:
        return text
    tokens = text.split()
    free = free_words(tokens, protected_words)
    tokens = [
        _typo(word, rng) if is_free and rng.random() < typo else word
        for word, is_free in zip(_synonyms(tokens, free, synonym, rng), free, strict=True)
    ]
    order = _swapped(free, swap, rng)
    is_kept = ~(free & (rng.random(len(free)) < drop))
    if rng.random() < span:
        is_kept &= ~_span(free, rng)
    kept = [tokens[index] for index in order if is_kept[index]]
    return " ".join(kept) if kept else text


def free_words(tokens: list[str], protected_words: tuple[str, ...] = ()) -> np.ndarray:
    """Whether each word may be varied: bool [words]."""
    bare = [plain(word) for word in tokens]
    is_protected = np.array([word in protected_words or not word for word in bare], bool)
    for index, word in enumerate(bare):
        if word in NEGATIONS or word.endswith("n't"):
            is_protected[index : index + 1 + SCOPE] = True
    return ~is_protected


def plain(word: str) -> str:
    """A word in lower case, without the punctuation around it."""
    return PUNCTUATION.sub("", word.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def _synonyms(
    tokens: list[str], free: np.ndarray, probability: float, rng: np.random.Generator
) -> list[str]:
    """Replace words by synonyms; capitals and punctuation stay."""
    words = []
    for word, is_free in zip(tokens, free, strict=True):
        bare = plain(word)
        if is_free and bare in SYNONYMS and rng.random() < probability:
            synonym = SYNONYMS[bare][rng.integers(len(SYNONYMS[bare]))]
            if word[:1].isupper():
                synonym = synonym[0].upper() + synonym[1:]
            at = word.casefold().find(bare)
            word = word[:at] + synonym + word[at + len(bare) :]
        words.append(word)
    return words


def _typo(word: str, rng: np.random.Generator) -> str:
    """One typo inside a word of four letters or more: a neighboring key, or a letter that is left
    out, doubled or swapped with the next."""
    if len(word) < 4:
        return word
    at = int(rng.integers(1, len(word) - 1))
    letter, rest = word[at], word[at + 1 :]
    near = NEIGHBORS.get(letter, letter)
    endings = (
        near[rng.integers(len(near))] + rest,
        rest,
        letter + letter + rest,
        rest[:1] + letter + rest[1:],
    )
    return word[:at] + endings[rng.integers(len(endings))]


def _swapped(free: np.ndarray, probability: float, rng: np.random.Generator) -> list[int]:
    """An order of the words in which adjacent free words may be swapped."""
    order = list(range(len(free)))
    draws = rng.random(len(free))
    for index in range(len(free) - 1):
        is_unmoved = order[index] == index  # a word moves by one position at most
        if is_unmoved and free[index] and free[index + 1] and draws[index] < probability:
            order[index], order[index + 1] = index + 1, index
    return order


def _span(free: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The free words of one run of words that begins with a free word: bool [words]."""
    in_run, starts = np.zeros(len(free), bool), np.flatnonzero(free)
    if len(starts):
        start = starts[rng.integers(len(starts))]
        in_run[start : start + rng.integers(1, max(1, int(LONGEST_SPAN * len(free))) + 1)] = True
    return in_run & free


AUGMENTERS: dict[str, Augmenter] = {"none": none, "eda": eda}
