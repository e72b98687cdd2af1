"""The loader: bitwise there and back, strict both ways, every layout of files, and no pickle."""

import json
import shutil

import chex
import flax.serialization
import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy
from tiny_encoders import GOLDEN

from jaxclf.errors import DataError
from jaxclf.experiment.config import Data, Experiment, Spec
from jaxclf.model.classifier import build
from jaxclf.model.storage.saved_model import pretrained_params, read_hf_config
from jaxclf.model.storage.weights import flatten_params, open_tensors
from jaxclf.text.packing import fill
from jaxclf.types import Shape, Tokens

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def tensors():
    """The tensors of a BERT without classifier, under the names of transformers' BertModel."""
    stored = safetensors.numpy.load_file(GOLDEN / "bert" / SINGLE)
    return {
        name.removeprefix("bert."): tensor.astype(np.float32)
        for name, tensor in stored.items()
        if not name.startswith("classifier.")
    }


@pytest.fixture
def folder(tensors, tmp_path):
    return write(tmp_path / "model", tensors)


def write(folder, tensors, file=SINGLE):
    folder.mkdir(exist_ok=True)
    shutil.copyfile(GOLDEN / "bert" / "config.json", folder / "config.json")
    safetensors.numpy.save_file(tensors, folder / file)
    return folder


def shapes(folder, head="native"):
    experiment = Experiment(Data("", "", "", max_length=8), head=Spec(head))
    init, _ = build(experiment, read_hf_config(folder), 3)
    no_tokens = Tokens(np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0, np.int32))
    blank = np.zeros((0, 3), np.float32)
    batch = fill(no_tokens, blank, blank, None, Shape(1, 8, 1))
    return jax.eval_shape(init, jax.random.key(0), batch)


def params_of(folder):
    return pretrained_params(folder, shapes(folder))


def test_every_parameter_is_loaded(folder):
    missing = flatten_params(shapes(folder)).keys() - flatten_params(params_of(folder)).keys()
    assert missing == {("head", "classifier", "kernel"), ("head", "classifier", "bias")}


def test_the_pooler_is_ignored_where_no_head_uses_it(folder):
    assert "head" not in pretrained_params(folder, shapes(folder, "linear"))
    assert "pooler" in params_of(folder)["head"]


def test_sharded_files_give_the_same(folder, tensors, tmp_path):
    shards = tmp_path / "shards"
    names = sorted(tensors)
    weight_map = {}
    for shard in range(3):
        file = f"model-{shard}.safetensors"
        weight_map |= dict.fromkeys(names[shard::3], file)
        write(shards, {name: tensors[name] for name in names[shard::3]}, file)
    (shards / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    chex.assert_trees_all_equal(params_of(folder), params_of(shards))


def test_a_shard_outside_the_folder_is_refused(folder):
    (folder / SINGLE).rename(folder / "part.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "../part.safetensors"}}))
    with pytest.raises(DataError, match="outside the folder"):
        params_of(folder)


def test_flax_msgpack_gives_the_same(folder, tensors, tmp_path):
    """A Flax file as transformers wrote them: bert/encoder/layer/0/…/kernel, scale, embedding."""
    flat = {}
    for name, value in tensors.items():
        *module, leaf = name.split(".")
        if leaf == "weight":
            if "embeddings" in module[-1]:
                leaf = "embedding"
            elif module[-1] == "LayerNorm":
                leaf = "scale"
            else:
                leaf, value = "kernel", value.T
        flat[("bert", *module, leaf)] = value
    flax_folder = write(tmp_path / "flax", tensors)
    (flax_folder / SINGLE).unlink()
    tree = flax.traverse_util.unflatten_dict(flat)
    content = flax.serialization.msgpack_serialize(tree)
    (flax_folder / "flax_model.msgpack").write_bytes(content)
    chex.assert_trees_all_equal(params_of(folder), params_of(flax_folder))


def test_names_of_task_models_and_old_files_are_understood(folder, tensors, tmp_path):
    renamed = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    renamed["cls.predictions.bias"] = np.zeros(60, np.float32)
    renamed["bert.embeddings.position_ids"] = np.arange(24)[None]
    old = write(tmp_path / "old", renamed)
    chex.assert_trees_all_equal(params_of(folder), params_of(old))


def test_every_tensor_that_does_not_fit_is_named(folder, tensors):
    del tensors["encoder.layer.1.output.dense.bias"]
    tensors["encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
    tensors["embeddings.LayerNorm.bias"] = np.zeros(3, np.float32)
    write(folder, tensors)
    with pytest.raises(DataError) as caught:
        params_of(folder)
    message = str(caught.value)
    assert "missing encoder.layer.1.output.dense.bias" in message
    assert "unexpected encoder.layer.2.output.dense.bias" in message
    assert "embeddings.LayerNorm.bias has shape (3,), expected (32,)" in message


def test_half_precision_files_become_float32(folder, tensors):
    write(folder, {name: tensor.astype(np.float16) for name, tensor in tensors.items()})
    params = flatten_params(params_of(folder))
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}


def test_pickled_weights_are_not_opened(folder):
    (folder / SINGLE).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04not to be read")
    with pytest.raises(DataError, match="pickled weights"):
        params_of(folder)


@pytest.mark.parametrize("name", [SINGLE, "flax_model.msgpack"])
def test_a_torn_file_is_a_data_error(folder, name):
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).unlink()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=name):
        open_tensors(folder)
