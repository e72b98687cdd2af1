"""A classifier serves several threads at once, each as if it were alone."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from tiny_models import LABELS, make_model

import jaxclf
from jaxclf.errors import DataError
from jaxclf.experiment.config import Spec

THREADS = 8


@pytest.fixture(scope="module")
def model(tiny_encoder, tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return make_model(folder / "model", tiny_encoder, tiny_config, Spec("attention", width=8))


def ask(classifier, texts):
    """All that a classifier says of texts."""
    (found,) = classifier.explain(texts[:1])
    return classifier.predict_proba(texts), classifier.predict(texts), found


def test_threads_get_the_bits_that_each_would_alone(model, demo_rows):
    texts = [row["text"] for row in demo_rows["val"]]
    parts = [texts[index : index + 5] for index in range(THREADS)]
    start = Barrier(THREADS)
    together = jaxclf.load(model)  # nothing is compiled yet: the threads meet in that too

    def at_once(part):
        start.wait()
        return [ask(together, part) for _ in range(2)]

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(at_once, parts))
    for part, both in zip(parts, answers, strict=True):
        probs, labels, explained = ask(together, part)  # one after another now
        for found, given, why in both:
            np.testing.assert_array_equal(found, probs)
            assert given == labels
            assert why.words == explained.words
            np.testing.assert_array_equal(why.attributions, explained.attributions)
    assert together.labels == LABELS
    assert together.tokenizer.truncation is None  # the caller's, as it was


@pytest.mark.parametrize("ask", ["predict", "predict_proba", "explain"])
def test_a_text_that_cannot_be_read_is_refused_by_its_place(model, ask):
    classifier = jaxclf.load(model)
    for texts, says in (
        (["fine", " \n"], "text 1 is empty"),
        (["fine", "no\ud83d"], "text 1 holds half"),
    ):
        with pytest.raises(DataError, match=says):
            getattr(classifier, ask)(texts)
    assert len(getattr(classifier, ask)([])) == 0
