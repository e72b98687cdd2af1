"""Tokenizers converted from vocabulary files give transformers' ids; damaged files are named."""

import importlib
import io
import json
import math
import random
import struct
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers
from transformers import AutoTokenizer

from jaxclf.errors import DataError
from jaxclf.text.tokenizer.tokenize import load_tokenizer

schema = importlib.import_module("sentencepiece.sentencepiece_model_pb2")

HERE = Path(__file__).parent
HARD = json.loads((HERE / "hard_texts.json").read_text("utf-8"))
LONG = ("a" * 10_000, "ab" * 3_000 + " é" * 500, "!" * 300, "1234567890" * 20)
TRAINING = {
    "model_type": "unigram",
    "vocab_size": 900,
    "character_coverage": 0.99,
    "num_threads": 1,
}
DEBERTA_SPM = {
    **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
    **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"},
}


def make_texts(rows):
    """Five hundred, the same on every run."""
    draw = random.Random(0)
    hard = [*HARD["texts"], *LONG]
    composed = [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in hard]
    texts = dict.fromkeys([*hard, *composed, *(row["text"] for row in rows["train"][:150])])
    while len(texts) < 440:
        alphabet = draw.choice(HARD["alphabets"])
        texts["".join(draw.choice(alphabet) for _ in range(draw.randint(1, 60)))] = None
    while len(texts) < 500:
        points = (draw.choice([0x100, 0x3000, 0x11000, 0x110000]) for _ in range(30))
        text = "".join(chr(draw.randrange(point)) for point in points)
        texts["".join(letter for letter in text if not 0xD800 <= ord(letter) < 0xE000)] = None
    return list(texts)


@pytest.fixture(scope="module")
def texts(demo_rows):
    return make_texts(demo_rows)


@pytest.fixture(scope="module")
def corpus(texts, demo_rows):
    """What small tokenizers are trained on: so that they know some of every script."""
    return [row["text"] for row in demo_rows["train"]] + [text for text in texts if len(text) < 999]


def train_pieces(corpus, **options):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=written, minloglevel=2, **(TRAINING | options)
    )
    return written.getvalue()


@pytest.fixture(scope="module")
def vocabularies(corpus, tmp_path_factory):
    """The raw files of small tokenizers: {name: {file: bytes}}."""
    folder = tmp_path_factory.mktemp("vocabularies")

    def files(tokenizer, **options):
        tokenizer.train_from_iterator(corpus, show_progress=False, **options)
        tokenizer.save_model(str(folder))
        names = (
            ["vocab.txt"] if "Word" in type(tokenizer).__name__ else ["vocab.json", "merges.txt"]
        )
        return {name: (folder / name).read_bytes() for name in names}

    pairs, words = tokenizers.ByteLevelBPETokenizer, tokenizers.BertWordPieceTokenizer
    roberta, deberta = ["<s>", "<pad>", "</s>", "<unk>"], ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    return {
        "uncased": files(words(), vocab_size=2500, limit_alphabet=600),
        "cased": files(
            words(lowercase=False, strip_accents=False), vocab_size=2500, limit_alphabet=600
        ),
        "roberta": files(pairs(), vocab_size=800, special_tokens=[*roberta, "<mask>"]),
        "deberta": files(pairs(), vocab_size=800, special_tokens=[*deberta, "[MASK]"]),
        "deberta_v2": {"spm.model": train_pieces(corpus, **DEBERTA_SPM)},
        "deberta_v2_own": {
            "spm.model": train_pieces(
                corpus, **DEBERTA_SPM, control_symbols=["[MASK]"], user_defined_symbols=["<new>"]
            )
        },
        "xlm_roberta": {"sentencepiece.bpe.model": train_pieces(corpus)},
        "xlm_roberta_raw": {
            "sentencepiece.bpe.model": train_pieces(
                corpus, normalization_rule_name="identity", user_defined_symbols=["tok1"]
            )
        },
    }


