"""Hostile model folders are refused with a reason, in little time and memory, and touch nothing
outside.

A case takes a valid folder, spoils it in one way, and opens it as training or prediction does.
"""

import contextlib
import ctypes
import gc
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import flax.serialization
import flax.traverse_util
import jax
import msgpack
import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer, pre_tokenizers

import jaxclf
from jaxclf.errors import JaxclfError
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.inference.members import param_shapes
from jaxclf.model.storage.saved_model import SavedModel, open_encoder, pretrained_params, save_model

CPU_SECONDS, MEMORY, LETTERS = 2.0, 200e6, 25_000

NAN = float("nan")
LABELS = ("alpha", "beta", "gamma")
EXPERIMENT = Experiment(
    Data("", "", "", max_length=16, max_windows=2, window_overlap=2),
    encoder=Encoder(name="tiny"),
    pool=Spec("attention", hidden_dim=8),
    head=Spec("linear"),
)
CONFIG, TOKENIZER, META = "config.json", "tokenizer.json", "jaxclf.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLAX, HEAD = "flax_model.msgpack", "head.safetensors"
WORDS, BIAS = "embeddings.word_embeddings.weight", "embeddings.LayerNorm.bias"
QUERY = "encoder.layer.0.attention.self.query.weight"
GB = 10**9
NO_NAME = "no such file|is not a file name|outside the folder"
NUMBER = {"type": "Sequence", "normalizers": 5}
AROUND = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", GB]}

# Ways to spoil a folder.

Spoil = Callable[[Path], object]


def put(name: str, content: str | bytes) -> Spoil:
    """The file holds this instead."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def grow(name: str, size: int) -> Spoil:
    """So many bytes; what is new is a hole in the file and takes no disk."""
    return lambda folder: os.truncate(folder / name, size)


def move_out(name: str) -> Spoil:
    """Good as it is, but beside the folder; a link leads there."""

    def spoil(folder):
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return spoil


def link(name: str, target: str) -> Spoil:
    return make(name, lambda path: path.symlink_to(target))


def make(name: str, maker: Callable[[Path], object]) -> Spoil:
    """Something else in the file's place."""

    def spoil(folder):
        (folder / name).unlink(missing_ok=True)
        maker(folder / name)

    return spoil


def edit(name: str, change: Callable[[dict], object]) -> Spoil:
    """A JSON file changed."""

    def spoil(folder):
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return spoil


def config(**values) -> Spoil:
    return edit(CONFIG, lambda config: config.update(values))


def meta(**values) -> Spoil:
    return edit(META, lambda meta: meta.update(values))


def experiment(part: str, **values) -> Spoil:
    return edit(META, lambda meta: meta["experiment"][part].update(values))


def tensors(change: Callable[[dict], object], name: str = SINGLE) -> Spoil:
    """A safetensors file changed."""

    def spoil(folder):
        stored = safetensors.numpy.load((folder / name).read_bytes())
        change(stored)
        safetensors.numpy.save_file(stored, folder / name)

    return spoil


def tensor(name: str, change: Callable[[np.ndarray], np.ndarray], file: str = SINGLE) -> Spoil:
    def spoil(stored):
        stored[name] = np.ascontiguousarray(change(stored[name]))

    return tensors(spoil, file)


def number(value: float, dtype: str = "float32") -> Callable[[np.ndarray], np.ndarray]:
    """One number in the middle of a tensor is this."""

    def change(old):
        new = old.astype(dtype)
        new.flat[new.size // 2] = value
        return new

    return change


def header(change: Callable[[bytes], bytes]) -> Spoil:
    """The text of model.safetensors' header changed, and its length put right."""

    def spoil(folder):
        data = (folder / SINGLE).read_bytes()
        size = int.from_bytes(data[:8], "little")
        text = change(data[8 : 8 + size].rstrip())
        (folder / SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])

    return spoil


def entry(**values) -> Spoil:
    """What that header says of the word vectors."""

    def change(text):
        entries = json.loads(text)
        entries[WORDS].update(values)
        return json.dumps(entries).encode()

    return header(change)


def word_entry_twice(text: bytes) -> bytes:
    duplicate = json.dumps({WORDS: json.loads(text)[WORDS]}).encode()
    return text[:-1] + b"," + duplicate[1:]


def more_names(count: int) -> Spoil:
    """So many more names in that header, of tensors without elements."""

    def change(text):
        end = max(item["data_offsets"][1] for item in json.loads(text).values())
        rest = b'":{"dtype":"F32","shape":[0],"data_offsets":[%d,%d]}' % (end, end)
        return text[:-1] + b"".join(b',"%d%b' % (n, rest) for n in range(count)) + b"}"

    return header(change)


def raw_header(size: int, text: bytes) -> Spoil:
    return put(SINGLE, size.to_bytes(8, "little") + text)


