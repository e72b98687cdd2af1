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
from functools import partial
from pathlib import Path

import flax.serialization
import msgpack
import numpy as np
import pytest
import safetensors.numpy
import tiny_models
from layouts import FLAX, INDEX, SINGLE, WORDS, as_flax, as_shards
from tokenizers import Tokenizer, pre_tokenizers

import jaxclf
from jaxclf.decisions.calibration import Calibration
from jaxclf.errors import JaxclfError
from jaxclf.experiment.config import Data, Experiment
from jaxclf.model.classifier import param_shapes
from jaxclf.model.storage.saved_model import open_encoder, pretrained_params

CPU_SECONDS, MEMORY, LETTERS = 2.0, 200e6, 25_000

NAN, INF, GB, LONG = float("nan"), float("inf"), 10**9, "x" * 10**6
CONFIG, TOKENIZER, META, HEAD = "config.json", "tokenizer.json", "jaxclf.json", "head.safetensors"
VOCABULARY, SETTINGS = "vocab.txt", "tokenizer_config.json"
BIAS = "embeddings.LayerNorm.bias"
QUERY = "encoder.layer.0.attention.self.query.weight"
BAD_SAFETENSORS = "not a safetensors file"
OUTSIDE = "leads out of the folder"

# Ways to spoil a folder.

Spoil = Callable[[Path], object]
GONE = object()


