"""Shared texts are rows in any case and white space; groups stay together."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf.text.splits import connected_groups, select, shared_texts
from jaxclf.types import Examples


def examples(*texts):
    ids = tuple(map(str, range(len(texts))))
    blank = np.zeros((len(texts), 1), np.float32)
    return Examples(ids, texts, blank, blank, ("x",), "")


def test_case_and_white_space_make_no_difference():
    seen = examples("The raven\tcroaks", "Straße")
    assert shared_texts(seen, examples("  the RAVEN \n croaks ", "STRASSE", "raven croaks")) == 2


@settings(deadline=None)
@given(*[st.lists(st.text("aB. ", min_size=1)) for _ in range(2)])
def test_it_agrees_with_comparing_all_pairs(train, test):
    """Each text of the second split counts once."""

    def equal(left, right):
        return left.lower().split() == right.lower().split()

    expected = sum(any(equal(text, seen) for seen in train) for text in test)
    assert shared_texts(examples(*train), examples(*test)) == expected


def test_groups_connect_through_shared_texts():
    rows = examples("a b", "c", " A  B ", "d", "C", "e", "e")._replace(
        groups=("", "one", "one", "", "", "two", "")
    )
    bound = connected_groups(rows)
    assert bound[0] == bound[1] == bound[2] == bound[4]  # a text, then a group, then a text
    assert bound[5] == bound[6]
    assert len(set(bound.tolist())) == 3
    apart = connected_groups(examples("a", "b", "c"))
    assert len(set(apart.tolist())) == 3
    assert len(connected_groups(examples())) == 0


def test_selected_rows_keep_their_columns_together():
    rows = examples("a", "b", "c")._replace(groups=("x", "", "y"))
    some = select(rows, np.array([2, 0]), "two of them")
    assert (some.ids, some.texts, some.groups) == (("2", "0"), ("c", "a"), ("y", "x"))
    assert len(some.labels) == len(some.label_mask) == 2
    assert select(examples("a"), np.array([0]), "all").groups == ()