def many_errors(stored: dict) -> None:
    del stored[BIAS]
    stored["more"] = np.zeros(1, np.float32)
    stored[QUERY] = np.zeros((3, 3), np.float32)
    stored[WORDS] = stored[WORDS].astype(np.int32)


def huge_words(folder: Path) -> None:
    """Word vectors of 512 MB that fit the config; another tensor is missing."""
    config(vocab_size=2**22)(folder)
    tensors(lambda stored: [stored.pop(name) for name in (WORDS, BIAS)])(folder)
    header(words_at_the_end)(folder)
    grow(SINGLE, (folder / SINGLE).stat().st_size + 2**29)(folder)


def words_at_the_end(text: bytes) -> bytes:
    entries = json.loads(text)
    end = max(item["data_offsets"][1] for item in entries.values())
    words = {"dtype": "F32", "shape": [2**22, 32], "data_offsets": [end, end + 2**29]}
    return json.dumps({**entries, WORDS: words}).encode()


def huge_windows(folder: Path) -> None:
    config(max_position_embeddings=2**20, local_attention=2**20)(folder)
    experiment("data", max_length=10**6)(folder)
    (folder / HEAD).unlink()


def huge_flax(folder: Path) -> None:
    """A file of 1 GB, and a config that has room for it."""
    config(vocab_size=2**22)(folder)
    grow(FLAX, GB)(folder)


def flax_tree(change: Callable[[dict], object]) -> Spoil:
    """The Flax file changed."""

    def spoil(folder):
        tree = flax.serialization.msgpack_restore((folder / FLAX).read_bytes())
        change(tree)
        (folder / FLAX).write_bytes(flax.serialization.msgpack_serialize(tree))

    return spoil


def flax_array(*parts) -> Spoil:
    """A Flax file of one array: its shape, dtype and bytes."""
    return put(FLAX, msgpack.packb({"x": msgpack.ExtType(1, msgpack.packb(parts))}))


def kernel_twice(tree: dict) -> None:
    """Beside its kernel, a layer has what that is called in torch."""
    layer = tree["bert"]["encoder"]["layer"]["0"]["output"]["dense"]
    layer["weight"] = layer["kernel"].T.copy()


def place_words(name: str) -> Spoil:
    """The index says that the word vectors lie there."""
    return edit(INDEX, lambda index: index["weight_map"].update({WORDS: name}))


def vocabulary(change: Callable[[dict], object]) -> Spoil:
    return edit(TOKENIZER, lambda values: change(values["model"]["vocab"]))


def a_million_words(folder: Path) -> None:
    vocabulary(lambda words: words.update({f"word{n}": n for n in range(400, 10**6)}))(folder)


def a_million_words_and_rows(folder: Path) -> None:
    a_million_words(folder)
    config(vocab_size=10**6)(folder)


def added(count: int) -> Spoil:
    """So many added tokens."""

    def change(values):
        token = values["added_tokens"][0]
        values["added_tokens"] += [
            {**token, "content": f"<{n}>", "id": n} for n in range(400, count)
        ]

    return edit(TOKENIZER, change)


def no_words(values: dict) -> None:
    values["model"] = {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}
    values["post_processor"], values["added_tokens"] = None, []


def pieces(content: bytes) -> Spoil:
    """A sentencepiece model in place of tokenizer.json."""

    def spoil(folder):
        (folder / TOKENIZER).unlink()
        (folder / "spm.model").write_bytes(content)

    return spoil


