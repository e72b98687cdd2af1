"""Variations of a text that keep its labels: (text, rng, options) -> text.

Word dropout, swaps, typos, synonyms and a deleted span, as in Wei and Zou 2019 (arXiv 1901.11196),
but what decides a label is left as it is: negations with the two words they bear on, and the words
that an experiment protects.
"""

import re
from collections.abc import Callable
from typing import Annotated

import numpy as np

from jaxclf.text.lexicon import NEGATIONS, NEIGHBOURS, SYNONYMS
from jaxclf.types import FRACTION

Augmenter = Callable[..., str]

AROUND = re.compile(r"^[\W_]+|[\W_]+$")
SCOPE = 2  # words after a negation that it is taken to bear on
LONGEST_SPAN = 0.2  # of a text's words


def none(text: str, rng: np.random.Generator) -> str:
    """The text as it is."""
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
    """A text whose words are varied; negations, what they bear on and protected words are not.

    probability: of texts that are varied at all. drop, typo, synonym: chance of each free word (a
        synonym, where the table has one). swap: of each pair of free neighbours. span: of one run
        of free words, up to a fifth of the text, to be left out.
    protected_words: further words to leave alone, in lower case.
    A word that is not free stays, and so does at least one word.
    """
    if rng.random() >= probability:
        return text
    tokens = text.split()
    free = free_words(tokens, protected_words)
    tokens = [
        _typo(word, rng) if may and rng.random() < typo else word
        for word, may in zip(_synonyms(tokens, free, synonym, rng), free, strict=True)
    ]
    order = _swapped(free, swap, rng)
    stays = ~(free & (rng.random(len(free)) < drop))
    if rng.random() < span:
        stays &= ~_span(free, rng)
    kept = [tokens[place] for place in order if stays[place]]
    return " ".join(kept) if kept else text


def free_words(tokens: list[str], protected_words: tuple[str, ...] = ()) -> np.ndarray:
    """bool per word: whether it may be varied."""
    bare = [plain(word) for word in tokens]
    held = np.array([word in protected_words or not word for word in bare], bool)
    for place, word in enumerate(bare):
        if word in NEGATIONS or word.endswith("n't"):
            held[place : place + 1 + SCOPE] = True
    return ~held


def plain(word: str) -> str:
    """In lower case, without the punctuation around it."""
    return AROUND.sub("", word.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def _synonyms(
    tokens: list[str], free: np.ndarray, chance: float, rng: np.random.Generator
) -> list[str]:
    """Words of the table exchanged for another of their group, capitals and punctuation kept."""
    found = []
    for word, may in zip(tokens, free, strict=True):
        bare = plain(word)
        if may and bare in SYNONYMS and rng.random() < chance:
            other = SYNONYMS[bare][rng.integers(len(SYNONYMS[bare]))]
            if word[:1].isupper():
                other = other[0].upper() + other[1:]
            at = word.casefold().find(bare)
            word = word[:at] + other + word[at + len(bare) :]
        found.append(word)
    return found


def _typo(word: str, rng: np.random.Generator) -> str:
    """One slip inside a word of four letters or more: a neighbouring key, a letter left out,
    doubled or changed places with the next."""
    if len(word) < 4:
        return word
    at = int(rng.integers(1, len(word) - 1))
    here, after = word[at], word[at + 1 :]
    near = NEIGHBOURS.get(here, here)
    slips = (
        near[rng.integers(len(near))] + after,
        after,
        here + here + after,
        after[:1] + here + after[1:],
    )
    return word[:at] + slips[rng.integers(len(slips))]


def _swapped(free: np.ndarray, chance: float, rng: np.random.Generator) -> list[int]:
    order = list(range(len(free)))
    draws = rng.random(len(free))
    for place in range(len(free) - 1):
        # Both as they were: a word moves by one place at most.
        still = order[place] == place
        if still and free[place] and free[place + 1] and draws[place] < chance:
            order[place], order[place + 1] = place + 1, place
    return order


def _span(free: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One run of words that begins with a free one, its free ones."""
    inside, starts = np.zeros(len(free), bool), np.flatnonzero(free)
    if len(starts):
        start = starts[rng.integers(len(starts))]
        inside[start : start + rng.integers(1, max(1, int(LONGEST_SPAN * len(free))) + 1)] = True
    return inside & free


AUGMENTERS: dict[str, Augmenter] = {"none": none, "eda": eda}
