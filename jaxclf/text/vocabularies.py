"""Vocabulary files of a model folder -> the fast tokenizer they mean, where it has no
tokenizer.json."""

import importlib
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.processors import BertProcessing

from jaxclf.errors import DataError
from jaxclf.trust import TOKENIZER_LIMIT, file_in, holds, read_json

UNIGRAM, CONTROL, USER_DEFINED = 1, 3, 4  # sentencepiece's numbers for kinds of model and piece
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

# In transformers' order, which numbers those that a vocabulary lacks.
NAMES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
BERT = dict(zip(NAMES[2:], ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"], strict=True))
DEBERTA = {"bos_token": "[CLS]", "eos_token": "[SEP]", **BERT}
ROBERTA = dict(zip(NAMES, "<s> </s> <unk> </s> <pad> <s> <mask>".split(), strict=True))

Token = str | AddedToken


class Settings(NamedTuple):
    """What the small files of a folder say of its tokenizer."""

    folder: Path
    options: dict[str, Any]
    special: dict[str, Token]  # by name, with the defaults of the family
    declared: dict[int, AddedToken]  # by the id a file says they have
    extra: list[Token] | None  # None: tokenizer_config.json does not say
    older: list[Token]  # what special_tokens_map.json says, for then


class Family(NamedTuple):
    build: Callable[[Settings], tuple[Tokenizer, list[Token]]]  # and the extra tokens it implies
    files: list[str]
    special: dict[str, str]
    ends: tuple[str, str] = ("cls_token", "sep_token")  # what stands before and after a text


def build_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer that gives every text the ids that transformers 5.23 gives it for this folder.

    Its family is that of the tokenizer_class in tokenizer_config.json or config.json, else of the
    model_type. Raises DataError.
    """
    try:
        options = optional(folder, "tokenizer_config.json")
        family = family_of(folder, options)
        settings = read_settings(folder, options, family)
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
    family = FAMILIES.get(plain)
    needed = family.files if family else ["tokenizer.json"]
    lacking = [file for file in needed if not holds(folder, file)]
    if family is None or lacking:
        raise fault(folder, f"has neither tokenizer.json nor what else would do for {name!r}")
    return family


def read_settings(folder: Path, options: dict[str, Any], family: Family) -> Settings:
    """As transformers reads them: beside an added_tokens_decoder in tokenizer_config.json, the
    older special_tokens_map.json and added_tokens.json count for nothing."""
    path = folder / "tokenizer_config.json"
    if options.get("split_special_tokens"):
        raise fault(path, "split_special_tokens is not supported")
    given = special_in(options, path)
    extra = options.get("extra_special_tokens", {})
    if not extra:
        extra = options.get("additional_special_tokens", extra)
    if isinstance(extra, dict):
        given |= {name: token_in(value, path) for name, value in extra.items()}
    extra = None if isinstance(extra, dict) else tokens_in(extra, path)
    older: list[Token] = []
    if "added_tokens_decoder" in options:
        declared = declared_in(options["added_tokens_decoder"], path)
    else:
        path = folder / "special_tokens_map.json"
        found = optional(folder, path.name)
        given |= special_in(found, path, special=True)
        older = tokens_in(found.get("additional_special_tokens"), path, special=True)
        path = folder / "added_tokens.json"
        names = {str(token) for token in [*map(given.get, NAMES), *(extra or [])]}
        entries = {
            number: {"content": token, "normalized": token not in names, "special": token in names}
            for token, number in optional(folder, path.name).items()
        }
        declared = declared_in(entries, path)
    every = {name: token for name, token in {**family.special, **given}.items() if token}
    return Settings(folder, options, every, declared, extra, older)


def special_in(values: dict[str, Any], path: Path, **flags: bool) -> dict[str, Token | None]:
    return {
        key: token_in(value, path, **flags)
        for key, value in values.items()
        if key in NAMES or (key.endswith("_token") and isinstance(value, str | dict))
    }


def token_in(value: Any, path: Path, **flags: bool) -> Token | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {flag: value[flag] for flag in FLAGS if flag in value} | flags
        if all(isinstance(flag, bool) for flag in flags.values()):
            return AddedToken(value["content"], **flags)
    raise fault(path, f"{str(value)[:80]!r} is no token")


def tokens_in(values: Any, path: Path, **flags: bool) -> list[Token]:
    if not isinstance(values, list | None):
        raise fault(path, f"{str(values)[:80]!r} is no list of tokens")
    return [token for token in (token_in(value, path, **flags) for value in values or []) if token]


def declared_in(entries: Any, path: Path) -> dict[int, AddedToken]:
    declared = {}
    for number, value in entries.items() if isinstance(entries, dict) else [(entries, None)]:
        token = token_in(value, path)
        if not isinstance(token, AddedToken) or not str(number).isdecimal():
            raise fault(path, f"{str(number)[:80]!r} is no id of a token")
        declared[int(number)] = token
    return declared


def add_tokens(tokenizer: Tokenizer, settings: Settings, implied: list[Token]) -> None:
    """Have these tokens found in a text before anything else is."""
    declared = [settings.declared[number] for number in sorted(settings.declared)]
    known = {str(token) for token in declared}
    named = {str(token) for token in settings.special.values()}
    others = [*settings.special.values(), *(implied if settings.extra is None else settings.extra)]
    tokens = [*declared, *(token for token in others if str(token) not in known)]
    tokens = [AddedToken(each, special=True) if isinstance(each, str) else each for each in tokens]
    for token in tokens:
        token.special = token.special or str(token) in named
        normalizer = tokenizer.normalizer if token.normalized else None
        # A token that normalizes to nothing is found inside characters: the library panics.
        if normalizer and not normalizer.normalize_str(str(token)):
            raise fault(settings.folder, f"{str(token)!r} is no token")
    tokenizer.add_tokens(tokens)
    for number, token in settings.declared.items():
        if tokenizer.token_to_id(str(token)) != number:
            raise fault(settings.folder, f"{number} is not the id of the token {str(token)!r}")


def wordpiece(settings: Settings) -> tuple[Tokenizer, list[Token]]:
    path, lines = read_lines(settings.folder, "vocab.txt")
    tokens = [line.rstrip() for line in lines]
    unknown = special(settings, "unk_token")
    if unknown not in tokens:
        raise fault(path, f"has no {unknown!r}")
    distinct(tokens, path)
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
    path = settings.folder / "vocab.json"
    vocabulary = read_json(settings.folder, path.name, TOKENIZER_LIMIT)
    if not all(type(number) is int and 0 <= number < 2**31 for number in vocabulary.values()):
        raise fault(path, "not an id for each token")
    distinct(list(vocabulary.values()), path)
    path, lines = read_lines(settings.folder, "merges.txt")
    pairs = [line.split(" ") for line in lines if not line.startswith("#version")]
    for pair in pairs:
        # Where the two together are no token, the library panics.
        if len(pair) != 2 or any(part not in vocabulary for part in (*pair, "".join(pair))):
            raise fault(path, f"{' '.join(pair)[:80]!r} does not merge two tokens into a third")
    merges = [(one, other) for one, other in pairs]
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    spaced = option(settings, "add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, settings.older


def deberta_pieces(settings: Settings) -> tuple[Tokenizer, list[Token]]:
    """Without the file's rules of normalization (NFKC and more), which the model was trained with:
    transformers 5 leaves them out."""
    path, model, scores, marked = read_pieces(settings.folder, "spm.model")
    distinct([piece for piece, _ in scores], path)
    unknown = (special(settings, "unk_token"), 0.0)
    number = scores.index(unknown) if unknown in scores else model.trainer_spec.unk_id
    tokenizer = Tokenizer(Unigram(scores, unk_id=number, byte_fallback=False))
    lowercase = [normalizers.Lowercase()] if option(settings, "do_lower_case", False) else []
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    tokenizer.normalizer = normalizers.Sequence(
        [*lowercase, spaces, normalizers.NFC(), normalizers.Strip(left=False)]
    )
    splits = [pre_tokenizers.Punctuation()] if option(settings, "split_by_punct", False) else []
    scheme = "always" if option(settings, "add_prefix_space", True) else "first"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, marked


def roberta_pieces(settings: Settings) -> tuple[Tokenizer, list[Token]]:
    path, model, scores, marked = read_pieces(settings.folder, "sentencepiece.bpe.model")
    # fairseq's numbers: its own four tokens in place of the file's <unk>, <s> and </s>.
    four = [special(settings, f"{name}_token") for name in ("bos", "pad", "eos", "unk")]
    mask = special(settings, "mask_token")
    scores = [*((name, 0.0) for name in four), *scores[3:], (mask, 0.0)]
    distinct([piece for piece, _ in scores], path)
    tokenizer = Tokenizer(Unigram(scores, unk_id=3, byte_fallback=False))
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        if not sound(charsmap):
            raise fault(path, "its rules of normalization are damaged")
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    scheme = "always" if option(settings, "add_prefix_space", True) else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, marked


def read_pieces(folder: Path, name: str) -> tuple[Path, Any, list[tuple[str, float]], list[Token]]:
    """A sentencepiece unigram model: its path, message, pieces and those it marks as special."""
    path = file_in(folder, name, TOKENIZER_LIMIT)
    try:
        schema = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
        wrong = importlib.import_module("google.protobuf.message").DecodeError
    except Exception as error:  # ImportError, or protobuf's own where it is older than the schema
        advice = "pip install 'jaxclf[sentencepiece]'"
        raise DataError(f"{path}: is read with sentencepiece: {error}; {advice}") from None
    model = schema.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except wrong:
        raise fault(path, "not a sentencepiece model") from None
    if model.trainer_spec.model_type != UNIGRAM:
        raise fault(path, "a sentencepiece model, but not of the unigram kind")
    scores = [(piece.piece, piece.score) for piece in model.pieces]
    fine = all(isinstance(piece, str) and math.isfinite(score) for piece, score in scores)
    if not fine or not 0 <= model.trainer_spec.unk_id < len(scores):
        raise fault(path, "a damaged sentencepiece model")
    marked: list[Token] = [
        AddedToken(piece.piece, normalized=False, special=piece.type == CONTROL)
        for piece in model.pieces
        if piece.type in (CONTROL, USER_DEFINED)
    ]
    return path, model, scores, marked


def sound(charsmap: bytes) -> bool:
    """Whether the trie in it (https://github.com/s-yata/darts-clone) leads nowhere outside: the
    library follows it unchecked, and panics on the text that gets there."""
    size = int.from_bytes(charsmap[:4], "little")
    if not size or size % 1024 or len(charsmap) < 4 + size:  # nodes lie in blocks of 256
        return False
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4).astype(np.int64)
    texts = np.frombuffer(charsmap[4 + size :] + b"\0", np.uint8)
    below = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))
    nodes = units < 2**31  # the others are where a replacement begins
    nodes[0] = True
    if below[nodes].max() >= len(units):
        return False
    begins = units[below[nodes & (units & 256 > 0)]] % 2**31
    return bool(begins.max(initial=0) < len(texts) and not (texts[begins] >> 6 == 0b10).any())


def special(settings: Settings, name: str) -> str:
    if name not in settings.special:
        raise fault(settings.folder, f"its files say that there is no {name}")
    return str(settings.special[name])


def option(settings: Settings, name: str, default: bool | None) -> Any:
    value = settings.options.get(name, default)
    if value is not default and not isinstance(value, bool):
        raise fault(settings.folder / "tokenizer_config.json", f"{name} is neither true nor false")
    return value


def optional(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder, name) if holds(folder, name) else {}


def read_lines(folder: Path, name: str) -> tuple[Path, list[str]]:
    path = file_in(folder, name, TOKENIZER_LIMIT)
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")  # at nothing else that ends a line
    except UnicodeDecodeError:
        raise fault(path, "not UTF-8") from None
    return path, [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def distinct(values: list[Any], path: Path) -> None:
    if len(set(values)) < len(values):
        raise fault(path, f"{Counter(values).most_common(1)[0][0]!r} stands there twice")


def fault(path: Path, reason: str) -> DataError:
    advice = "copy the model's files anew, or save its tokenizer.json there"
    return DataError(f"{path}: {reason}; {advice}")


FAMILIES = {  # by model_type without hyphens, which is also how a tokenizer_class begins
    "bert": Family(wordpiece, ["vocab.txt"], BERT),
    "distilbert": Family(wordpiece, ["vocab.txt"], BERT),
    "electra": Family(wordpiece, ["vocab.txt"], BERT),
    "roberta": Family(byte_pairs, ["vocab.json", "merges.txt"], ROBERTA),
    "deberta": Family(byte_pairs, ["vocab.json", "merges.txt"], DEBERTA),
    "debertav2": Family(deberta_pieces, ["spm.model"], DEBERTA),
    "xlmroberta": Family(
        roberta_pieces, ["sentencepiece.bpe.model"], ROBERTA, ("bos_token", "eos_token")
    ),
}
