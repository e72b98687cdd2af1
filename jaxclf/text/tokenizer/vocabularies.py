"""Vocabulary files of a model folder -> the fast tokenizer they mean."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.processors import BertProcessing

from jaxclf.files.untrusted import TOKENIZER_LIMIT, TOKENIZER_PARTS, has_entry, read_json, safe_path
from jaxclf.text.tokenizer.sentencepiece import read_pieces, sound
from jaxclf.text.tokenizer.tokenizer_config import (
    Settings,
    Token,
    add_tokens,
    fault,
    option,
    optional,
    read_settings,
    special,
)

BERT = ["", "", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"]
DEBERTA = ["[CLS]", "[SEP]", *BERT[2:]]
ROBERTA = ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"]


class Family(NamedTuple):
    build: Callable[[Settings], tuple[Tokenizer, list[Token]]]  # and the extra tokens it implies
    files: list[str]
    special: list[str]  # as in NAMES
    ends: tuple[str, str] = ("cls", "sep")  # what stands before and after a text


def build_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer that gives every text the ids that transformers 5.23 gives it for this
    folder. Raises DataError."""
    try:
        options = optional(folder, "tokenizer_config.json")
        family = family_of(folder, options)
        settings = read_settings(folder, options, family.special)
        tokenizer, implied = family.build(settings)
        declared = [str(token) for token in settings.declared.values()]
        first, last = (special(settings, name) for name in family.ends)
        for token in (first, last):
            if tokenizer.token_to_id(token) is None and token not in declared:
                raise fault(folder / family.files[0], f"has no {token!r}")
        add_tokens(tokenizer, settings, implied)
    except UnicodeError:  # JSON can spell half a character, which the library cannot take
        raise fault(folder, "its files hold something that is no Unicode text") from None
    ids = tokenizer.get_vocab()
    # A template would read a meaning into a colon or a dollar sign in a special token.
    tokenizer.post_processor = BertProcessing((last, ids[last]), (first, ids[first]))
    return tokenizer


def family_of(folder: Path, options: dict[str, Any]) -> Family:
    config = read_json(folder, "config.json")
    name = options.get("tokenizer_class") or config.get("tokenizer_class")
    name = str(name or config.get("model_type"))
    plain = name.removesuffix("Fast").removesuffix("Tokenizer").replace("-", "").lower()
    if plain not in FAMILIES:
        raise fault(folder, f"has no tokenizer.json, and nothing else will do for {name[:80]!r}")
    for file in FAMILIES[plain].files:
        if not has_entry(folder, file):
            raise fault(folder, f"has neither tokenizer.json nor the {file} of {name!r}")
    return FAMILIES[plain]


def wordpiece(settings: Settings) -> tuple[Tokenizer, list[Token]]:
    path, lines = read_lines(settings.folder, "vocab.txt")
    tokens = [line.rstrip() for line in lines]
    unknown = special(settings, "unk")
    distinct(tokens, path, unknown)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=option(settings, "tokenize_chinese_chars", True),
        strip_accents=option(settings, "strip_accents", None),
        lowercase=option(settings, "do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, settings.older


def byte_pairs(settings: Settings) -> tuple[Tokenizer, list[Token]]:
    path, lines = read_lines(settings.folder, "merges.txt")
    vocabulary = read_json(settings.folder, "vocab.json", TOKENIZER_LIMIT, TOKENIZER_PARTS)
    "".join(vocabulary).encode()  # or a UnicodeError, of which the library makes another one
    ids = list(vocabulary.values())
    if not all(type(number) is int and 0 <= number < 2**31 for number in ids):
        raise fault(settings.folder / "vocab.json", "not an id for each token")
    distinct(ids, settings.folder / "vocab.json")
    merges: list[tuple[str, str]] = []
    for line in lines:
        one, _, other = line.partition(" ")
        if not line.startswith("#version"):
            merges.append((one, other))
            if not vocabulary.keys() >= {one, other, one + other}:  # the library can panic
                raise fault(path, f"{line[:80]!r} does not make a token of two")
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    spaced = option(settings, "add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, settings.older


def deberta_pieces(settings: Settings) -> tuple[Tokenizer, list[Token]]:
    """Without the file's rules of normalization (NFKC and more), which the model was trained with:
    transformers 5 leaves them out."""
    path, model, scores, marked = read_pieces(settings.folder, "spm.model")
    unknown = (special(settings, "unk"), 0.0)
    distinct([piece for piece, _ in scores], path, unknown[0])
    number = scores.index(unknown) if unknown in scores else model.trainer_spec.unk_id
    tokenizer = Tokenizer(Unigram(scores, unk_id=number, byte_fallback=False))
    lowercase = [normalizers.Lowercase()] if option(settings, "do_lower_case", False) else []
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    tokenizer.normalizer = normalizers.Sequence(
        [*lowercase, spaces, normalizers.NFC(), normalizers.Strip(left=False)]
    )
    splits = [pre_tokenizers.Punctuation()] if option(settings, "split_by_punct", False) else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, metaspace(settings, "first")])
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, marked


def roberta_pieces(settings: Settings) -> tuple[Tokenizer, list[Token]]:
    path, model, scores, marked = read_pieces(settings.folder, "sentencepiece.bpe.model")
    # fairseq's numbers: its own four tokens in place of the file's <unk>, <s> and </s>.
    own = [(special(settings, name), 0.0) for name in ("bos", "pad", "eos", "unk", "mask")]
    scores = [*own[:4], *scores[3:], own[4]]
    distinct([piece for piece, _ in scores], path)
    tokenizer = Tokenizer(Unigram(scores, unk_id=3, byte_fallback=False))
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        if not sound(charsmap):
            raise fault(path, "its rules of normalization are damaged")
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    splits = [pre_tokenizers.WhitespaceSplit(), metaspace(settings, "never")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, marked


def metaspace(settings: Settings, otherwise: str) -> pre_tokenizers.Metaspace:
    scheme = "always" if option(settings, "add_prefix_space", True) else otherwise
    return pre_tokenizers.Metaspace(prepend_scheme=scheme)


def read_lines(folder: Path, name: str) -> tuple[Path, list[str]]:
    path = safe_path(folder, name, TOKENIZER_LIMIT)
    try:
        content = path.read_bytes()
        if content.count(b"\n") > TOKENIZER_PARTS:
            raise fault(path, f"of more than {TOKENIZER_PARTS:,} lines")
        lines = content.decode("utf-8").split("\n")  # at nothing else that ends a line
    except UnicodeDecodeError:
        raise fault(path, "not UTF-8") from None
    return path, [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def distinct(values: list[Any], path: Path, *needed: str) -> None:
    if len(set(values)) < len(values):
        raise fault(path, f"{Counter(values).most_common(1)[0][0]!r:.82} stands there twice")
    if lacking := set(needed) - set(values):
        raise fault(path, f"has no {lacking.pop()!r}")


FAMILIES = {  # by model_type without hyphens, which is also how a tokenizer_class begins
    "bert": Family(wordpiece, ["vocab.txt"], BERT),
    "distilbert": Family(wordpiece, ["vocab.txt"], BERT),
    "electra": Family(wordpiece, ["vocab.txt"], BERT),
    "roberta": Family(byte_pairs, ["vocab.json", "merges.txt"], ROBERTA),
    "deberta": Family(byte_pairs, ["vocab.json", "merges.txt"], DEBERTA),
    "debertav2": Family(deberta_pieces, ["spm.model"], DEBERTA),
    "xlmroberta": Family(roberta_pieces, ["sentencepiece.bpe.model"], ROBERTA, ("bos", "eos")),
}