class Touch:
    """Who unpickles this makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled(name: str) -> Spoil:
    """The weights are a pickle."""

    def spoil(folder):
        if name != HEAD:
            (folder / SINGLE).unlink()
        (folder / name).write_bytes(pickle.dumps(Touch(folder.parent / "touched")))

    return spoil


# By the folder they begin with: what is done to it, and the reason given.
HOSTILE = {
    "bert": {
        "hidden size of 10^9": (config(hidden_size=GB), "hidden_size=1000000000 is not"),
        "negative hidden size": (config(hidden_size=-32), "hidden_size=-32 is not"),
        "no layers": (config(num_hidden_layers=0), "num_hidden_layers=0 is not"),
        "a million layers": (config(num_hidden_layers=10**6), "num_hidden_layers=1000000 is not"),
        "256 layers, two of them there": (config(num_hidden_layers=256), "missing encoder.layer.2"),
        "heads a fraction": (config(num_attention_heads=4.0), "num_attention_heads=4.0 is not"),
        "heads that do not divide": (config(num_attention_heads=5), "cannot be shared by 5"),
        "number in quotes": (config(vocab_size="400"), "vocab_size='400' is not"),
        "true for a number": (config(type_vocab_size=True), "type_vocab_size=True is not"),
        "epsilon NaN": (config(layer_norm_eps=float("nan")), "layer_norm_eps=nan is not"),
        "epsilon infinite": (config(layer_norm_eps=float("inf")), "layer_norm_eps=inf is not"),
        "vocabulary of 10^12": (config(vocab_size=10**12), "vocab_size=1000000000000 is not"),
        "activation of a megabyte": (config(hidden_act="x" * 10**6), "hidden_act='xxx"),
        "activation of two lines": (config(model_type="bert\n\x1b[2J"), r"model_type 'bert\\n"),
        "number of 5,000 digits": (put(CONFIG, '{"vocab_size":' + "9" * 5000 + "}"), "digits"),
        "100,000 brackets": (put(CONFIG, "[" * 10**5), "nested too deeply"),
        "config no object": (put(CONFIG, "[]"), "not a JSON object"),
        "config not UTF-8": (put(CONFIG, b'{"model_type":"\xff"}'), "not UTF-8"),
        "key twice": (put(CONFIG, '{"a":1,"a":2}'), "duplicate key 'a'"),
        "key twice among 100,000": (
            put(CONFIG, '{"a":1,' + "".join(f'"{n}":1,' for n in range(10**5)) + '"a":1}'),
            "duplicate key 'a'",
        ),
        "key of a megabyte twice": (
            put(CONFIG, "{" + ",".join(['"' + "x" * 10**6 + '":1'] * 2) + "}"),
            "duplicate key 'xxx",
        ),
        "20,000 objects": (
            put(CONFIG, '{"model_type":"bert","vocab_size":[' + "{}," * 20_000 + "{}]}"),
            "vocab_size=",
        ),
        "config of 10 GB": (grow(CONFIG, 10 * GB), "10,000,000,000 bytes"),
        "config missing": (remove(CONFIG), "no such file"),
        "config a folder": (make(CONFIG, Path.mkdir), "not a plain file"),
        "config a pipe": (make(CONFIG, os.mkfifo), "not a plain file"),
        "config linked from outside": (move_out(CONFIG), "leads out of the folder"),
        "config linked from nowhere": (link(CONFIG, "nothing"), "(no such|not a plain) file"),
        "config linked from a device": (link(CONFIG, "/dev/zero"), "leads out of the folder"),
        "config linked from itself": (link(CONFIG, CONFIG), "link"),
        "code of its own": (config(auto_map={"AutoModel": "model.Model"}), "auto_map"),
        "quantized": (config(quantization_config={}), "quantization_config"),
        "unknown model_type": (config(model_type="llama"), "model_type 'llama'"),
        "list for a model_type": (config(model_type=["bert"]), "model_type"),
        "weights linked from outside": (move_out(SINGLE), "leads out of the folder"),
        "weights a pipe": (make(SINGLE, os.mkfifo), "not a plain file"),
        "weights empty": (put(SINGLE, b""), "not (a safetensors file|JSON)"),
        "weights missing": (remove(SINGLE), "none of model.safetensors"),
        "weights cut short": (grow(SINGLE, 50_000), "not a safetensors file"),
        "weights of 10 GB": (grow(SINGLE, 10 * GB), "not a safetensors file"),
        "NaN": (tensor(QUERY, number(np.nan)), f"{QUERY} holds NaN"),
        "infinity": (tensor(QUERY, number(-np.inf)), f"{QUERY} holds NaN or infinity"),
        "beyond float32": (tensor(QUERY, number(1e300, "float64")), f"{QUERY} holds .* infinity"),
        "transposed": (tensor(WORDS, np.transpose), rf"{WORDS} has shape \(32, 400\)"),
        "whole numbers": (tensor(BIAS, lambda x: x.astype(np.int64)), f"{BIAS} has dtype I64"),
        "missing, unexpected, misshapen, of another kind": (
            tensors(many_errors),
            f"(?=.*missing {BIAS})(?=.*unexpected more)"
            rf"(?=.*{QUERY} has shape \(3, 3\))(?=.*{WORDS} has dtype I32)",
        ),
        "one tensor of 512 MB, another missing": (huge_words, f"missing {BIAS}"),
        "one tensor under two names": (
            tensors(lambda stored: stored.update({"bert." + BIAS: stored[BIAS].copy()})),
            f"duplicate .*{BIAS}",
        ),
        "name of a megabyte": (
            tensors(lambda stored: stored.update({"x" * 10**6: np.zeros(1)})),
            "unexpected .?xxx",
        ),
        "name that clears the terminal": (
            tensors(lambda stored: stored.update({"x\x1b[2J\n": np.zeros(1)})),
            "unexpected .?x",
        ),
        "header key twice": (header(word_entry_twice), f"duplicate key '{WORDS}'"),
        "header of 2^63 bytes": (raw_header(2**63, b"{}"), "a header of 9,223,372"),
        "header no JSON": (raw_header(8, b"not json"), "not (a safetensors file|JSON)"),
        "header nested deeply": (raw_header(10**6, b"[" * 10**6), "not a safetensors file|deeply"),
        "header of a million names": (more_names(10**6), "a header of"),
        "header of 200,000 names": (more_names(200_000), "unexpected|header"),
        "tensors that overlap": (entry(data_offsets=[4, 51204]), "not a safetensors file"),
        "tensor beyond the file": (
            entry(data_offsets=[10**12, 10**12 + 51200]),
            "not a safetensors file",
        ),
        "shape of 2^128": (entry(shape=[2**63, 2**63, 4]), "not a safetensors file"),
        "shape negative": (entry(shape=[-400, -32]), "not a safetensors file"),
        "unknown kind of a megabyte": (entry(dtype="x" * 10**6), "not a safetensors file"),
        "pickle as .bin": (pickled("pytorch_model.bin"), "not opened(?s:.*)save_pretrained"),
        "pickle as .pt": (pickled("model.pt"), "not opened(?s:.*)save_pretrained"),
        "pickle as safetensors": (pickled(SINGLE), "not a safetensors file"),
        "pickle as msgpack": (pickled(FLAX), "not a Flax msgpack file"),
        "pickle as index": (pickled(INDEX), "not UTF-8"),
        "tokenizer of 10 GB": (grow(TOKENIZER, 10 * GB), "10,000,000,000 bytes"),
        "tokenizer no JSON": (put(TOKENIZER, "nothing"), "not (a tokenizer|JSON)"),
        "tokenizer nested deeply": (put(TOKENIZER, '{"model":' * 10**5), "nested too deeply"),
        "tokenizer of a megabyte's string": (
            edit(TOKENIZER, lambda values: values["model"].update(vocab="x" * 10**6)),
            "not a tokenizer",
        ),
        "tokenizer of 20 million zeros": (
            put(TOKENIZER, '{"version":"1.0","model":[' + "0," * (2 * 10**7) + "0]}"),
            "tokenizer.json",
        ),
        "tokenizer of no known kind": (
            edit(TOKENIZER, lambda values: values["model"].update(type="Python")),
            "not a tokenizer",
        ),
        "tokenizer linked from outside": (move_out(TOKENIZER), "leads out of the folder"),
        "tokenizer a pipe": (make(TOKENIZER, os.mkfifo), "not a plain file"),
        "normalizers that are a number": (
            edit(TOKENIZER, lambda values: values.update(normalizer=NUMBER)),
            "tokenizer.json",
        ),
        "added tokens that are a number": (
            edit(TOKENIZER, lambda values: values.update(added_tokens=5)),
            "tokenizer.json",
        ),
        "vocabulary beyond the table": (
            vocabulary(lambda words: words.update(word=400)),
            "ids up to 400, the encoder's table ends at 399",
        ),
        "id of 10^9": (vocabulary(lambda words: words.update(word=GB)), "ids up to 1000000000"),
        "id of 10^9 around every text": (
            edit(TOKENIZER, lambda values: values.update(post_processor=AROUND)),
            "ids up to 1000000000",
        ),
        "vocabulary of a million": (a_million_words, "tokenizer"),
        "vocabulary of a million, and a table for it": (
            a_million_words_and_rows,
            "tokenizer.json|embeddings.word_embeddings.weight has shape",
        ),
        "vocabulary of none": (edit(TOKENIZER, no_words), "tokenizer"),
        "200,000 added tokens": (added(200_000), "tokenizer"),
    },
    "sharded": {
        "shard above the folder": (place_words("../one.safetensors"), "outside the folder"),
        "shard at an absolute path": (place_words("/etc/passwd"), "outside the folder"),
        "shard of a NUL": (place_words("one\0.safetensors"), NO_NAME),
        "shard of two lines": (place_words("one\n.safetensors"), NO_NAME),
        "shard of half a character": (place_words("\ud800"), NO_NAME),
        "shard of a long name": (place_words("x" * 5000), NO_NAME),
        "shard of no name": (place_words(""), "outside the folder|leads out|not a plain file"),
        "shard the folder above": (place_words(".."), "leads out of the folder|not a plain file"),
        "shard no string": (place_words(5), "no weight_map"),
        "shard missing": (place_words("three.safetensors"), "three.safetensors: no such file"),
        "shard the config": (place_words(CONFIG), "not a safetensors file"),
        "shard linked from outside": (move_out("one.safetensors"), "leads out of the folder"),
        "shard a pipe": (make("one.safetensors", os.mkfifo), "not a plain file"),
        "tensor in another shard": (place_words("two.safetensors"), "does not place|is not in"),
        "tensor in no shard": (
            edit(INDEX, lambda index: index["weight_map"].update(more="one.safetensors")),
            "'more' is not in one.safetensors",
        ),
        "index a list": (put(INDEX, "[]"), "not a JSON object"),
        "index a map of a list": (put(INDEX, '{"weight_map":[]}'), "no weight_map"),
        "index of five million lists": (
            put(INDEX, '{"weight_map":[' + "[]," * (5 * 10**6) + "[]]}"),
            "no weight_map|bytes; at most",
        ),
    },
    "flax": {
        "buffer of 4 GB claimed": (put(FLAX, b"\x81\xa1x\xc6\xff\xff\xff\xff"), "not a Flax"),
        "arrays of 200,000 in each other": (
            put(FLAX, b"\xdd\x00\x03\x0d\x40" * 500 + bytes(200_000)),
            "not a Flax",
        ),
        "maps a thousand deep": (put(FLAX, b"\x81\xa1x" * 1000 + b"\x01"), "not a Flax|no tensor"),
        "maps 100,000 deep": (put(FLAX, b"\x81\xa1x" * 10**5), "not a Flax"),
        "list for a tree": (put(FLAX, msgpack.packb([1, 2])), "not a Flax"),
        "number for a tensor": (put(FLAX, msgpack.packb({"x": 1})), "'x' is not a tensor"),
        "leaf of a megabyte": (put(FLAX, msgpack.packb({"x" * 10**6: 1})), "no tensor|not a Flax"),
        "objects": (flax_array([1], "O", bytes(8)), "not a Flax|missing"),
        "kind of numbers that is no grammar": (
            flax_array([1], "(1,", bytes(8)),
            "not a Flax|missing",
        ),
        "shape of 2^64": (flax_array([2**64 - 1], "float32", bytes(8)), "not a Flax"),
        "half a complex number": (
            put(FLAX, msgpack.packb({"x": msgpack.ExtType(2, msgpack.packb([]))})),
            "not a Flax",
        ),
        "kernel twice": (flax_tree(kernel_twice), "duplicate tensor .*output.dense.weight"),
        "file of 10 GB": (grow(FLAX, 10 * GB), "bytes; at most|not a Flax"),
        "file of 1 GB that has room": (huge_flax, "not a Flax|bytes; at most"),
    },
    "vocabulary": {
        "vocab.txt not UTF-8": (put("vocab.txt", b"[UNK]\n\xff\n"), "UTF-8"),
        "vocab.txt of 10 GB": (grow("vocab.txt", 10 * GB), "10,000,000,000 bytes"),
        "vocab.txt linked from outside": (move_out("vocab.txt"), "leads out of the folder"),
        "vocab.txt of 24 million lines": (
            put("vocab.txt", b"[UNK]\n" + b"\n" * (24 * 10**6)),
            "vocab.txt",
        ),
        "special tokens by the thousand": (
            put("tokenizer_config.json", json.dumps({"extra_special_tokens": ["x"] * 10**5})),
            "tokenizer_config.json: more than",
        ),
        "settings linked from outside": (
            lambda folder: [
                put("tokenizer_config.json", "{}")(folder),
                move_out("tokenizer_config.json")(folder),
            ],
            "leads out of the folder",
        ),
        "settings no object": (put("tokenizer_config.json", "[]"), "not a JSON object"),
        "special token a number": (
            put("tokenizer_config.json", '{"cls_token":[1]}'),
            "cls_token",
        ),
    },
    "roberta": {
        "id of 10^9": (
            edit("vocab.json", lambda words: words.update(word=GB)),
            "vocab.json: ids",
        ),
        "ids that are no numbers": (
            edit("vocab.json", lambda words: words.update(word=True)),
            "vocab.json: ids",
        ),
        "merges of 12 million": (
            put("merges.txt", b"a b\n" * (12 * 10**6)),
            "merges.txt",
        ),
        "merges of nothing": (put("merges.txt", "#version: 0.2\nx y\n"), "xy"),
        "positions below the first": (config(pad_token_id=63), "pad_token_id=63"),
    },
    "deberta-v2": {
        "pieces no message": (pieces(b"\xff" * 100), "deberta-v2: not a tokenizer"),
        "pieces by the million": (pieces(b"\n\0" * (20 * 10**6)), "spm.model"),
        "pieces of 10 GB": (
            lambda folder: [pieces(b"")(folder), grow("spm.model", 10 * GB)(folder)],
            "10,000,000,000 bytes",
        ),
        "one bucket": (config(position_buckets=1), "position_buckets"),
        "terms of lists": (config(pos_att_type=[["c2p"]]), "pos_att_type"),
    },
    "modernbert": {
        "kinds of layers that are lists": (config(layer_types=[[], []]), "layer_types"),
        "rotation no object": (config(rope_parameters=5), "rope_parameters"),
    },
    "run": {
        "meta no object": (put(META, "[]"), "jaxclf.json: not a JSON object"),
        "meta linked from outside": (move_out(META), "jaxclf.json: .*leads out of the folder"),
        "meta a pipe": (make(META, os.mkfifo), "jaxclf.json"),
        "meta of another format": (meta(format="x" * 10**6), "jaxclf.json: format .?xxx"),
        "no experiment": (
            edit(META, lambda meta: meta.pop("experiment")),
            "jaxclf.json.*experiment",
        ),
        "experiment no object": (meta(experiment=[]), "jaxclf.json"),
        "experiment with a class": (
            edit(META, lambda meta: meta["experiment"].update(__class__=5)),
            "jaxclf.json.*__class__",
        ),
        "seed of a megabyte": (
            edit(META, lambda meta: meta["experiment"].update(seed="x" * 10**6)),
            "jaxclf.json.*seed",
        ),
        "unknown pool": (experiment("pool", name="os.system"), "jaxclf.json.*os.system"),
        "pool with an unknown option": (experiment("pool", file="x"), "jaxclf.json.*file"),
        "pool as wide as a word": (experiment("pool", width="x"), "jaxclf.json.*width"),
        "pool 10^12 wide": (experiment("pool", width=10**12), "jaxclf.json.*width"),
        "computing with objects": (experiment("encoder", dtype="object"), "jaxclf.json.*dtype"),
        "windows of no tokens": (experiment("data", max_length=0), "jaxclf.json.*max_length"),
        "windows of 10^9": (experiment("data", max_length=GB), "data.max_length=1000000000"),
        "windows of -1": (experiment("data", max_windows=-1), "jaxclf.json.*max_windows"),
        "windows that do not move": (experiment("data", window_overlap=16), "jaxclf.json.*overlap"),
        "labels a number": (meta(labels=3), "jaxclf.json.*labels"),
        "labels missing": (edit(META, lambda meta: meta.pop("labels")), "jaxclf.json.*labels"),
        "labels that are lists": (meta(labels=[[], [], []]), "jaxclf.json.*labels"),
        "label twice": (meta(labels=["alpha", "alpha", "beta"]), "jaxclf.json.*labels"),
        "a hundred thousand labels": (
            meta(labels=[str(n) for n in range(10**5)]),
            "jaxclf.json.*(labels|thresholds)|head/classifier/bias has shape",
        ),
        "thresholds a number": (meta(thresholds=5), "jaxclf.json.*thresholds"),
        "calibration a number": (meta(calibration=5), "jaxclf.json.*calibration"),
        "calibration of another kind": (
            edit(META, lambda meta: meta["calibration"].update(kind="exec")),
            "jaxclf.json.*calibration",
        ),
        "a curve too few": (
            edit(META, lambda meta: meta["calibration"]["curves"].pop()),
            "jaxclf.json.*calibration",
        ),
        "a curve of NaN": (
            edit(META, lambda meta: meta["calibration"]["curves"][0].update(temperature=NAN)),
            "jaxclf.json.*calibration",
        ),
        "provenance a list": (meta(provenance=[]), "jaxclf.json.*provenance"),
        "provenance of words": (
            meta(provenance={"splits": "x", "fitted": ["y"]}),
            "jaxclf.json.*provenance",
        ),
        "no threshold for a label": (
            edit(META, lambda meta: meta["thresholds"].pop("beta")),
            "jaxclf.json.*beta",
        ),
        "threshold a word": (
            edit(META, lambda meta: meta["thresholds"]["beta"].update(value="0.5")),
            "jaxclf.json.*beta",
        ),
        "threshold NaN": (
            edit(META, lambda meta: meta["thresholds"]["beta"].update(value=float("nan"))),
            "jaxclf.json.*beta",
        ),
        "head missing": (remove(HEAD), "head.safetensors: no such file"),
        "head linked from outside": (move_out(HEAD), "leads out of the folder"),
        "head NaN": (
            tensor("head/classifier/bias", number(np.nan), HEAD),
            "head.safetensors: head/classifier/bias holds NaN",
        ),
        "head misshapen": (
            tensor("head/classifier/kernel", np.transpose, HEAD),
            "head.safetensors: head/classifier/kernel has shape",
        ),
        "head with a name of a megabyte": (
            tensors(lambda stored: stored.update({"x" * 10**6: np.zeros(1)}), HEAD),
            "head.safetensors: unexpected .?xxx",
        ),
        "head a pickle": (pickled(HEAD), "head.safetensors: not a safetensors file"),
        "encoder of another width": (
            config(intermediate_size=128),
            "encoder.layer.0.intermediate.dense.weight has shape",
        ),
    },
    "modernbert run": {
        "windows of a million in blocks as long": (
            huge_windows,
            "max_length|local_attention|head.safetensors: no such file",
        ),
    },
}
QUICK = {
    "bert": (
        "hidden size of 10^9",
        "a million layers",
        "key twice",
        "config linked from outside",
        "code of its own",
        "weights cut short",
        "NaN",
        "missing, unexpected, misshapen, of another kind",
        "header key twice",
        "pickle as .bin",
        "pickle as safetensors",
        "vocabulary beyond the table",
    ),
    "sharded": ("shard above the folder", "tensor in no shard"),
    "flax": ("buffer of 4 GB claimed", "kernel twice"),
    "run": (
        "meta of another format",
        "unknown pool",
        "label twice",
        "a curve of NaN",
        "threshold NaN",
        "head misshapen",
    ),
}
CASES = [
    pytest.param(
        start,
        name,
        marks=[] if name in QUICK.get(start, ()) else pytest.mark.slow,
        id=f"{start}: {name}",
    )
    for start, cases in HOSTILE.items()
    for name in cases
]

assert all(name in HOSTILE[start] for start, names in QUICK.items() for name in names)


# The valid folders.

MODERNBERT = {"model_type": "modernbert", "local_attention": 8}
CONFIGS = {
    "roberta": {"model_type": "roberta", "pad_token_id": 1},
    "deberta-v2": {
        "model_type": "deberta-v2",
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
    },
    "modernbert": MODERNBERT,
    "run": {},
    "modernbert run": MODERNBERT,
}


@pytest.fixture(scope="module")
def good(tiny_config, tiny_encoder, tmp_path_factory):
    """Folders that open, by name."""
    root = tmp_path_factory.mktemp("good")
    tokenizer = Tokenizer.from_file(str(tiny_encoder / TOKENIZER))
    for start in ("bert", "sharded", "flax", "vocabulary"):
        shutil.copytree(tiny_encoder, root / start)
    shard(root / "sharded")
    as_flax(root / "flax")
    as_vocabulary(root / "vocabulary", tokenizer)
    for start, values in CONFIGS.items():
        save(root / start, {**tiny_config, **values}, tokenizer)
    as_byte_pairs(root / "roberta")
    return {start: root / start for start in HOSTILE}


def save(folder: Path, hf_config: dict, tokenizer: Tokenizer) -> None:
    """As a run hands it over; all but the head is as an encoder's folder."""
    shapes = param_shapes(EXPERIMENT, hf_config, len(LABELS))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    thresholds = {name: {"value": 0.5, "split": "val", "rule": "fixed"} for name in LABELS}
    curves = {"kind": "temperature", "curves": [{"temperature": 1.5}] * len(LABELS)}
    provenance = {"splits": {}, "fitted": [{"what": "the weights", "split": "train"}]}
    saved_model = SavedModel(EXPERIMENT, hf_config, LABELS, thresholds, curves, provenance, params)
    save_model(folder, saved_model, tokenizer, "a card")


