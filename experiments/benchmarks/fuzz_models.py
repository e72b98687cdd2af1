"""Damaged model folders of several families, for experiments.benchmarks.fuzz."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer

import jaxclf
from experiments.benchmarks.fuzz_data import cut, damage_twice, duplicate, flip_bits, insert
from jaxclf.decisions.calibration import Calibration, calibration_to_json
from jaxclf.decisions.provenance import Provenance, make_provenance
from jaxclf.errors import JaxclfError
from jaxclf.experiment.config import Data, Encoder, Experiment, Spec
from jaxclf.model.classifier import param_shapes
from jaxclf.model.storage.ensemble_folder import Blend, save_ensemble
from jaxclf.model.storage.saved_model import SavedModel, save_model
from jaxclf.model.storage.weights import flatten_params

LABELS = ("calm", "tired", "naïve")
TEXTS = [
    "ok",
    "the bus was late again, so we walked; it rained, and we sang",
    "\u0301über 漢字 🙂 \x00\ufeff <s> [MASK] </s>\u2028",
    "word " * 300,
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
BERT = {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
# Folder -> config.json, kind of tokenizer, pool and head.
FOLDERS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "bert": ({"model_type": "bert", **BERT}, "wordpiece", "attention", "linear"),
    "roberta": ({"model_type": "roberta", **BERT}, "bpe", "mean", "residual"),
    "deberta": (
        {"model_type": "deberta", **BERT, **RELATIVE, "legacy": True},
        *("bpe", "cls", "native"),
    ),
    "deberta-v2": (
        {"model_type": "deberta-v2", **BERT, **RELATIVE, "position_buckets": 8},
        *("unigram", "mean", "native"),
    ),
    "modernbert": ({"model_type": "modernbert", "local_attention": 8}, "bpe", "mean_max", "linear"),
}


def train_tokenizer(kind: str) -> Tokenizer:
    """With every part that a tokenizer.json may have."""
    size, lines = SIZES["vocab_size"], [*TEXTS, *(f"line {index} ends" for index in range(50))]
    options = {"special_tokens": SPECIAL, "show_progress": False}
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = WordPieceTrainer(vocab_size=size, **options)
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = BpeTrainer(vocab_size=size, initial_alphabet=alphabet, **options)
    else:
        tokenizer = Tokenizer(models.Unigram())
        parts = [normalizers.NFKC(), normalizers.Replace(" ", "\u2581"), normalizers.Strip()]
        tokenizer.normalizer = normalizers.Sequence(parts)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = UnigramTrainer(vocab_size=size, unk_token="[UNK]", **options)
    tokenizer.train_from_iterator(lines, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    return tokenizer


def make_folder(folder: Path) -> None:
    """A random model of one family."""
    values, kind, pool, head = FOLDERS[folder.name]
    config = {**SIZES, **values}
    experiment = Experiment(
        Data("", "", "", max_length=16, max_windows=3, window_overlap=4),
        encoder=Encoder(name="tiny"),
        pool=Spec(pool),
        head=Spec(head),
    )
    rng = np.random.default_rng(0)
    shapes = flatten_params(param_shapes(experiment, config, len(LABELS)))
    params = unflatten_dict(
        {
            path: (0.2 * rng.normal(size=leaf.shape) + (path[-1] == "scale")).astype(np.float32)
            for path, leaf in shapes.items()
        }
    )
    thresholds = {name: {"value": 0.5, "split": "val", "rule": "fixed"} for name in LABELS}
    curves = Calibration("platt", ({"slope": 0.8, "intercept": -0.2},) * len(LABELS))
    parts = {"average": "best", "calibration": "platt", "threshold": "fixed"}
    provenance = make_provenance({}, parts, {})
    model = SavedModel(
        *(experiment, config, LABELS, thresholds, calibration_to_json(curves), provenance, params)
    )
    save_model(folder, model, train_tokenizer(kind), "a card\n")


def make_ensemble(folder: Path, members: list[Path]) -> None:
    weights = np.full((len(members), len(LABELS)), 1 / len(members))
    meta = json.loads((members[0] / "jaxclf.json").read_text(encoding="utf-8"))
    names = tuple(member.name for member in members)
    blend = Blend(names, LABELS, weights, meta["thresholds"], Provenance(meta["provenance"], {}))
    save_ensemble(folder, blend, members, "a card\n")


def prepare(folder: Path) -> None:
    intact = folder / "intact"
    for name in FOLDERS:
        make_folder(intact / name)
    make_ensemble(intact / "ensemble", [intact / "bert", intact / "modernbert"])
    for path in intact.iterdir():
        open_damaged(path)


# Damages of bytes.


def zero_block(content: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(content)), rng.choice([1, 64, 512, 4096])
    return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]


def replace_number(content: bytes, rng: random.Random) -> bytes:
    """A number of the text, or of a header, becomes a huge or an odd one."""
    digits = [index for index, byte in enumerate(content[:20_000]) if 48 <= byte <= 57]
    at = rng.choice(digits or [0])
    numbers = [b"9" * 18, b"9" * 5000, b"-1", b"0", b"1e308", b"1e999", b"-0.0", b"1.5", b"NaN"]
    return content[:at] + rng.choice(numbers) + content[at + 1 :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bits, cut, duplicate, insert, damage_twice, zero_block, replace_number),
)


# Damages of values.

NESTED = json.loads("[" * 500 + "]" * 500)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 1.5, -0.0, 1e-300, 1e308, float("nan"), float("inf")),
    *(2**16, 2**20, 2**22, 2**31, 2**32, 2**63, 2**64, 10**400, "", "x", "x" * 1_000_000, "[UNK]"),
    *("\x1b[31m", "../../etc/passwd", "/dev/zero", [], {}, [None], [[]], {"": 0}, NESTED),
    *(list(range(5000)), dict.fromkeys(map(str, range(5000)), 1)),
)


def list_places(value: Any) -> list[tuple[Any, Any]]:
    """Every (object or list, key) within a JSON value."""
    places, waiting = [], [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list):
            keys = list(part) if isinstance(part, dict) else range(len(part))
            places += [(part, key) for key in keys]
            waiting += [part[key] for key in keys]
    return places


def change_values(values: Any, rng: random.Random) -> str:
    """One or two values are replaced, removed, renamed, or exchanged with another."""
    name = ""
    for _ in range(rng.choice([1, 1, 1, 2])):
        places = list_places(values)
        # Half of them outside the vocabulary, which has most values.
        shallow = [pair for pair in places if len(pair[0]) < 30]
        parent, key = rng.choice(rng.choice([shallow or places, places]))
        other_parent, other_key = rng.choice(places)
        name = rng.choice(["replace", "replace", "remove", "rename", "exchange"])
        if name == "replace":
            parent[key] = rng.choice(VALUES)
        elif name == "exchange":
            parent[key] = json.loads(json.dumps(other_parent[other_key]))
        elif name == "rename" and isinstance(parent, dict):
            parent[str(other_key)] = parent.pop(key)
        else:
            del parent[key]
    return name


def change_json(path: Path, rng: random.Random) -> str:
    values = json.loads(path.read_text(encoding="utf-8"))
    name = change_values(values, rng)
    path.write_text(json.dumps(values, ensure_ascii=rng.random() < 0.5), encoding="utf-8")
    return name


def change_header(path: Path, rng: random.Random) -> str:
    """The JSON header of a safetensors file, with the length that fits it."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = change_values(header, rng)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    return name


