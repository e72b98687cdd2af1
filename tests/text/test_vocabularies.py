"""Tokenizers built of vocabulary files give the ids that transformers gives; faults are named."""

import io
import json
import random
import unicodedata

import pytest
import sentencepiece
import tokenizers
from transformers import AutoTokenizer

from jaxclf.text.vocabularies import build_tokenizer

HARD = [
    *("", " ", "  ", "\t", "\n", " lead", "trail ", "  two  spaces  ", "a\tb\nc\r\nd\re\n\nf"),
    *("a" * 10_000, "ab" * 3_000 + " é" * 500, "!" * 300, "Don't stop; it's 'fine' -- isn't it?"),
    *(
        "😀😃",
        "👩‍👩‍👧‍👦 family",
        "🏳️‍🌈 🇩🇪🇫🇷 🇺",
        "👍🏽👍🏿",
        "❤️ vs ❤",
        "\U0001f9d1\u200d\U0001f680 go",
    ),
    *(
        "我爱北京天安门",
        "東京タワー、ﾄｳｷｮｳ。",
        "한국어 텍스트 가각",
        "中文English混合123",
        "𠀀𠀁 豈 㐀",
    ),
    *("السلام عليكم ورحمة الله", "مُحَمَّد ـــ ٱلْكِتَاب", "ﷺ ﻻ ﷽", "שָׁלוֹם עולם", "\u202eabc\u202c def"),
    *("नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก น้ำ", "தமிழ் মেঘ", "ខ្មែរ မြန်မာ", "ᠮᠣᠩᠭᠣᠯ ⵜⵉⴼⵉⵏⴰⵖ"),
    *("Straße ẞ İstanbul ıI ŉ ǅ ŒœÆ", "ÀÉÎÕÜ ñ ç ø đ ł", "Ά Έ ΐ ς Σ ὀδός", "Привет, Ёлка и й"),
    *("ﬁ ﬂ ﬃ ﬆ ĳ", "ＦＵＬＬ　ｗｉｄｔｈ １２３！", "①②③ ½ ¾ x² H₂O ™ ℃ Ⅷ ㎏ ㍿", "Zalgo: Z̸̢̛a̶̧l̷g̸o̴"),
    *("a\u0301e\u0301 \u0301x", "q\u0323\u0307 q\u0307\u0323", "\u1112\u1161\u11ab 한", "Å Å Å"),
    *(
        "a\x00b\x01c\x7fd\x80e\x9f",
        "\ufeffbom \ufffd \ufffe",
        "zero\u200bwidth\u200c\u200djoin\u2060er",
    ),
    *(
        "nb\u00a0sp\u2003em\u2009thin\u3000wide\u1680",
        "line\u2028para\u2029next\x85",
        "soft\u00adhyphen",
    ),
    *(
        "[CLS] text [SEP]",
        "a[MASK]b [MASK] c",
        "[PAD][UNK]",
        "<s> </s> <mask> <pad> <unk>",
        "x <mask>y",
    ),
    *(
        "  <mask>  ",
        "[sep] [Mask]",
        "##ing un##able",
        "▁under ▁▁score",
        "Ġg Ċ",
        "<0x0A> <unk",
        "$A:0 :1",
    ),
    *("https://example.org/a?b=c&d=%20#e", "me@mail.com @you #tag_1", "C:\\dir\\x.txt ~/.cfg"),
    *("3.14159 1,000,000 -5e-10 0x1F", "12:34:56 2024-02-29", "€5 £6 ¥7 50% §9", "1234567890" * 20),
    *("<new> word<new> <new>s", "NEW new", "tok1 xtok1y tok1", "``quotes'' “curly” «guillemets»"),
    *(
        "a.b,c;d:e!f?g",
        "-–—−",
        "…...",
        "{[(<>)]}",
        "`~^|\\",
        "\ud7ff\ue000 private \uf8ff",
        "\U0010ffff",
    ),
]
ALPHABETS = [
    *(
        "abcdefghijklmnopqrstuvwxyz    ",
        "ABCDEF éèêëüöäß ñ ",
        "\u0300\u0301\u0323\u0327\u20ddaeio ",
    ),
    *(
        "的一是不了人我在有他这 ，。",
        "あいうえおアイウエオー。 ",
        "가나다라마바사 각",
        "ابتثجحخدذرز ًٌٍَ",
    ),
    *("कखगघङचछज ािीुूेैोौ्", "กขคงจฉ ะาำิีึืุูเแโใไ่้", "😀🎉👩👨👧\u200d\ufe0f🏽🇩🇪 ", "𝐀𝒜𝔸 Ａａ①½ﬁ "),
    *(
        "\x00\x01\x1f\x7f\x85\xa0\xad a",
        "\u200b\u200c\u200d\u2028\u2029\u2060\ufeff b",
        "\t\n\r \u3000 c",
    ),
    *("[]<>/SEPCLMKmask ", "0123456789.,-+%$ ", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ z", "▁Ġ# ab"),
]


SPM = {"model_type": "unigram", "vocab_size": 900, "character_coverage": 0.99, "num_threads": 1}
DEBERTA_SPM = {
    **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
    **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"},
}


def make_texts(rows):
    """Five hundred, the same on every run."""
    draw = random.Random(0)
    composed = [unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in HARD]
    texts = dict.fromkeys([*HARD, *composed, *(row["text"] for row in rows["train"][:150])])
    while len(texts) < 440:
        alphabet = draw.choice(ALPHABETS)
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
        sentence_iterator=iter(corpus), model_writer=written, minloglevel=2, **(SPM | options)
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


def typed(content, **flags):
    return {"__type": "AddedToken", **added(content, **flags)}


def config(**options):
    return {"tokenizer_config": options}


def last(*tokens):
    """An added_tokens_decoder for the vocabulary of 900 pieces."""
    return {str(900 + number): token for number, token in enumerate(tokens)}


CASES = {
    "bert": ("uncased", "bert", {}),
    "bert, by its class": ("cased", "roberta", config(tokenizer_class="BertTokenizerFast")),
    "bert cased": ("cased", "bert", config(do_lower_case=False)),
    "bert cased, accents off": ("cased", "bert", config(do_lower_case=False, strip_accents=True)),
    "bert, accents kept": ("uncased", "bert", config(strip_accents=False)),
    "bert, Chinese whole": ("uncased", "bert", config(tokenize_chinese_chars=False)),
    "distilbert": ("uncased", "distilbert", config(tokenizer_class="DistilBertTokenizer")),
    "electra": (
        "uncased",
        "electra",
        config(tokenizer_class="ElectraTokenizer", strip_accents=None),
    ),
    "bert, renamed": (
        "cased",
        "bert",
        {
            "special_tokens_map": {
                "cls_token": "the",
                "sep_token": added("and", lstrip=True),
                "mask_token": added("[MASK]", lstrip=True, rstrip=True),
                "additional_special_tokens": ["tok1", "<s>"],
            },
            "tokenizer_config": {"do_lower_case": False, "pad_token": None, "sep_token": "[SEP]"},
        },
    ),
    "bert, added": (
        "uncased",
        "bert",
        {
            "added_tokens": {"<new>": 2500, "tok1": 2501, "É": 2502},
            "special_tokens_map": {"additional_special_tokens": ["tok1"], "mask_token": "<new>"},
        },
    ),
    "bert, added anew": (
        "uncased",
        "bert",
        {
            "tokenizer_config": {
                "added_tokens_decoder": {
                    "4": added("[MASK]", special=True, lstrip=True),
                    "2500": added("NEW", normalized=True, single_word=True),
                    "2501": added("tok1", rstrip=True),
                },
                "mask_token": typed("[MASK]"),
                "extra_special_tokens": {},
                "additional_special_tokens": ["tok1", typed("<s>", lstrip=True), "NEW"],
                "own_token": "https",
            },
            "added_tokens": {"ignored": 7},
            "special_tokens_map": {"cls_token": "ignored"},
        },
    ),
    "roberta": ("roberta", "roberta", {}),
    "roberta, spaced": ("roberta", "roberta", config(add_prefix_space=True, trim_offsets=True)),
    "roberta, as saved": (
        "roberta",
        "roberta",
        {
            "special_tokens_map": {"mask_token": added("<mask>", lstrip=True), "bos_token": "<s>"},
            "tokenizer_config": {"errors": "replace", "tokenizer_class": "RobertaTokenizer"},
        },
    ),
    "deberta": ("deberta", "deberta", config(do_lower_case=False)),
    "deberta, spaced": ("deberta", "deberta", config(add_prefix_space=True, add_bos_token=False)),
    "deberta_v2": ("deberta_v2", "deberta-v2", config(do_lower_case=False, vocab_type="spm")),
    "deberta_v2, lower": ("deberta_v2", "deberta-v2", config(do_lower_case=True)),
    "deberta_v2, punctuation": ("deberta_v2", "deberta-v2", config(split_by_punct=True)),
    "deberta_v2, unspaced": (
        "deberta_v2",
        "deberta-v2",
        config(add_prefix_space=False, split_by_punct=True, do_lower_case=True),
    ),
    "deberta_v2, as saved": (
        "deberta_v2",
        "deberta-v2",
        {
            "added_tokens": {"[MASK]": 900},
            "special_tokens_map": {"mask_token": "[MASK]", "unk_token": "[UNK]"},
            "tokenizer_config": {"split_by_punct": False, "sp_model_kwargs": {}},
        },
    ),
    "deberta_v2, unnamed mask": ("deberta_v2", "deberta-v2", {"added_tokens": {"[MASK]": 900}}),
    "deberta_v2, saved anew": (
        "deberta_v2",
        "deberta-v2",
        config(
            added_tokens_decoder=last(
                added("[MASK]", special=True), added("<new>", normalized=True)
            )
            | {"3": added("[UNK]", normalized=True, special=True)},
            additional_special_tokens=[],
        ),
    ),
    "deberta_v2, own symbols": (
        "deberta_v2_own",
        "deberta-v2",
        {"special_tokens_map": {"mask_token": added("[MASK]", lstrip=True)}},
    ),
    "xlm_roberta": ("xlm_roberta", "xlm-roberta", {}),
    "xlm_roberta, its file in a bert": (
        "xlm_roberta",
        "bert",
        config(tokenizer_class="XLMRobertaTokenizer", add_prefix_space=False),
    ),
    "xlm_roberta, as saved": (
        "xlm_roberta",
        "xlm-roberta",
        {
            "special_tokens_map": {"mask_token": added("<mask>", lstrip=True, normalized=True)},
            "tokenizer_config": {"model_max_length": 512},
        },
    ),
    "xlm_roberta, renamed": ("xlm_roberta", "xlm-roberta", config(bos_token="<a>", pad_token="$A")),
    "xlm_roberta, no charsmap": ("xlm_roberta_raw", "xlm-roberta", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_transformers(case, vocabularies, texts, tmp_path):
    name, model_type, others = CASES[case]
    save(tmp_path, vocabularies[name], model_type, **others)
    ours = [encoding.ids for encoding in build_tokenizer(tmp_path).encode_batch(texts)]
    theirs = AutoTokenizer.from_pretrained(tmp_path)(texts)["input_ids"]
    assert [
        text for text, one, other in zip(texts, ours, theirs, strict=True) if one != other
    ] == []