def shard(folder: Path) -> None:
    """The word vectors in one file, all else in another."""
    stored = safetensors.numpy.load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    weight_map = dict.fromkeys(stored, "two.safetensors") | {WORDS: "one.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    for file in ("one.safetensors", "two.safetensors"):
        part = {name: stored[name] for name in stored if weight_map[name] == file}
        safetensors.numpy.save_file(part, folder / file)


def as_flax(folder: Path) -> None:
    """Names as transformers wrote them."""
    flat = {}
    for name, value in safetensors.numpy.load_file(folder / SINGLE).items():
        *path, leaf = ("bert", *name.split("."))
        if leaf == "weight" and "embeddings" in path[-1]:
            leaf = "embedding"
        elif leaf == "weight":
            leaf, value = ("scale", value) if path[-1] == "LayerNorm" else ("kernel", value.T)
        flat[(*path, leaf)] = value
    tree = flax.traverse_util.unflatten_dict(flat)
    (folder / FLAX).write_bytes(flax.serialization.msgpack_serialize(tree))
    (folder / SINGLE).unlink()


def as_vocabulary(folder: Path, tokenizer: Tokenizer) -> None:
    words = tokenizer.get_vocab()
    (folder / TOKENIZER).unlink()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(words, key=words.get)))


def as_byte_pairs(folder: Path) -> None:
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {word: number for number, word in enumerate([*words, "ab", "<mask>"])}
    (folder / TOKENIZER).unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")


