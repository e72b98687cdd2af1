"""Sentencepiece models: their pieces, scores and rules of normalization."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import AddedToken

from jaxclf.files.untrusted import TOKENIZER_LIMIT, TOKENIZER_PARTS, safe_path
from jaxclf.text.tokenizer.tokenizer_config import Token, fault

UNIGRAM, CONTROL, USER_DEFINED = 1, 3, 4  # sentencepiece's numbers for kinds of model and piece


def read_pieces(folder: Path, name: str) -> tuple[Path, Any, list[tuple[str, float]], list[Token]]:
    """A sentencepiece unigram model: its path, message, pieces and those it marks as special."""
    path = safe_path(folder, name, TOKENIZER_LIMIT)
    try:
        content = path.read_bytes()
        if content.count(b"\n") > TOKENIZER_PARTS:  # the byte that every piece begins with
            raise fault(path, f"of more than {TOKENIZER_PARTS:,} pieces")
        model = message_kind().FromString(content)
    except DecodeError:
        raise fault(path, "not a sentencepiece model") from None
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


# What is read of sentencepiece_model.proto: (name, number, kind, default). Its enumerations are
# numbers here.
FIELDS = {
    "Piece": [("piece", 1, "STRING", ""), ("score", 2, "FLOAT", "0"), ("type", 3, "INT32", "1")],
    "Trainer": [("model_type", 3, "INT32", "1"), ("unk_id", 40, "INT32", "0")],
    "Normalizer": [("precompiled_charsmap", 2, "BYTES", "")],
}
PARTS = {
    "pieces": (1, "Piece"),
    "trainer_spec": (2, "Trainer"),
    "normalizer_spec": (3, "Normalizer"),
}


@cache
def message_kind() -> Any:
    """The message of a sentencepiece model. Made here because sentencepiece's own demands one
    release of protobuf."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="jaxclf/pieces.proto", package="jaxclf")
    for message, fields in FIELDS.items():
        made = file.message_type.add(name=message)
        for name, number, typed, default in fields:
            made.field.add(
                name=name,
                number=number,
                type=getattr(kind, f"TYPE_{typed}"),
                label=kind.LABEL_OPTIONAL,
                default_value=default,
            )
    whole = file.message_type.add(name="Model")
    for name, (number, message) in PARTS.items():
        label = kind.LABEL_REPEATED if name == "pieces" else kind.LABEL_OPTIONAL
        whole.field.add(
            name=name,
            number=number,
            type=kind.TYPE_MESSAGE,
            type_name=f".jaxclf.{message}",
            label=label,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("jaxclf.Model"))


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