def change_tensors(path: Path, rng: random.Random) -> str:
    """Numbers of a safetensors file that no training leaves."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    numbers = np.frombuffer(content[start:], np.float32).copy()
    value = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e38, 1e-44, 0.0])
    count = rng.choice([1, 100, len(numbers)])
    numbers[rng.choices(range(len(numbers)), k=count)] = value
    path.write_bytes(content[:start] + numbers.tobytes())
    return f"{value}"


def damage_folder(folder: Path, intact: Path, rng: random.Random) -> tuple[str, str]:
    """Damage one file of a folder; the others stay. Returns what was done, and a detail."""
    path = rng.choice([path for path in sorted(folder.rglob("*")) if path.suffix != ".md"])
    if path.is_dir():
        shutil.rmtree(path)
        return "folder removed", ""
    kind = rng.choice(["bytes", "bytes", "values", "values", "swapped", "lost"])
    if kind == "bytes":
        function = rng.choice(BYTES)
        path.write_bytes(function(path.read_bytes(), rng))
        return f"{path.name} {function.__name__}", ""
    if kind == "swapped":
        source = rng.choice(sorted(path for path in intact.rglob("*") if path.is_file()))
        shutil.copyfile(source, path)
        return f"{path.name} swapped", f"{source.relative_to(intact)}"
    if kind == "lost":
        path.unlink()
        if rng.random() < 0.3:
            rng.choice([path.touch, path.mkdir, lambda: path.symlink_to(path.name)])()
        return f"{path.name} lost", ""
    if path.suffix == ".json":
        return f"{path.name} values", change_json(path, rng)
    if rng.random() < 0.5:
        return f"{path.name} header", change_header(path, rng)
    return f"{path.name} numbers", change_tensors(path, rng)


def damage(folder: Path, rng: random.Random, target: Path) -> tuple[Path, str]:
    name, intact = rng.choice([*FOLDERS, "ensemble"]), folder / "intact"
    path = target / name
    shutil.copytree(intact / name, path)
    text, detail = damage_folder(path, intact, rng)
    return path, f"{text}: {name} {detail}".rstrip()


def read_files(folder: Path) -> dict[str, Any]:
    """What a seal covers: the values of sealed files, the bytes of all others."""
    return {
        str(path.relative_to(folder)): json.loads(path.read_bytes())
        if path.name in ("jaxclf.json", "ensemble.json")
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".md"
    }


def open_damaged(path: Path) -> None:
    """As `predict` opens a folder. Damage that the seal misses is a fault; then the readers behind
    it open the folder, and score some texts."""
    with contextlib.suppress(JaxclfError):
        jaxclf.load(path)
        assert read_files(path) == read_files(path.parent.parent / "intact" / path.name), "unseen"
    jaxclf.load(path, verify=False).predict_proba(TEXTS)
