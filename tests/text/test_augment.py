"""Augmentation keeps the words that may decide a label, and is a pure function of the draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.experiment.overrides import options_of
from jaxclf.text.augment import (
    AUGMENTERS,
    NEGATIONS,
    NEIGHBORS,
    SCOPE,
    SYNONYMS,
    eda,
    free_words,
    none,
    plain,
)

STILL = {"drop": 0.0, "swap": 0.0, "typo": 0.0, "synonym": 0.0, "span": 0.0}
PROTECTED = ("i", "kill", "me", "tonight")
WILD = {
    "protected_words": PROTECTED,
    "probability": 1.0,
    "drop": 0.5,
    "swap": 0.5,
    "typo": 0.5,
    "synonym": 0.5,
    "span": 1.0,
}
TEXT = st.lists(
    st.sampled_from(
        "I not never Kill, tonight! job big Because walking table don't don\u2019t … 😀 é".split()
    ),
    min_size=1,
    max_size=12,
).map(" ".join)
LONG = "the quiet garden behind that large wooden kitchen window keeps blooming every single summer"


def rng(seed=0):
    return np.random.default_rng(seed)


def vary(text, seed=0, **options):
    return eda(text, rng(seed), **{"probability": 1.0, **STILL, **options})


@settings(deadline=None, max_examples=300)
@given(text=TEXT, seed=st.integers(0, 1000))
def test_words_that_are_not_free_stay_in_order(text, seed):
    tokens = text.split()
    is_free = free_words(tokens, PROTECTED)
    kept = [word for word, free in zip(tokens, is_free, strict=True) if not free]
    after = eda(text, rng(seed), **WILD).split()
    rest = iter(after)
    assert all(word in rest for word in kept)  # a subsequence
    assert after


@settings(deadline=None)
@given(text=TEXT, seed=st.integers(0, 1000))
def test_it_is_a_pure_function_of_text_and_draws(text, seed):
    assert eda(text, rng(seed), **WILD) == eda(text, rng(seed), **WILD)
    assert eda(text, rng(seed), **STILL, probability=1.0).split() == text.split()
    assert eda(text, rng(seed), **{**WILD, "probability": 0.0}) == text
    assert none(text, rng(seed)) == text


@pytest.mark.parametrize("negation", ["not", "Never", "don't", "DON\u2019T", "wasnt", "without,"])
def test_a_negation_and_the_two_words_after_it_are_not_free(negation):
    tokens = ["table", negation, "walking", "garden", "window"]
    assert free_words(tokens).tolist() == [True, False, False, False, True]
    assert SCOPE == 2


def test_protected_words_are_not_free_in_any_case_or_punctuation():
    assert not free_words(["Kill,", "(tonight)", "ME!!", "😀", "—"], PROTECTED).any()
    assert free_words(["walking"]).all()
    assert not free_words(["Walking."], ("walking",)).any()


def test_the_tables_do_not_contradict_each_other():
    assert not set(SYNONYMS) & NEGATIONS
    for word, synonyms in SYNONYMS.items():
        assert word not in synonyms
        assert all(word in SYNONYMS[synonym] for synonym in synonyms)
        assert word == plain(word)
    for key, neighbors in NEIGHBORS.items():
        assert all(key in NEIGHBORS[neighbor] for neighbor in neighbors)
    assert set(NEIGHBORS["s"]) == set("adwezx")


def test_a_synonym_keeps_capital_and_punctuation():
    seen = {vary("Big, (big)", seed, synonym=1.0) for seed in range(50)}
    assert seen == {
        f"{first}, ({second})" for first in ("Large", "Huge") for second in ("large", "huge")
    }


def test_a_typo_changes_one_letter_inside_a_word():
    seen = {vary("garden", seed, typo=1.0) for seed in range(300)}
    for word in seen:
        assert word[0] == "g"
        assert abs(len(word) - 6) <= 1
        assert word[-1] == "n" or sorted(word) == sorted("garden")
    kinds = {len(word) for word in seen}
    assert kinds == {5, 6, 7}
    assert vary("job", typo=1.0) == "job"


def test_a_swap_moves_a_word_by_one_position():
    before = LONG.split()
    for seed in range(50):
        after = vary(LONG, seed, swap=0.5).split()
        assert sorted(after) == sorted(before)
        assert all(abs(after.index(word) - index) <= 1 for index, word in enumerate(before))


def test_a_span_is_one_run_of_at_most_a_fifth():
    before = LONG.split()
    for seed in range(50):
        after = vary(LONG, seed, span=1.0).split()
        gone = [index for index, word in enumerate(before) if word not in after]
        assert gone == list(range(gone[0], gone[0] + len(gone)))
        assert 1 <= len(gone) <= len(before) // 5


def test_every_option_of_every_augmenter_is_tested():
    assert {name: set(options_of(function)) for name, function in AUGMENTERS.items()} == {
        "none": set(),
        "eda": WILD.keys(),
    }


@pytest.mark.parametrize("option", ["probability", *STILL])
def test_each_option_is_a_probability(option):
    """The share of 3,000 texts that changed is within four standard deviations of the option. A
    text has one free word; for swaps it has two."""
    text = "big garden" if option == "swap" else "perhaps me"
    options = {**STILL, "probability": 1.0, "protected_words": ("me",), option: 0.3}
    if option == "probability":
        options["synonym"] = 1.0
    changed = sum(eda(text, rng(seed), **options) != text for seed in range(3000))
    assert abs(changed / 3000 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 3000)
