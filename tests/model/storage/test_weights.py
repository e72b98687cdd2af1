"""The loader: bitwise there and back, strict both ways, every layout of files, and no pickle."""

import json

import flax.serialization
import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.model.classifier import build
from jaxclf.model.storage.saved_model import pretrained_params, read_hf_config
from jaxclf.model.storage.weights import flatten_params, open_tensors
from jaxclf.text.packing import fill
from jaxclf.types import Shape, Tokens

CONFIG = transformers.BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    max_position_embeddings=12,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return transformers.BertModel(CONFIG)


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path, safe_serialization=True)
    return tmp_path


def shapes(folder, head="native"):
    experiment = Experiment(Data("", "", "", max_length=8), head=Spec(head))
    init, _ = build(experiment, read_hf_config(folder), 3)
    nothing = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0, np.int32))
    blank = np.zeros((0, 3), np.float32)
    batch = fill(nothing, blank, blank, None, Shape(1, 8, 1))
    return jax.eval_shape(init, jax.random.key(0), batch)


def equal(one, other):
    one, other = flatten_params(one), flatten_params(other)
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path])


def rewrite(folder, change):
    tensors = {name: stored.read() for name, stored in open_tensors(folder).items()}
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def test_every_leaf_is_loaded(folder):
    found = flatten_params(pretrained_params(folder, shapes(folder)))
    wanted = flatten_params(shapes(folder))
    assert wanted.keys() - found.keys() == {
        ("head", "classifier", "kernel"),
        ("head", "classifier", "bias"),
    }


def test_the_pooler_is_surplus_only_where_no_head_wants_it(folder):
    assert "head" not in pretrained_params(folder, shapes(folder, "linear"))
    assert "pooler" in pretrained_params(folder, shapes(folder))["head"]


def test_sharded_files_give_the_same(folder, model, tmp_path_factory):
    shards = tmp_path_factory.mktemp("shards")
    model.save_pretrained(shards, safe_serialization=True, max_shard_size="4KB")
    assert not (shards / "model.safetensors").exists()
    assert len(list(shards.glob("*.safetensors"))) > 1
    equal(pretrained_params(folder, shapes(folder)), pretrained_params(shards, shapes(folder)))


def test_a_shard_outside_the_folder_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = {"weight_map": {"x": "../part.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="outside the folder"):
        pretrained_params(folder, shapes(folder))


def test_flax_msgpack_gives_the_same(folder, model, tmp_path_factory):
    """A Flax file as transformers wrote them: bert/encoder/layer/0/…/kernel, scale, embedding."""
    flat = {}
    for name, tensor in model.state_dict().items():
        *module, leaf = name.split(".")
        value = tensor.numpy()
        if leaf == "weight":
            if "embeddings" in module[-1]:
                leaf = "embedding"
            elif module[-1] == "LayerNorm":
                leaf = "scale"
            else:
                leaf, value = "kernel", value.T
        flat[("bert", *module, leaf)] = value
    path = tmp_path_factory.mktemp("flax")
    tree = flax.traverse_util.unflatten_dict(flat)
    (path / "flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    (path / "config.json").write_text((folder / "config.json").read_text())
    equal(pretrained_params(folder, shapes(folder)), pretrained_params(path, shapes(folder)))


def test_names_of_task_models_and_old_files_are_understood(folder):
    expected = pretrained_params(folder, shapes(folder))

    def age(tensors):
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            old = old.replace("LayerNorm.bias", "LayerNorm.beta")
            tensors["bert." + old] = tensors.pop(name)
        tensors["cls.predictions.bias"] = np.zeros(40, np.float32)
        tensors["bert.embeddings.position_ids"] = np.arange(12)[None]

    rewrite(folder, age)
    equal(expected, pretrained_params(folder, shapes(folder)))


def test_all_faults_are_named_at_once(folder):
    def spoil(tensors):
        del tensors["encoder.layer.1.output.dense.bias"]
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
        tensors["embeddings.LayerNorm.bias"] = np.zeros(3, np.float32)

    rewrite(folder, spoil)
    with pytest.raises(DataError) as caught:
        pretrained_params(folder, shapes(folder))
    message = str(caught.value)
    assert "missing encoder.layer.1.output.dense.bias" in message
    assert "surplus encoder.layer.2.output.dense.bias" in message
    assert "embeddings.LayerNorm.bias has shape (3,), expected (16,)" in message


def test_half_precision_files_become_float32(folder):
    def halve(tensors):
        for name in list(tensors):
            tensors[name] = tensors[name].astype(np.float16)

    rewrite(folder, halve)
    params = flatten_params(pretrained_params(folder, shapes(folder)))
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}


def test_pickled_weights_are_not_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04not to be read")
    with pytest.raises(DataError, match="pickled weights"):
        pretrained_params(folder, shapes(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "flax_model.msgpack"])
def test_a_torn_file_is_a_data_error(folder, name):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=name):
        open_tensors(folder)
