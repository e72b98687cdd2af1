"""Texts that two splits share are found whatever their case and white space."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.text.splits import shared_texts
from jaxclf.types import Examples


def examples(*texts):
    ids = tuple(map(str, range(len(texts))))
    blank = np.zeros((len(texts), 1), np.float32)
    return Examples(ids, texts, blank, blank, ("x",), "")


def test_case_and_white_space_make_no_difference():
    seen = examples("The raven\tcroaks", "Straße")
    assert shared_texts(seen, examples("  the RAVEN \n croaks ", "STRASSE", "raven croaks")) == 2


def test_words_and_punctuation_make_a_difference():
    seen = examples("the raven croaks")
    assert shared_texts(seen, examples("the raven croaks.", "theraven croaks", "the croaks")) == 0


def test_each_text_of_the_other_split_counts_however_often_the_first_has_it():
    assert shared_texts(examples("a", "a", "b"), examples("a")) == 1
    assert shared_texts(examples("a"), examples("a", "A", "b")) == 2
    assert shared_texts(examples(), examples("a")) == shared_texts(examples("a"), examples()) == 0


@settings(deadline=None)
@given(*[st.lists(st.text("aB ", min_size=1)) for _ in range(2)])
def test_it_is_what_comparing_all_pairs_gives(one, other):
    def equal(left, right):
        return left.lower().split() == right.lower().split()

    expected = sum(any(equal(text, seen) for seen in one) for text in other)
    assert shared_texts(examples(*one), examples(*other)) == expected