def open_folder(folder: Path) -> None:
    """As `jaxclf.load` opens what a run hands over, and as training opens an encoder."""
    if folder.name.endswith("run"):
        jaxclf.load(folder)
    else:
        hf_config, _ = open_encoder(folder)
        pretrained_params(folder, param_shapes(EXPERIMENT, hf_config, len(LABELS)))


# What it is held to.

FORBIDDEN = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "socket.",
    "pickle.",
    "marshal.",
    "ctypes.",
)
READ = ("open", "os.listdir", "os.scandir")
CODE = [Path(path).resolve() for path in (sys.prefix, sys.base_prefix, jaxclf.__path__[0])]

COPIES = f"{Path(tempfile.gettempdir()).resolve()}/jaxclf-"  # what transformers may see of a folder

watched: list[Path] = []  # the folder that is being opened, if any
seen: list[str] = []


def watch(event: str, args: tuple) -> None:
    """An audit hook: it cannot be removed, so it looks only while a folder is being opened.

    It sees what Python does. The libraries in Rust open only paths that were checked before.
    """
    if not watched or (
        event == "marshal.loads" and "importlib" in sys._getframe(1).f_code.co_filename
    ):
        return
    if event.startswith(FORBIDDEN):
        seen.append(f"{event} {args}"[:200])
    elif event in READ and isinstance(args[0], str | bytes | os.PathLike):
        path = Path(os.path.realpath(os.fsdecode(args[0])))
        allowed = any(path.is_relative_to(folder) for folder in (watched[0].resolve(), *CODE))
        if not allowed and not str(path).startswith(COPIES):
            seen.append(f"{event} {path}")


