"""A classifier may be called from several threads at once, and names the text it cannot read."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import jax
import numpy as np
import pytest
from huggingface_hub import RepoUrl
from huggingface_hub.errors import LocalTokenNotFoundError
from tiny_models import LABELS

import jaxclf
from jaxclf.errors import ConfigError, DataError
from jaxclf.files.json_file import without_nan

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
    for method in (classifier.predict, classifier.predict_proba, classifier.explain):
        for bad_text in ("", " \n", "no\ud83d", None, float("nan"), np.nan, 3, ["a"], b"bytes"):
            with pytest.raises(DataError, match="text 1 "):
                method(["good", bad_text])
        assert len(method([])) == 0
    for reason, bad_text in (("missing \\(None", None), ("missing \\(nan", np.nan), ("int", 3)):
        with pytest.raises(DataError, match=reason):
            classifier.predict(["good", bad_text])


@pytest.mark.parametrize("texts", [{"text": "a"}, {"a"}, b"a", 3, None])
def test_what_has_no_order_of_texts_is_refused(classifier, texts):
    with pytest.raises(DataError, match="in place of texts"):
        classifier.predict(texts)


class Series(list):
    """A column as pandas and polars have it."""


def test_texts_may_be_any_sequence_and_a_string_is_one_text(classifier):
    texts = ["a text of joy", "fear", "anger"]
    expected, probs = classifier.predict(texts), classifier.predict_proba(texts)
    forms = (tuple(texts), np.array(texts), np.array(texts, object), iter(texts), Series(texts))
    for form in forms:
        assert classifier.predict(form) == expected
    assert classifier.predict(text for text in texts) == expected
    assert classifier.predict(texts[0]) == expected[0]
    assert classifier.predict(np.str_(texts[0])) == expected[0]
    np.testing.assert_allclose(classifier.predict_proba(texts[0]), probs[0], atol=1e-6)
    explanation, (listed,) = classifier.explain(texts[0]), classifier.explain(texts[:1])
    assert explanation.words == listed.words


class Frame(dict):
    """A DataFrame of pandas as far as the classifier uses it."""

    @property
    def columns(self):
        return list(self)

    def assign(self, **columns):
        return type(self)({**self, **columns})


class PolarsFrame(Frame):
    assign = property()  # has none

    def with_columns(self):
        raise AssertionError("not used")


@pytest.mark.parametrize("form", [Frame, PolarsFrame])
def test_a_frame_gets_columns_of_labels_and_probabilities(classifier, form):
    frame = form(id=[7, 8], text=["a text of joy", "fear"])
    answers, probs = classifier.predict(frame), classifier.predict_proba(frame)
    assert type(answers) is form
    assert list(frame) == ["id", "text"]
    assert list(answers) == [
        *frame,
        *(f"predicted.{label}" for label in LABELS),
        *(f"probability.{label}" for label in LABELS),
    ]
    for index, label in enumerate(LABELS):
        np.testing.assert_array_equal(answers[f"probability.{label}"], probs[:, index])
        expected = [label in labels for labels in classifier.predict(frame["text"])]
        assert answers[f"predicted.{label}"].tolist() == expected


@pytest.mark.parametrize("form", [Frame, PolarsFrame])
def test_a_frame_without_texts_is_refused_by_the_name_of_its_column(classifier, form):
    for method in (classifier.predict, classifier.predict_proba, classifier.explain):
        with pytest.raises(DataError, match=r"no column 'text'.*did you mean 'texts'"):
            method(form(texts=["a"], name=["b"]))


def test_the_representation_names_the_model(classifier):
    shown = repr(classifier)
    for part in ("tiny", *LABELS, "fixed", classifier.identifier):
        assert part in shown


def fork_and_predict(classifier, method):
    """The exit code of a forked child that calls a method: 0 if it was refused."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        method(["a text"])
    except ConfigError as error:
        code = 0 if "fork" in str(error) else 2
    finally:
        os._exit(code)


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_after_load_is_refused_at_once(classifier, run_folder):
    for method in (classifier.predict, classifier.explain, lambda _: jaxclf.load(run_folder)):
        assert fork_and_predict(classifier, method) == 0
    assert classifier.predict(["a text"])  # the parent goes on


def load_and_predict(folder, text):
    return jaxclf.load(folder).predict(text)


@pytest.mark.slow
def test_a_spawned_child_loads_and_answers(classifier, run_folder):
    text = "a text of joy"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(load_and_predict, (run_folder, text)) == classifier.predict(text)


def test_a_saved_copy_answers_alike_and_nothing_else_is_replaced(finished_run, tmp_path):
    classifier = jaxclf.load(finished_run.folder)
    classifier.save(tmp_path / "model")
    classifier.save(tmp_path / "model")  # replaces a model
    copy = jaxclf.load(tmp_path / "model")
    assert copy.digest == classifier.digest
    assert copy.report == classifier.report
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for path in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(ConfigError, match="not a model"):
            classifier.save(path)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


class Hub:
    """The calls of the Hub that are used."""

    def __init__(self, token, library_name):
        self.token = token

    def create_repo(self, name, private, exist_ok):
        if self.token is None:
            raise LocalTokenNotFoundError("no token")
        calls.append((self.token, name, private, exist_ok))
        return RepoUrl(f"https://huggingface.co/{name}")

    def upload_folder(self, repo_id, folder_path):
        opened = jaxclf.load(folder_path)
        files = {path.name for path in folder_path.iterdir()}
        calls.append((repo_id, opened.labels, files))


calls: list[tuple] = []


def test_a_model_is_pushed_with_its_card_and_without_row_hashes(run_folder, monkeypatch):
    calls.clear()
    monkeypatch.setattr("jaxclf.inference.saving.HfApi", Hub)
    classifier = jaxclf.load(run_folder)
    assert classifier.push_to_hub("me/model", token="t") == "https://huggingface.co/me/model"
    created, (repository, labels, files) = calls
    assert created == ("t", "me/model", True, True)
    assert (repository, labels) == ("me/model", LABELS)
    assert {"README.md", "config.json", "tokenizer_config.json", "model.safetensors"} <= files
    assert "row_hashes.npz" not in files
    with pytest.raises(ConfigError, match="me/model: no token"):
        classifier.push_to_hub("me/model")


def test_the_report_has_the_figures_of_the_run_and_shows_their_intervals(finished_run, classifier):
    report = jaxclf.load(finished_run.folder).report
    assert report == without_nan(finished_run.report)
    low, high = report["test"]["intervals"]["macro_f1"]
    for shown in (repr(report), report._repr_html_()):
        assert f"{report['test']['macro_f1']:.3f}" in shown
        assert f"{low:.3f} to {high:.3f}" in shown
    name = "<b>&"
    report["test"]["labels"] = {name: next(iter(report["test"]["labels"].values()))}
    assert "&lt;b&gt;&amp;" in report._repr_html_()
    with pytest.raises(DataError, match="no such file"):
        _ = classifier.report  # a model without a run


def test_probabilities_that_are_not_numbers_are_refused(run_folder):
    classifier = jaxclf.load(run_folder)
    (group,) = classifier.groups
    params = jax.tree.map(lambda leaf: leaf * 1e38, group.params)
    classifier.groups = [group._replace(params=params)]
    with pytest.raises(DataError, match="not numbers"):
        classifier.predict_proba(["a text"])