def in_turn(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


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


def make(name: str, maker: Callable[[Path], object]) -> Spoil:
    """Something else in the file's place."""

    def spoil(folder):
        (folder / name).unlink(missing_ok=True)
        maker(folder / name)

    return spoil


def link(name: str, target: str) -> Spoil:
    return make(name, lambda path: path.symlink_to(target))


def edit(name: str, change: Callable[[dict], object]) -> Spoil:
    """A JSON file changed."""

    def spoil(folder):
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return spoil


def entry(name: str, path: str, value: object = GONE) -> Spoil:
    """A value of a JSON file, named by its keys, replaced or removed."""

    def change(values):
        *keys, last = (int(key) if key.isdecimal() else key for key in path.split("/"))
        for key in keys:
            values = values[key]
        if value is GONE:
            del values[last]
        else:
            values[last] = value

    return edit(name, change)


config, meta = partial(entry, CONFIG), partial(entry, META)


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


def more_tensors(*names: str, file: str = SINGLE) -> Spoil:
    return tensors(lambda stored: stored.update({name: np.zeros(1) for name in names}), file)


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


def words_entry(**values) -> Spoil:
    """What that header says of the word vectors."""

    def change(text):
        entries = json.loads(text)
        entries[WORDS].update(values)
        return json.dumps(entries).encode()

    return header(change)


def words_entry_twice(text: bytes) -> bytes:
    duplicate = json.dumps({WORDS: json.loads(text)[WORDS]}).encode()
    return text[:-1] + b"," + duplicate[1:]


def end_of(text: bytes) -> int:
    """Of the tensors that a header lists."""
    return max(item["data_offsets"][1] for item in json.loads(text).values())


def more_names(count: int) -> Spoil:
    """So many more names in that header, of tensors without elements."""

    def change(text):
        rest = b'":{"dtype":"F32","shape":[0],"data_offsets":[%d,%d]}' % ((end_of(text),) * 2)
        return text[:-1] + b"".join(b',"encoder.%d%b' % (n, rest) for n in range(count)) + b"}"

    return header(change)


def raw_header(size: int, text: bytes) -> Spoil:
    return put(SINGLE, size.to_bytes(8, "little") + text)


def many_errors(stored: dict) -> None:
    del stored[BIAS]
    stored["encoder.more"] = np.zeros(1, np.float32)
    stored[QUERY] = np.zeros((3, 3), np.float32)
    stored[WORDS] = stored[WORDS].astype(np.int32)


def many_errors_of_the_head(stored: dict) -> None:
    del stored["pool/score/kernel"]
    stored["head/more"] = np.zeros(1, np.float32)
    stored["head/classifier/bias"] = np.zeros(7, np.float32)


def huge_words(folder: Path) -> None:
    """Word vectors of 512 MB that fit the config; another tensor is missing."""

    def words_at_the_end(text):
        end = end_of(text)
        words = {"dtype": "F32", "shape": [2**22, 32], "data_offsets": [end, end + 2**29]}
        return json.dumps({**json.loads(text), WORDS: words}).encode()

    config("vocab_size", 2**22)(folder)
    tensors(lambda stored: [stored.pop(name) for name in (WORDS, BIAS)])(folder)
    header(words_at_the_end)(folder)
    grow(SINGLE, (folder / SINGLE).stat().st_size + 2**29)(folder)


def kernel_twice(folder: Path) -> None:
    """Beside its kernel, a layer of the Flax file has what that is called in torch."""
    tree = flax.serialization.msgpack_restore((folder / FLAX).read_bytes())
    layer = tree["bert"]["encoder"]["layer"]["0"]["output"]["dense"]
    layer["weight"] = layer["kernel"].T.copy()
    (folder / FLAX).write_bytes(flax.serialization.msgpack_serialize(tree))


def flax_file(content: object) -> Spoil:
    return put(FLAX, msgpack.packb(content))


def flax_array(*parts) -> Spoil:
    """A Flax file of one array: its shape, dtype and bytes."""
    return flax_file({"x": msgpack.ExtType(1, msgpack.packb(parts))})


A_MILLION_WORDS = edit(
    TOKENIZER,
    lambda values: values["model"]["vocab"].update({f"word{n}": n for n in range(400, 10**6)}),
)


def added(count: int) -> Spoil:
    """So many added tokens."""

    def change(values):
        token = values["added_tokens"][0]
        more = ({**token, "content": f"<{n}>", "id": n} for n in range(400, count))
        values["added_tokens"].extend(more)

    return edit(TOKENIZER, change)


def no_words(values: dict) -> None:
    values["model"] = {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}
    values["post_processor"], values["added_tokens"] = None, []


def pieces(content: bytes) -> Spoil:
    """A sentencepiece model in place of tokenizer.json."""
    return in_turn(remove(TOKENIZER), put("spm.model", content))


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


# By the folder they begin with: what is done to it, and the reason given. The default suite runs
# those marked "quick". hostile_values.json has the changes of a single value.
HOSTILE = {
    "bert": {
        "activation of a megabyte": (config("hidden_act", LONG), "hidden_act='xxx"),
        "number of 5,000 digits": (put(CONFIG, '{"vocab_size":' + "9" * 5000 + "}"), "digits"),
        "100,000 brackets": (put(CONFIG, "[" * 10**5), "nested too deeply"),
        "a value of 200 brackets": (config("x", json.loads("[" * 200 + "]" * 200)), "too deeply"),
        "config no object": (put(CONFIG, "[]"), "not a JSON object"),
        "config not UTF-8": (put(CONFIG, b'{"model_type":"\xff"}'), "not UTF-8"),
        "key twice": (put(CONFIG, '{"a":1,"a":2}'), "duplicate key 'a'", "quick"),
        "key twice among 100,000": (
            put(CONFIG, '{"a":1,' + "".join(f'"{n}":1,' for n in range(10**5)) + '"a":1}'),
            "duplicate key 'a'",
        ),
        "key of a megabyte twice": (
            put(CONFIG, "{" + ",".join([f'"{LONG}":1'] * 2) + "}"),
            "duplicate key 'xxx",
        ),
        "20,000 objects": (
            put(CONFIG, '{"model_type":"bert","vocab_size":[' + "{}," * 20_000 + "{}]}"),
            "vocab_size=",
        ),
        "config missing": (remove(CONFIG), "no such file"),
        "config a folder": (make(CONFIG, Path.mkdir), "not a plain file"),
        "config linked from nowhere": (link(CONFIG, "nothing"), "(no such|not a plain) file"),
        "config linked from a device": (link(CONFIG, "/dev/zero"), OUTSIDE),
        "config linked from itself": (link(CONFIG, CONFIG), "link"),
        "weights empty": (put(SINGLE, b""), "not (a safetensors file|JSON)"),
        "weights missing": (remove(SINGLE), "none of model.safetensors"),
        "weights cut short": (grow(SINGLE, 50_000), f"{SINGLE}: {BAD_SAFETENSORS}", "quick"),
        "NaN": (tensor(QUERY, number(NAN)), f"{QUERY} holds NaN", "quick"),
        "infinity": (tensor(QUERY, number(-INF)), f"{QUERY} holds NaN or infinity"),
        "beyond float32": (tensor(QUERY, number(1e300, "float64")), f"{QUERY} holds .* infinity"),
        "transposed": (tensor(WORDS, np.transpose), rf"{WORDS} has shape \(32, 400\)"),
        "whole numbers": (tensor(BIAS, lambda x: x.astype(np.int64)), f"{BIAS} has dtype I64"),
        "missing, unexpected, misshapen, of another kind": (
            tensors(many_errors),
            f"(?=.*missing {BIAS})(?=.*unexpected encoder.more)"
            rf"(?=.*{QUERY} has shape \(3, 3\), expected \(32, 32\))(?=.*{WORDS} has dtype I32)",
            "quick",
        ),
        "one tensor of 512 MB, another missing": (huge_words, f"missing {BIAS}"),
        "one tensor under two names": (
            tensors(lambda stored: stored.update({"bert." + BIAS: stored[BIAS].copy()})),
            f"duplicate .*{BIAS}",
        ),
        "name of a megabyte": (more_tensors(f"encoder.{LONG}"), "unexpected .?encoder.xxx"),
        "name that clears the terminal": (
            more_tensors("encoder.\x1b[2J\n"),
            "unexpected .?encoder",
        ),
        "header key twice": (header(words_entry_twice), f"duplicate key '{WORDS}'", "quick"),
        "header of 2^63 bytes": (raw_header(2**63, b"{}"), "a header of 9,223,372"),
        "header no JSON": (raw_header(8, b"not json"), "not (a safetensors file|JSON)"),
        "header nested deeply": (raw_header(10**6, b"[" * 10**6), f"{BAD_SAFETENSORS}|deeply"),
        "header of a million names": (more_names(10**6), "a header of"),
        "header of 200,000 names": (more_names(200_000), "unexpected|header"),
        "tensors that overlap": (words_entry(data_offsets=[4, 51204]), BAD_SAFETENSORS),
        "tensor beyond the file": (
            words_entry(data_offsets=[10**12, 10**12 + 51200]),
            BAD_SAFETENSORS,
        ),
        "shape of 2^128": (words_entry(shape=[2**63, 2**63, 4]), BAD_SAFETENSORS),
        "shape negative": (words_entry(shape=[-400, -32]), BAD_SAFETENSORS),
        "unknown kind of a megabyte": (words_entry(dtype=LONG), BAD_SAFETENSORS),
        "pickle as .bin": (
            pickled("pytorch_model.bin"),
            "not opened(?s:.*)save_pretrained",
            "quick",
        ),
        "pickle as .pt": (pickled("model.pt"), "not opened(?s:.*)save_pretrained"),
        "pickle as safetensors": (pickled(SINGLE), BAD_SAFETENSORS, "quick"),
        "pickle as msgpack": (pickled(FLAX), "not a Flax msgpack file"),
        "pickle as index": (pickled(INDEX), "not UTF-8"),
        "tokenizer no JSON": (put(TOKENIZER, "nothing"), "not (a tokenizer|JSON)"),
        "tokenizer nested deeply": (put(TOKENIZER, '{"model":' * 10**5), "nested too deeply"),
        "tokenizer of a megabyte's string": (
            entry(TOKENIZER, "model/vocab", LONG),
            "not a tokenizer",
        ),
        "tokenizer of 20 million zeros": (
            put(TOKENIZER, '{"version":"1.0","model":[' + "0," * (2 * 10**7) + "0]}"),
            TOKENIZER,
        ),
        "vocabulary of a million": (A_MILLION_WORDS, "tokenizer"),
        "vocabulary of a million, and a table for it": (
            in_turn(A_MILLION_WORDS, config("vocab_size", 10**6)),
            "tokenizer.json|embeddings.word_embeddings.weight has shape",
        ),
        "vocabulary of none": (edit(TOKENIZER, no_words), "tokenizer"),
        "200,000 added tokens": (added(200_000), "tokenizer"),
    },
    "sharded": {
        "shard of a long name": (
            entry(INDEX, f"weight_map/{WORDS}", "x" * 5000),
            "is not a file name",
        ),
        "index a list": (put(INDEX, "[]"), "not a JSON object"),
        "index a map of a list": (put(INDEX, '{"weight_map":[]}'), "no weight_map"),
        "index of five million lists": (
            put(INDEX, '{"weight_map":[' + "[]," * (5 * 10**6) + "[]]}"),
            "no weight_map|bytes; at most",
        ),
    },
    "flax": {
        "file cut short": (grow(FLAX, 50_000), f"{FLAX}: not a Flax", "quick"),
        "buffer of 4 GB claimed": (
            put(FLAX, b"\x81\xa1x\xc6\xff\xff\xff\xff"),
            "not a Flax",
            "quick",
        ),
        "arrays of 200,000 in each other": (
            put(FLAX, b"\xdd\x00\x03\x0d\x40" * 500 + bytes(200_000)),
            "not a Flax",
        ),
        "maps a thousand deep": (put(FLAX, b"\x81\xa1x" * 1000 + b"\x01"), "not a Flax|no tensor"),
        "maps 100,000 deep": (put(FLAX, b"\x81\xa1x" * 10**5), "not a Flax"),
        "list for a tree": (flax_file([1, 2]), "not a Flax"),
        "number for a tensor": (flax_file({"x": 1}), "'x' is not a tensor"),
        "leaf of a megabyte": (flax_file({LONG: 1}), "no tensor|not a Flax"),
        "objects": (flax_array([1], "O", bytes(8)), "not a Flax|missing"),
        "kind of numbers that is no grammar": (
            flax_array([1], "(1,", bytes(8)),
            "not a Flax|missing",
        ),
        "shape of 2^64": (flax_array([2**64 - 1], "float32", bytes(8)), "not a Flax"),
        "half a complex number": (
            flax_file({"x": msgpack.ExtType(2, msgpack.packb([]))}),
            "not a Flax",
        ),
        "kernel twice": (kernel_twice, "duplicate tensor .*output.dense.weight", "quick"),
        "file of 1 GB that has room": (
            in_turn(config("vocab_size", 2**22), grow(FLAX, GB)),
            "not a Flax|bytes; at most",
        ),
    },
    "vocabulary": {
        "words not UTF-8": (put(VOCABULARY, b"[UNK]\n\xff\n"), "UTF-8"),
        "24 million lines": (put(VOCABULARY, b"[UNK]\n" + b"\n" * (24 * 10**6)), VOCABULARY),
        "special tokens by the thousand": (
            put(SETTINGS, json.dumps({"extra_special_tokens": ["x"] * 10**5})),
            "tokenizer_config.json: more than",
        ),
        "settings linked from outside": (in_turn(put(SETTINGS, "{}"), move_out(SETTINGS)), OUTSIDE),
        "settings no object": (put(SETTINGS, "[]"), "not a JSON object"),
        "special token a number": (put(SETTINGS, '{"cls_token":[1]}'), "cls_token"),
    },
    "roberta": {
        "merges of 12 million": (put("merges.txt", b"a b\n" * (12 * 10**6)), "merges.txt"),
        "merges of nothing": (put("merges.txt", "#version: 0.2\nx y\n"), "xy"),
    },
    "deberta-v2": {
        "pieces no message": (pieces(b"\xff" * 100), "deberta-v2: not a tokenizer"),
        "pieces by the million": (pieces(b"\n\0" * (20 * 10**6)), "spm.model"),
        "pieces of 10 GB": (
            in_turn(pieces(b""), grow("spm.model", 10 * GB)),
            "10,000,000,000 bytes",
        ),
    },
    "modernbert": {},
    "run": {
        "meta missing": (remove(META), "jaxclf.json: no such file", "quick"),
        "meta no object": (put(META, "[]"), "jaxclf.json: not a JSON object"),
        "meta of another format": (meta("format", LONG), "jaxclf.json: format .?xxx", "quick"),
        "seed of a megabyte": (meta("experiment/seed", LONG), "jaxclf.json.*seed"),
        "a hundred thousand labels": (
            meta("labels", [str(n) for n in range(10**5)]),
            "jaxclf.json.*(labels|thresholds)|head/classifier/bias has shape",
        ),
        "head missing": (remove(HEAD), "head.safetensors: no such file"),
        "head NaN": (
            tensor("head/classifier/bias", number(NAN), HEAD),
            "head.safetensors: head/classifier/bias holds NaN",
        ),
        "head missing, unexpected and misshapen": (
            tensors(many_errors_of_the_head, HEAD),
            "head.safetensors: (?=.*missing pool/score/kernel)(?=.*unexpected head/more)"
            r"(?=.*head/classifier/bias has shape \(7,\), expected \(3,\))",
            "quick",
        ),
        "head with a name of a megabyte": (
            more_tensors(LONG, file=HEAD),
            "head.safetensors: unexpected .?xxx",
        ),
        "head a pickle": (pickled(HEAD), f"head.safetensors: {BAD_SAFETENSORS}"),
    },
    "modernbert run": {
        "windows of a million in blocks as long": (
            in_turn(
                config("max_position_embeddings", 2**20),
                config("local_attention", 2**20),
                meta("experiment/data/max_length", 10**6),
                remove(HEAD),
            ),
            "max_length|local_attention|head.safetensors: no such file",
        ),
    },
}
for case in json.loads((Path(__file__).parent / "hostile_values.json").read_text()):
    spoil = entry(case["file"], case["path"], case.get("value", GONE))
    HOSTILE[case["folder"]][case["case"]] = (spoil, case["reason"], *(["quick"] * case["quick"]))
# What no file may be.
OPENED = {
    "bert": (CONFIG, SINGLE, TOKENIZER),
    "sharded": (INDEX, "one.safetensors"),
    "flax": (FLAX,),
    "vocabulary": (VOCABULARY,),
    "run": (META, HEAD),
}
for start, names in OPENED.items():
    for name in names:
        quick = ("quick",) if name in (CONFIG, VOCABULARY) else ()
        HOSTILE[start] |= {
            f"{name} linked from outside": (move_out(name), f"{name}: .*{OUTSIDE}", *quick),
            f"{name} a pipe": (make(name, os.mkfifo), f"{name}: .*not a plain file"),
            f"{name} of 10 GB": (
                grow(name, 10 * GB),
                f"10,000,000,000 bytes|{BAD_SAFETENSORS}|not a Flax",
            ),
        }
CASES = [
    pytest.param(
        start, name, marks=[] if "quick" in case[2:] else pytest.mark.slow, id=f"{start}: {name}"
    )
    for start, cases in HOSTILE.items()
    for name, case in cases.items()
]


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
    """Folders that open, by name. What a run hands over is, but for the head, an encoder's."""
    root = tmp_path_factory.mktemp("good")
    for start in ("bert", "sharded", "flax", "vocabulary"):
        shutil.copytree(tiny_encoder, root / start)
    as_shards(root / "sharded")
    as_flax(root / "flax")
    as_vocabulary(root / "vocabulary")
    curves = Calibration("temperature", ({"temperature": 1.5},) * len(tiny_models.LABELS))
    for start, values in CONFIGS.items():
        options = {"config": {**tiny_config, **values}, "calibration": curves, "length": 16}
        tiny_models.make_model(root / start, tiny_encoder, **options)
    as_byte_pairs(root / "roberta")
    return {start: root / start for start in HOSTILE}


def as_vocabulary(folder: Path) -> None:
    words = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab()
    (folder / TOKENIZER).unlink()
    (folder / VOCABULARY).write_text("".join(f"{word}\n" for word in sorted(words, key=words.get)))


def as_byte_pairs(folder: Path) -> None:
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {word: number for number, word in enumerate([*words, "ab", "<mask>"])}
    (folder / TOKENIZER).unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")


def open_folder(folder: Path) -> None:
    """As `jaxclf.load` opens what a run hands over, and as training opens an encoder."""
    if folder.name.endswith("run"):
        jaxclf.load(folder, verify=False)
    else:
        hf_config, _ = open_encoder(folder)
        experiment = Experiment(Data("", "", "", max_length=16))
        pretrained_params(folder, param_shapes(experiment, hf_config, 3))


# What it is held to.

FORBIDDEN = (
    *("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork"),
    *("socket.", "pickle.", "marshal.", "ctypes."),
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
    # An import lists the folders of sys.path that have changed.
    if not watched or (
        event in ("marshal.loads", "os.listdir")
        and "importlib" in sys._getframe(1).f_code.co_filename
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
    spoil, reason, *_ = HOSTILE[folder.name][name]
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
    files = (f"open {outside}", f"os.listdir {tmp_path}")
    for event in (*files, "pickle.find_class", "socket.", "subprocess."):
        assert event in events, events
    assert (tmp_path / "touched").exists()
