"""A folder's weights in the other layouts that the loader reads."""

import json
from pathlib import Path

import flax.serialization
import flax.traverse_util
import safetensors.numpy

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLAX = "flax_model.msgpack"
WORDS = "embeddings.word_embeddings.weight"


def take_tensors(folder: Path) -> dict:
    """The tensors of model.safetensors, which is removed."""
    tensors = safetensors.numpy.load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    return tensors


def as_shards(folder: Path) -> None:
    """The word vectors in one file, all else in another."""
    tensors = take_tensors(folder)
    weight_map = dict.fromkeys(tensors, "two.safetensors") | {WORDS: "one.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    for file in ("one.safetensors", "two.safetensors"):
        part = {name: tensors[name] for name in tensors if weight_map[name] == file}
        safetensors.numpy.save_file(part, folder / file)


def as_flax(folder: Path) -> None:
    """As transformers wrote them: bert/encoder/layer/0/.../kernel, scale, embedding."""
    flat = {}
    for name, value in take_tensors(folder).items():
        *path, leaf = ("bert", *name.split("."))
        if leaf == "weight" and "embeddings" in path[-1]:
            leaf = "embedding"
        elif leaf == "weight":
            leaf, value = ("scale", value) if path[-1] == "LayerNorm" else ("kernel", value.T)
        flat[(*path, leaf)] = value
    tree = flax.traverse_util.unflatten_dict(flat)
    (folder / FLAX).write_bytes(flax.serialization.msgpack_serialize(tree))