def save(folder, files, model_type, **others):
    """others: what further JSON files hold, by the name before .json."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, content in {"config": {"model_type": model_type}, **others}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def added(content, **flags):
    off = dict.fromkeys(["lstrip", "rstrip", "normalized", "single_word", "special"], False)
    return {"content": content, **off, **flags}


# The vocabulary, the model type and the JSON files beside it, by their names before .json.
CASES = {
    case["case"]: (case["vocabulary"], case["model_type"], case["files"])
    for case in json.loads((HERE / "settings.json").read_text("utf-8"))
}


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_transformers(case, vocabularies, texts, tmp_path):
    name, model_type, others = CASES[case]
    save(tmp_path, vocabularies[name], model_type, **others)
    ours = [encoding.ids for encoding in load_tokenizer(tmp_path).encode_batch(texts)]
    theirs = AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"]
    assert [
        text for text, ids, expected in zip(texts, ours, theirs, strict=True) if ids != expected
    ] == []


@pytest.mark.parametrize(("name", "model_type"), [("uncased", "bert"), ("roberta", "roberta")])
def test_without_a_model_type_the_files_tell_it(name, model_type, vocabularies, texts, tmp_path):
    save(tmp_path, vocabularies[name], model_type)
    expected = [encoding.ids for encoding in load_tokenizer(tmp_path).encode_batch(texts)]
    save(tmp_path, vocabularies[name], None)
    assert [e.ids for e in load_tokenizer(tmp_path).encode_batch(texts)] == expected


def test_texts_keep_their_case_where_the_vocabulary_has_capitals(vocabularies, tmp_path):
    text = "Paris in the Spring"
    save(tmp_path, vocabularies["cased"], "bert", tokenizer_config={"do_lower_case": False})
    cased = load_tokenizer(tmp_path).encode(text).ids
    for settings in ({}, {"do_lower_case": True}):
        save(tmp_path, vocabularies["cased"], "bert", tokenizer_config=settings)
        assert (load_tokenizer(tmp_path).encode(text).ids == cased) == (not settings)
    save(tmp_path, vocabularies["uncased"], "bert", tokenizer_config={})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(text).ids == tokenizer.encode(text.lower()).ids


def removed(content):
    return None


def set_to(content):
    return lambda _: content


def without(token):
    return lambda content: content.replace(token + b"\n", b"")


def entry(key, value):
    return lambda content: json.dumps(json.loads(content) | {key: value}).encode()


def model(edit):
    def change(content):
        message = schema.ModelProto.FromString(content)
        edit(message)
        return message.SerializeToString()

    return change


def piece(number, **values):
    def edit(message):
        for name, value in values.items():
            setattr(message.pieces[number], name, value)

    return model(edit)


def trained(**values):
    return model(lambda message: [setattr(message.trainer_spec, *each) for each in values.items()])


def not_text(content):
    return content.replace("▁the".encode(), b"\xff\xfeabcd")


VOCAB, JSON, MERGES = "vocab.txt", "vocab.json", "merges.txt"
SPM, BPE = "spm.model", "sentencepiece.bpe.model"
TOKENIZER, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
THOUSANDS = [f"<{number}>" for number in range(3_000)]
# vocabulary, change, file that is changed, what the message names
REFUSED = {
    "no merges": ("roberta", removed, MERGES, "merges.txt"),
    "no pieces": ("deberta-v2", removed, SPM, "spm.model"),
    "words not UTF-8": ("bert", set_to(b"[UNK]\n\xff\n"), VOCAB, "UTF-8"),
    "no words": ("bert", set_to(b""), VOCAB, r"'\[CLS\]'"),
    "no unknown word": ("bert", without(b"[UNK]"), VOCAB, r"'\[UNK\]'"),
    "no first word": ("bert", without(b"[CLS]"), VOCAB, r"'\[CLS\]'"),
    "too many words": ("bert", set_to(b"\n" * 600_001), VOCAB, "600,000"),
    "no id": ("roberta", entry("a", "1"), JSON, "vocab.json.*600,000"),
    "id below": ("roberta", entry("a", -1), JSON, "vocab.json.*600,000"),
    "id above": ("roberta", entry("a", 2**40), JSON, "vocab.json.*600,000"),
    "half a character": ("roberta", entry("\ud800", 9_999), JSON, "not a tokenizer"),
    "no end": ("deberta", lambda c: c.replace(b"[SEP]", b"[XYZ]"), JSON, r"'\[SEP\]'"),
    "merges not UTF-8": ("roberta", set_to(b"\xff\n"), MERGES, "UTF-8"),
    "merge of an unknown token": ("roberta", set_to(b"zz a\n"), MERGES, "zz"),
    "merge to an unknown token": ("roberta", set_to(b"! a\n"), MERGES, "!a"),
    "merge of three": ("roberta", set_to(b"a b c\n"), MERGES, "[Mm]erges"),
    "merge of none": ("roberta", set_to(b"#version: 1\n\n"), MERGES, "[Mm]erges"),
    "not a model": ("deberta-v2", set_to(b"\xff" * 99), SPM, "not a tokenizer"),
    "cut off": ("xlm-roberta", lambda c: c[:5_000], BPE, "not a tokenizer"),
    "no model": ("deberta-v2", set_to(b""), SPM, "vocabulary is empty"),
    "piece not UTF-8": ("deberta-v2", not_text, SPM, "not a tokenizer"),
    "score": ("xlm-roberta", piece(9, score=math.nan), BPE, "not a tokenizer"),
    "no start": ("deberta-v2", piece(1, piece="[XYZ]"), SPM, r"'\[CLS\]'"),
    "class": ("bert", entry("tokenizer_class", "BertModel"), TOKENIZER, "BertModel"),
    "option": ("bert", entry("do_lower_case", "yes"), TOKENIZER, "bool"),
    "split": ("bert", entry("split_special_tokens", True), TOKENIZER, "split_special_tokens"),
    "null": ("bert", entry("cls_token", None), TOKENIZER, "None"),
    "token": ("bert", entry("cls_token", 5), TOKENIZER, "cls_token"),
    "flag": ("bert", entry("cls_token", {"content": "a", "lstrip": 1}), MAP, "bool"),
    "tokens": ("bert", entry("additional_special_tokens", "ab"), TOKENIZER, "special_tokens"),
    "decoder": ("bert", entry("added_tokens_decoder", []), TOKENIZER, "not a tokenizer"),
    "decoded": ("bert", entry("added_tokens_decoder", {"x": added("a")}), TOKENIZER, "'x'"),
    "added id": ("bert", entry("new", [1]), ADDED, "not a tokenizer"),
    "wrong id": ("bert", entry("<new>", 9_999), ADDED, "'<new>' .* 9999"),
    "added accent": ("bert", entry("\u0301", 2_500), ADDED, "added token"),
    "thousands added": ("bert", entry("extra_special_tokens", THOUSANDS), TOKENIZER, "2,048"),
    "thousands named": (
        "bert",
        lambda _: json.dumps({f"{name}_token": name for name in THOUSANDS}).encode(),
        TOKENIZER,
        "2,048",
    ),
    "settings nested": ("bert", set_to(b'{"a_token":' + b"[" * 99_999), TOKENIZER, "nested"),
    "settings not JSON": ("bert", set_to(b"{"), TOKENIZER, f"{TOKENIZER}:1"),
    "model type": ("bert", entry("model_type", "modernbert"), "config.json", "'modernbert'"),
    "model type a list": ("bert", entry("model_type", [[1]]), "config.json", "1"),
}
FIRST = {"bert": "uncased", "deberta-v2": "deberta_v2", "xlm-roberta": "xlm_roberta"}


@pytest.mark.parametrize("case", REFUSED)
def test_a_damaged_folder_is_named_in_one_line(case, vocabularies, tmp_path):
    model_type, change, name, reason = REFUSED[case]
    files = vocabularies[FIRST.get(model_type, model_type)]
    save(tmp_path, files, model_type, tokenizer_config={}, special_tokens_map={}, added_tokens={})
    load_tokenizer(tmp_path)
    path = tmp_path / name
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", [TOKENIZER, MAP])
def test_settings_open_no_file_and_run_no_code(name, vocabularies, tmp_path):
    folder, outside = tmp_path / "model", tmp_path / "outside"
    folder.mkdir()
    save(folder, vocabularies["uncased"], "bert")
    expected = load_tokenizer(folder).to_str()
    outside.write_text("[UNK]\n[CLS]\n[SEP]\n")
    files = dict.fromkeys(["vocab_file", "tokenizer_file", "gguf_file", "vocab"], str(outside))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')")
    settings = files | {"auto_map": {"AutoTokenizer": ["code.A", "code.A"]}}
    (folder / name).write_text(json.dumps(settings))
    (folder / "chat_template.jinja").symlink_to(outside)
    assert load_tokenizer(folder).to_str() == expected
    assert not (tmp_path / "touched").exists()


def trie(units, texts=b"", size=None):
    return struct.pack("<I", 4 * len(units) if size is None else size) + units.tobytes() + texts


def make_charsmap(leaf, child=1, texts=b"xyz\0"):
    """A normalization table that replaces an "a" by the text that begins at leaf."""
    units = np.zeros(256, "<u4")
    units[ord("a")] = ord("a") | 1 << 8 | child << 10
    units[ord("a") ^ 1] = 1 << 31 | leaf
    return trie(units, texts)


def with_charsmap(content, charsmap):
    return model(
        lambda message: setattr(message.normalizer_spec, "precompiled_charsmap", charsmap)
    )(content)


def test_a_small_charsmap_is_followed(vocabularies, tmp_path):
    content = with_charsmap(vocabularies["xlm_roberta"][BPE], make_charsmap(1))
    save(tmp_path, {BPE: content}, "xlm-roberta")
    normalizer = load_tokenizer(tmp_path).normalizer
    assert normalizer is not None
    assert normalizer.normalize_str("banana") == "byznyznyz"


@pytest.mark.parametrize(
    "charsmap",
    [
        trie(np.zeros(0, "<u4")),
        trie(np.zeros(3, "<u4")),
        trie(np.zeros(256, "<u4"), size=2**31),
        b"\1",
        make_charsmap(0, child=2**20),
        make_charsmap(5),
        make_charsmap(1, texts="é\0".encode()),
        make_charsmap(0, texts=b"\xff\0"),
        trie(np.full(256, 2**31 + 2**20, "<u4")),
    ],
)
def test_a_charsmap_that_leads_outside_is_refused(charsmap, vocabularies, tmp_path):
    content = with_charsmap(vocabularies["xlm_roberta"][BPE], charsmap)
    save(tmp_path, {BPE: content}, "xlm-roberta")
    with pytest.raises(DataError, match="precompiled_charsmap"):
        load_tokenizer(tmp_path)


@pytest.mark.slow
def test_transformers_is_needed_for_vocabularies_alone_and_is_silent(vocabularies, tmp_path):
    code = """
import sys
from pathlib import Path
sys.modules["torch"] = None
from jaxclf.text.tokenizer.tokenize import load_tokenizer
folder = Path(sys.argv[1])
tokenizer = load_tokenizer(folder)
assert ("transformers" in sys.modules) == (sys.argv[2] == "first")
tokenizer.save(str(folder / "tokenizer.json"))
"""
    save(tmp_path, vocabularies["deberta_v2"], "deberta-v2")
    for number in ("first", "second"):
        arguments = [sys.executable, "-c", code, str(tmp_path), number]
        process = subprocess.run(arguments, check=True, capture_output=True, text=True)
        assert process.stdout + process.stderr == ""


def test_ids_decode_to_the_text(vocabularies, tmp_path):
    for name, model_type in (
        ("uncased", "bert"),
        ("roberta", "roberta"),
        ("xlm_roberta", "xlm-roberta"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        save(folder, vocabularies[name], model_type)
        tokenizer = load_tokenizer(folder)
        text = "i have not slept for a week"
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