sys.addaudithook(watch)


@pytest.fixture
def watching():
    """Starts the watch of a folder; it ends with the test."""
    seen.clear()
    yield watched.append
    watched.clear()


def status(key: str) -> int:
    """Bytes of this process' memory, as the kernel counts them: its own code and what Rust and C
    allocate included, which tracemalloc does not see."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{key}:\s+(\d+) kB", text)[1])


def forget_peak() -> int:
    """Let VmHWM, the most memory held at once, count from now on; `ru_maxrss` never falls."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is kept for reuse would hide growth
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


@pytest.fixture
def folder(request, good, tmp_path):
    """A copy of a folder that opens, removed afterwards: some files claim 10 GB."""
    path = tmp_path / request.param
    shutil.copytree(good[request.param], path)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", autouse=True)
def warm(good):
    """Every folder opened once: jax and others import parts of themselves when first used."""
    for path in good.values():
        open_folder(path)
    gc.collect()
    gc.freeze()  # what torch and others hold need not be walked before every case
    yield
    gc.unfreeze()


@contextlib.contextmanager
def patience():
    """What hangs fails."""

    def give_up(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 10, 5)  # again, where that is caught
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("folder", HOSTILE, indirect=True)
def test_the_folder_opens_before_it_is_spoiled(folder, watching):
    watching(folder)
    open_folder(folder)
    assert seen == []


