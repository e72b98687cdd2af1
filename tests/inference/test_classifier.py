"""A classifier may be called from several threads at once, and names the text it cannot read."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import jax
import numpy as np
import pytest
from tiny_models import LABELS

import jaxclf
from jaxclf.errors import DataError

THREADS = 8


def call_all_methods(classifier, texts):
    (explanation,) = classifier.explain(texts[:1])
    return classifier.predict_proba(texts), classifier.predict(texts), explanation


@pytest.mark.slow
def test_threads_get_the_same_bits_as_a_single_caller(run_folder, demo_rows):
    texts = [row["text"] for row in demo_rows["val"]]
    parts = [texts[index : index + 5] for index in range(THREADS)]
    start = Barrier(THREADS)
    classifier = jaxclf.load(run_folder)  # not yet compiled: the threads compile at once too

    def call_twice(part):
        start.wait()
        return [call_all_methods(classifier, part) for _ in range(2)]

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(call_twice, parts))
    for part, both in zip(parts, results, strict=True):
        expected_probs, expected_labels, expected = call_all_methods(classifier, part)
        for probs, labels, explanation in both:
            np.testing.assert_array_equal(probs, expected_probs)
            assert labels == expected_labels
            assert explanation.words == expected.words
            np.testing.assert_array_equal(explanation.attributions, expected.attributions)
    assert classifier.labels == LABELS
    assert classifier.tokenizer.truncation is None  # the tokenizer is not changed by its use


def test_an_unreadable_text_is_named_by_its_index(classifier):
    with pytest.raises(DataError, match="list"):
        classifier.predict("not a list")
    for method in (classifier.predict, classifier.predict_proba, classifier.explain):
        for bad_text in ("", " \n", "no\ud83d"):
            with pytest.raises(DataError, match="text 1 "):
                method(["good", bad_text])
        assert len(method([])) == 0


def test_probabilities_that_are_not_numbers_are_refused(run_folder):
    classifier = jaxclf.load(run_folder)
    (group,) = classifier.groups
    params = jax.tree.map(lambda leaf: leaf * 1e38, group.params)
    classifier.groups = [group._replace(params=params)]
    with pytest.raises(DataError, match="not numbers"):
        classifier.predict_proba(["a text"])
