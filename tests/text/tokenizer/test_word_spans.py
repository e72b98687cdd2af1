"""Every token lies in one word, for every kind of tokenizer."""

import functools
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    BertWordPieceTokenizer,
    ByteLevelBPETokenizer,
    SentencePieceUnigramTokenizer,
    Tokenizer,
    processors,
)

from jaxclf.text.tokenizer.tokenize import tokenize
from jaxclf.text.tokenizer.word_spans import tokenize_with_spans, words_of
from jaxclf.types import Windows

CORPUS = [
    "I can't sleep, and it isn't fine.",
    "na\u00efve caf\u00e9s; 深い夜です",
    "so sad :( 😂",
] * 9
FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
HEART = "\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}"


@functools.cache
def make_tokenizer(kind):
    """Of the ways that encoders' tokenizers cut: word pieces, bytes, sentence pieces."""
    if kind == "wordpiece":
        maker = BertWordPieceTokenizer()
        maker.train_from_iterator(CORPUS, vocab_size=150, show_progress=False)
    elif kind == "bytes":
        maker = ByteLevelBPETokenizer(trim_offsets=True)
        maker.train_from_iterator(CORPUS, vocab_size=300, show_progress=False)
    else:
        maker = SentencePieceUnigramTokenizer()
        maker.train_from_iterator(
            CORPUS, vocab_size=90, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]
        )
    tokenizer = Tokenizer.from_str(maker.to_str())
    if kind == "wordpiece":
        ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    return tokenizer


KINDS = ["wordpiece", "bytes", "unigram"]
TEXTS = st.text(
    st.sampled_from("aSd'\u2019.:(\u0301\u200d 深す\n\u3000ह\u093f😂\u200b")
    | st.characters(codec="utf-8"),
    min_size=1,
).filter(str.strip)


def spans_of(kind, text):
    result = tokenize_with_spans(make_tokenizer(kind), [text], Windows(1000, 1, 0))
    return result.spans[result.is_text]


def words(kind, text):
    return [text[start:end] for start, end in words_of(text, spans_of(kind, text)).spans]


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_those_of_a_reader(kind):
    assert words(kind, "I can't sleep,  and it isn\u2019t\n\nfine... :(") == [
        "I", "can't", "sleep", ",", "and", "it", "isn\u2019t", "fine", "...", ":(",
    ]  # fmt: skip
    assert words(kind, "nai\u0308ve caf\u00e9s") == ["nai\u0308ve", "caf\u00e9s"]


def test_letters_and_digits_are_words_and_so_are_runs_of_other_signs():
    text = "'so' self-harm 24h?! it's"
    pieces = np.stack([np.arange(len(text)), np.arange(len(text)) + 1], axis=1)
    assert [text[start:end] for start, end in words_of(text, pieces).spans] == [
        "'", "so", "'", "self", "-", "harm", "24h", "?!", "it's",
    ]  # fmt: skip


def test_joined_signs_are_one_word_and_unspaced_scripts_follow_the_tokens():
    assert words("bytes", f"{FAMILY} {HEART}! \u0939\u093f\u0928") == [
        FAMILY, f"{HEART}!", "\u0939\u093f\u0928",
    ]  # fmt: skip
    assert words("wordpiece", "深い夜 ok") == ["深", "い", "夜", "ok"]
    joined = words_of("深い夜です", np.array([[0, 1], [1, 3], [3, 5]]))
    assert joined.spans.tolist() == [[0, 1], [1, 3], [3, 5]]


def test_a_token_over_several_words_joins_them():
    result = words_of("say no more of it", np.array([[0, 6], [6, 11], [12, 14]]))
    assert result.spans.tolist() == [[0, 6], [7, 11], [12, 14]]
    assert result.of.tolist() == [0, 1, 2]


def test_white_space_belongs_to_the_word_after_it_and_at_the_end_to_the_last():
    result = words_of("\n\na  b ", np.array([[0, 2], [2, 3], [4, 4], [5, 6], [6, 7], [7, 7]]))
    assert result.spans.tolist() == [[2, 3], [5, 6]]
    assert result.of.tolist() == [0, 0, 1, 1, 1, 1]


def test_characters_without_a_token_are_not_words():
    result = words_of("one two three", np.array([[4, 7]]))
    assert (result.spans.tolist(), result.of.tolist()) == ([[4, 7]], [0])
    nothing = words_of("\x00", np.zeros((0, 2), np.int64))
    assert (nothing.spans.shape, nothing.of.shape) == ((0, 2), (0,))


@settings(deadline=None)
@given(text=TEXTS, kind=st.sampled_from(KINDS))
def test_every_token_lies_in_one_word(text, kind):
    spans = spans_of(kind, text)
    result = words_of(text, spans)
    assert len(result.of) == len(spans)
    assert set(result.of.tolist()) == set(range(len(result.spans)))
    for (start, end), (after, _) in pairwise([*result.spans.tolist(), [len(text), 0]]):
        assert start < end <= after
    for start, end in result.spans:
        assert text[start:end] == text[start:end].strip()
    for (start, end), (first, last) in zip(spans, result.spans[result.of], strict=True):
        inside = [index for index in range(start, end) if not text[index].isspace()]
        assert all(first <= index < last for index in inside)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_tokenize(kind):
    texts = [*CORPUS[:3], " ".join(CORPUS), "a"]
    tokenizer = make_tokenizer(kind)
    for cut in (Windows(1000, 1, 0), Windows(9, 3, 2)):
        plain, result = tokenize(tokenizer, texts, cut), tokenize_with_spans(tokenizer, texts, cut)
        for expected, array in zip(plain, result.tokens, strict=True):
            np.testing.assert_array_equal(array, expected)
    has_special = kind == "wordpiece"  # the other kinds add no special tokens
    assert (~result.is_text).sum() == has_special * 2 * len(plain.example_index)