@pytest.mark.parametrize(("folder", "name"), CASES, indirect=["folder"])
def test_a_hostile_folder_is_refused(folder, name, watching):
    """With a reason of a readable length, in a second, in 200 MB, and nothing outside touched."""
    spoil, reason = HOSTILE[folder.name][name]
    spoil(folder)
    before, error = forget_peak(), None
    start = time.process_time()
    watching(folder)
    try:
        with patience():
            open_folder(folder)
    except BaseException as caught:  # a panic of a Rust library is no Exception
        error = caught
    watched.clear()
    seconds, grown = time.process_time() - start, status("VmHWM") - before
    assert isinstance(error, JaxclfError), repr(error)[:1000]
    message = str(error)
    assert re.search(reason, message), message[:1000]
    assert str(folder) in message or CONFIG in message, message[:1000]
    assert len(message) < LETTERS
    assert all(letter.isprintable() or letter == "\n" for letter in message), ascii(message[:1000])
    assert seconds < CPU_SECONDS
    assert grown < MEMORY
    assert seen == []
    assert not (folder.parent / "touched").exists()


def test_a_hub_cache_may_link_to_its_blobs_alone(good, tmp_path):
    folder, blobs, refs = (tmp_path / name for name in ("snapshots/1", "blobs", "refs"))
    shutil.copytree(good["bert"], blobs)
    shutil.copytree(good["bert"], refs)
    folder.mkdir(parents=True)
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(path)
    open_folder(folder)
    link(SINGLE, f"../../refs/{SINGLE}")(folder)
    with pytest.raises(JaxclfError, match="leads out of the folder"):
        open_folder(folder)


def test_the_watch_sees_what_it_should(tmp_path, watching):
    """And the pickle of the cases above does what none of them may."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.touch()
    content = pickle.dumps(Touch(tmp_path / "touched"))
    watching(inside)
    (inside / "file").touch()
    Path(os.__file__).read_bytes()
    assert seen == []
    outside.read_bytes()
    os.listdir(tmp_path)
    pickle.loads(content)
    socket.socket().close()
    subprocess.run(["true"], check=True)
    watched.clear()
    events = " ".join(seen)
    for event in (
        f"open {outside}",
        f"os.listdir {tmp_path}",
        "pickle.find_class",
        "socket.",
        "subprocess.",
    ):
        assert event in events, events
    assert (tmp_path / "touched").exists()
