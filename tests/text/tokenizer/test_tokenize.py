"""Windows cover a long text with the stated overlap, each with the encoder's special tokens."""

import json
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from jaxclf.errors import ConfigError, DataError
from jaxclf.experiment.config import Data, Experiment
from jaxclf.experiment.validation import check
from jaxclf.text.tokenizer.tokenize import (
    CHUNK,
    check_copy,
    is_cut,
    load_tokenizer,
    tokenize,
)
from jaxclf.types import Windows

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
CLS, SEP = 2, 3
WORDS = ["raven", "rave", "##ns", "croak", "##s", "at", "night", ","]


ADDED = {
    "id": 12,
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


def load_tokenizer_of(folder, content):
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return load_tokenizer(folder)


def make_tokenizer():
    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def save(folder):
    """A tokenizer.json with truncation and padding that must not matter."""
    tokenizer = make_tokenizer()
    tokenizer.enable_truncation(5, stride=1, direction="left")
    tokenizer.enable_padding(length=12, direction="left")
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save(folder)
    return load_tokenizer(folder)


def windows_of(tokens):
    """Per example, the ids of each of its windows."""
    windows = [[] for _ in range(int(tokens.example_index.max(initial=-1)) + 1)]
    for window, owner in enumerate(tokens.example_index):
        windows[owner].append(
            tokens.ids[tokens.starts[window] : tokens.starts[window + 1]].tolist()
        )
    return windows


def inner(ids):
    assert (ids[0], ids[-1]) == (CLS, SEP)
    assert not {CLS, SEP} & set(ids[1:-1])
    return ids[1:-1]


TEXTS = st.lists(
    st.lists(st.sampled_from(["ravens", "Croaks", "at", "night,", "xyz"])).map(" ".join), min_size=1
)


def test_truncation_and_padding_of_the_file_are_ignored(tokenizer):
    text = "Ravens croak at night, " * 20
    assert tokenizer.encode(text).ids == make_tokenizer().encode(text).ids
    assert (tokenizer.truncation, tokenizer.padding) == (None, None)


@settings(deadline=None)
@given(texts=TEXTS, data=st.data())
def test_windows_cover_the_text_with_the_stated_overlap(tokenizer, texts, data):
    max_length = data.draw(st.integers(5, 12))
    overlap = data.draw(st.integers(0, max_length // 2))
    tokens = tokenize(tokenizer, texts, Windows(max_length, 10_000, overlap))
    for text, windows in zip(texts, windows_of(tokens), strict=True):
        parts = [inner(window) for window in windows]
        assert [len(window) for window in windows[:-1]] == [max_length] * (len(windows) - 1)
        assert len(windows[-1]) <= max_length
        for before, after in pairwise(parts):
            assert before[len(before) - overlap :] == after[:overlap]
            assert len(after) > overlap
        joined = parts[0] + [number for part in parts[1:] for number in part[overlap:]]
        assert joined == inner(tokenizer.encode(text).ids)


@settings(deadline=None)
@given(texts=TEXTS, max_windows=st.integers(1, 3))
def test_text_beyond_the_last_window_is_cut(tokenizer, texts, max_windows):
    every = windows_of(tokenize(tokenizer, texts, Windows(6, 10_000, 2)))
    some = windows_of(tokenize(tokenizer, texts, Windows(6, max_windows, 2)))
    assert some == [windows[:max_windows] for windows in every]
    cut = is_cut(tokenizer, texts, Windows(6, max_windows, 2))
    assert cut.tolist() == [len(windows) > max_windows for windows in every]


@settings(deadline=None)
@given(texts=TEXTS)
def test_owners_ascend_and_starts_frame_the_ids(tokenizer, texts):
    tokens = tokenize(tokenizer, tuple(texts), Windows(5, 2, 1))
    assert all(part.dtype == np.int32 for part in tokens)
    assert (np.diff(tokens.example_index) >= 0).all()
    assert sorted(set(tokens.example_index.tolist())) == list(range(len(texts)))
    assert tokens.starts[0] == 0
    assert tokens.starts[-1] == len(tokens.ids)
    assert (np.diff(tokens.starts) >= 2).all()
    assert len(tokens.starts) == len(tokens.example_index) + 1


def test_chunks_of_texts_leave_no_trace(tokenizer):
    texts = ["at night " * (number % 5) for number in range(2 * CHUNK + 3)]
    windows = windows_of(tokenize(tokenizer, texts, Windows(6, 3, 1)))
    alone = [windows_of(tokenize(tokenizer, [text], Windows(6, 3, 1)))[0] for text in texts[:5]]
    assert windows == [alone[number % 5] for number in range(len(texts))]


def test_no_texts_are_no_windows(tokenizer):
    tokens = tokenize(tokenizer, [], Windows(8, 4, 2))
    assert [part.tolist() for part in tokens] == [[], [0], []]
    assert all(part.dtype == np.int32 for part in tokens)


def test_the_callers_tokenizer_stays_as_it_is(tokenizer):
    before = tokenizer.to_str()
    tokenize(tokenizer, ["at night"], Windows(4, 4, 1))
    assert tokenizer.to_str() == before


def allowed(max_length, overlap):
    try:
        check(Experiment(Data("", "", "", max_length=max_length, window_overlap=overlap)))
    except ConfigError:
        return False
    return True


def test_every_valid_experiment_can_be_tokenized(tokenizer):
    pairs = [pair for pair in product(range(3, 10), range(6)) if allowed(*pair)]
    assert {(8, 0), (8, 2), (9, 2)} <= set(pairs)
    for max_length, overlap in pairs:
        tokens = tokenize(tokenizer, ["at night " * 10], Windows(max_length, 10_000, overlap))
        assert np.diff(tokens.starts).max() == max_length


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": "1.0"', b"\xff\xfe"])
def test_a_tokenizer_file_that_cannot_be_used_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"{path}:")


def test_a_folder_without_a_tokenizer_says_what_to_save(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "modernbert"}')
    with pytest.raises(DataError, match=r"tokenizer\.json.*modernbert"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"added_tokens": [ADDED | {"content": ""}]}, "'' is not an added token"),
        ({"added_tokens": [ADDED | {"content": "  ", "lstrip": True}]}, "is not an added token"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}}, "damaged"),
        (
            {
                "normalizer": {
                    "type": "Sequence",
                    "normalizers": [
                        {"type": "Precompiled", "precompiled_charsmap": "AAQAAP////8="}
                    ],
                }
            },
            "damaged",
        ),
    ],
    ids=str,
)
def test_contents_that_would_panic_later_are_refused(tmp_path, change, named):
    content = json.loads(make_tokenizer().to_str())
    assert load_tokenizer_of(tmp_path, content).encode("ravens").ids[0] == CLS
    with pytest.raises(DataError, match=named):
        load_tokenizer_of(tmp_path, content | change)


def test_two_tokens_with_one_id_are_refused_before_they_are_needed(tmp_path):
    """The library reads them from a file, but not from the text that it writes itself."""
    vocabulary = {"a": 0, "b": 1, "ab": 2}
    content = json.loads(Tokenizer(models.BPE(vocabulary, [("a", "b")])).to_str())
    check_copy(load_tokenizer_of(tmp_path, content), tmp_path)
    content["model"]["vocab"]["b"] = 0
    tokenizer = load_tokenizer_of(tmp_path, content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        check_copy(tokenizer, tmp_path)


def test_runs_of_spaces_may_be_tokens(tmp_path):
    """ModernBERT's are."""
    content = json.loads(make_tokenizer().to_str())
    content["added_tokens"] = [ADDED | {"content": "   "}]
    load_tokenizer_of(tmp_path, content)
