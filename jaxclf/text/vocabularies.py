"""Vocabulary files of a model folder -> the fast tokenizer they mean."""

import importlib
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.processors import BertProcessing

from jaxclf.errors import DataError
from jaxclf.trust import TOKENIZER_LIMIT, file_in, holds, read_json

UNIGRAM, CONTROL, USER_DEFINED = 1, 3, 4  # sentencepiece's numbers for kinds of model and piece
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

# In transformers' order, which numbers those that a vocabulary lacks.
NAMES = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]
BERT = ["", "", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"]
DEBERTA = ["[CLS]", "[SEP]", *BERT[2:]]
ROBERTA = ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"]

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
    special: list[str]  # as in NAMES
    ends: tuple[str, str] = ("cls", "sep")  # what stands before and after a text


def build_tokenizer(folder: Path) -> Tokenizer:
    """A tokenizer that gives every text the ids that transformers 5.23 gives it for this folder;
    for nothing but ids, since it has no decoder. Raises DataError."""
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
    if plain not in FAMILIES:
        raise fault(folder, f"has no tokenizer.json, and nothing else will do for {name[:80]!r}")
    for file in FAMILIES[plain].files:
        if not holds(folder, file):
            raise fault(folder, f"has neither tokenizer.json nor the {file} of {name!r}")
    return FAMILIES[plain]


def read_settings(folder: Path, options: dict[str, Any], family: Family) -> Settings:
    """As transformers reads them: beside an added_tokens_decoder in tokenizer_config.json, the
    older special_tokens_map.json and added_tokens.json count for nothing."""
    path, older_path = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    decoder = options.get("added_tokens_decoder")
    older = optional(folder, older_path.name) if decoder is None else {}
    extra = (options | older).get("extra_special_tokens", {})
    extra = extra or options.get("additional_special_tokens", extra)
    extra = None if extra == {} else tokens_in(extra, path)
    given = special_in(options, path) | special_in(older, older_path, special=True)
    options = options | older
    if options.get("split_special_tokens"):
        raise fault(path, "split_special_tokens is not supported")
    if decoder is None:
        names = {str(token) for token in [*map(given.get, NAMES), *(extra or [])]}
        pairs = [
            (number, {"content": text, "normalized": text not in names, "special": text in names})
            for text, number in optional(folder, "added_tokens.json").items()
        ]
    else:
        pairs = list(decoder.items()) if isinstance(decoder, dict) else [(decoder, None)]
    every = dict(zip(NAMES, family.special, strict=True)) | given
    known = {name: token for name, token in every.items() if token}
    listed = tokens_in(older.get("additional_special_tokens"), older_path, special=True)
    return Settings(folder, options, known, declared_in(pairs, folder), extra, listed)


def special_in(values: dict[str, Any], path: Path, **flags: bool) -> dict[str, Token | None]:
    return {
        key.removesuffix("_token"): token_in(value, path, **flags)
        for key, value in values.items()
        if key.endswith("_token") and (key[:-6] in NAMES or isinstance(value, str | dict))
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


def declared_in(pairs: list[tuple[Any, Any]], path: Path) -> dict[int, AddedToken]:
    declared = {}
    for number, value in pairs:
        token = token_in(value, path)
        if not isinstance(token, AddedToken) or not re.fullmatch("[0-9]{1,9}", str(number)):
            raise fault(path, f"{str(number)[:80]!r} is no id of a token")
        declared[int(number)] = token
    return declared


def add_tokens(tokenizer: Tokenizer, settings: Settings, implied: list[Token]) -> None:
    """Have these tokens found in a text before anything else is."""
    named = list(settings.special.values())
    known = {str(token) for token in settings.declared.values()}
    others = [*named, *(implied if settings.extra is None else settings.extra)]
    tokens = [settings.declared[number] for number in sorted(settings.declared)]
    for token in (token for token in others if str(token) not in known):
        tokens.append(AddedToken(token, special=True) if isinstance(token, str) else token)
    for token in tokens:
        token.special = token.special or str(token) in map(str, named)
        normalizer = tokenizer.normalizer if token.normalized else None
        text = normalizer.normalize_str(str(token)) if normalizer else str(token)
        if not text.strip():  # found between other tokens, it makes the library panic
            raise fault(settings.folder, f"{str(token)!r} is no token")
    tokenizer.add_tokens(tokens)
    for number, token in settings.declared.items():
        if tokenizer.token_to_id(str(token)) != number:
            raise fault(settings.folder, f"{number} is not the id of the token {str(token)!r}")


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
    return tokenizer, settings.older


def byte_pairs(settings: Settings) -> tuple[Tokenizer, list[Token]]:
    path, lines = read_lines(settings.folder, "merges.txt")
    vocabulary = read_json(settings.folder, "vocab.json", TOKENIZER_LIMIT)
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
    return tokenizer, marked


def metaspace(settings: Settings, otherwise: str) -> pre_tokenizers.Metaspace:
    scheme = "always" if option(settings, "add_prefix_space", True) else otherwise
    return pre_tokenizers.Metaspace(prepend_scheme=scheme)


def read_pieces(folder: Path, name: str) -> tuple[Path, Any, list[tuple[str, float]], list[Token]]:
    """A sentencepiece unigram model: its path, message, pieces and those it marks as special."""
    path = file_in(folder, name, TOKENIZER_LIMIT)
    content = path.read_bytes()
    try:
        schema = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
        model = schema.ModelProto.FromString(content)
    except ImportError as error:
        raise DataError(f"{path}: {error}; pip install 'jaxclf[sentencepiece]'") from None
    except Exception as error:  # protobuf's, named only in it: a damaged file, or an old protobuf
        raise fault(path, f"not read as a sentencepiece model: {error}") from None
    scores = [(piece.piece, piece.score) for piece in model.pieces]
    fine = all(isinstance(piece, str) and math.isfinite(score) for piece, score in scores)
    if not fine or not 0 <= model.trainer_spec.unk_id < len(scores):
        raise fault(path, "a damaged sentencepiece model")
    if model.trainer_spec.model_type != UNIGRAM:
        raise fault(path, "not a unigram model")
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
    texts = np.frombuffer(charsmap[4 + size :].decode().encode() + b"\0", np.uint8)
    below = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))
    nodes = units < 2**31  # the others are where a replacement begins
    nodes[0] = True
    if below[nodes].max() >= len(units):
        return False
    begins = units[below[nodes & (units & 256 > 0)]] % 2**31
    return bool(begins.max(initial=0) < len(texts) and not (texts[begins] >> 6 == 0b10).any())


def special(settings: Settings, name: str) -> str:
    if name not in settings.special:
        raise fault(settings.folder, f"its files say that there is no {name}_token")
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


def distinct(values: list[Any], path: Path, *needed: str) -> None:
    if len(set(values)) < len(values):
        raise fault(path, f"{Counter(values).most_common(1)[0][0]!r} stands there twice")
    if lacking := set(needed) - set(values):
        raise fault(path, f"has no {lacking.pop()!r}")


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
    "xlmroberta": Family(roberta_pieces, ["sentencepiece.bpe.model"], ROBERTA, ("bos", "eos")),
}
