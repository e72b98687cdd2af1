"""The loader: every layout and age of files gives the same parameters.

What it refuses is in test_hostile.py, and the way back in test_encoders.py.
"""

import json
import logging

import chex
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from encoder_networks import LINEAR, NATIVE, abstract_params
from layouts import SINGLE, as_flax, as_shards
from tiny_encoders import GOLDEN, VARIANTS, hf_config

from jaxclf.errors import DataError
from jaxclf.model.storage.encoder_config import read_hf_config
from jaxclf.model.storage.saved_model import pretrained_params
from jaxclf.model.storage.weights import flatten_params


@pytest.fixture
def folder(tmp_path):
    """A BERT without classifier, under the names of transformers' BertModel, in float32."""
    stored = safetensors.numpy.load_file(GOLDEN / "bert" / SINGLE)
    tensors = {
        name.removeprefix("bert."): tensor.astype(np.float32)
        for name, tensor in stored.items()
        if not name.startswith("classifier.")
    }
    (tmp_path / "config.json").write_bytes((GOLDEN / "bert" / "config.json").read_bytes())
    safetensors.numpy.save_file(tensors, tmp_path / SINGLE)
    return tmp_path


def params_of(folder, head=NATIVE):
    return pretrained_params(folder, abstract_params(hf_config("bert"), head))


def change_tensors(folder, change):
    tensors = safetensors.numpy.load_file(folder / SINGLE)
    safetensors.numpy.save_file(change(tensors), folder / SINGLE)


def as_old_task_model(folder):
    """With the prefix and the head of a task, positions as a tensor, and names of old files."""

    def rename(tensors):
        renamed = {f"bert.{name}": tensor for name, tensor in tensors.items()}
        for old, new in (("weight", "gamma"), ("bias", "beta")):
            renamed = {
                name.replace(f"LayerNorm.{old}", f"LayerNorm.{new}"): tensor
                for name, tensor in renamed.items()
            }
        renamed["cls.predictions.bias"] = np.zeros(60, np.float32)
        renamed["bert.embeddings.position_ids"] = np.arange(24)[None]
        return renamed

    change_tensors(folder, rename)


@pytest.mark.parametrize("layout", [as_shards, as_flax, as_old_task_model])
def test_every_layout_gives_the_same(folder, layout):
    expected = params_of(folder)
    layout(folder)
    chex.assert_trees_all_equal(params_of(folder), expected)


def test_the_pooler_is_ignored_where_no_head_uses_it(folder):
    assert "head" not in params_of(folder, LINEAR)
    assert params_of(folder)["head"].keys() == {"pooler"}


@pytest.mark.parametrize("dtype", ["float16", jnp.bfloat16])
def test_half_precision_files_become_float32(folder, dtype):
    """The golden values are exact in float16."""
    expected = params_of(folder)
    change_tensors(folder, lambda tensors: {k: x.astype(dtype) for k, x in tensors.items()})
    params = params_of(folder)
    assert {leaf.dtype for leaf in flatten_params(params).values()} == {np.dtype(np.float32)}
    chex.assert_trees_all_close(params, expected, rtol=0 if dtype == "float16" else 2**-8)


PREFIXES = ["_orig_mod.", "module.", "bert.", "module._orig_mod.bert.", "model.", "0.auto_model."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_dropped(folder, prefix):
    expected = params_of(folder)
    change_tensors(folder, lambda tensors: {prefix + name: x for name, x in tensors.items()})
    chex.assert_trees_all_equal(params_of(folder), expected)


def test_a_layer_beside_a_wrapped_encoder_is_not_its_own(folder):
    """The pooler is the encoder's; the layer of that name beside it is another."""
    expected = params_of(folder)

    def wrap(tensors):
        beside = {"pooler.dense.weight": np.zeros((2, 3), np.float32)}
        return {f"encoder.{name}": tensor for name, tensor in tensors.items()} | beside

    change_tensors(folder, wrap)
    chex.assert_trees_all_equal(params_of(folder), expected)


def test_two_encoders_are_refused(folder):
    change_tensors(
        folder, lambda tensors: {f"{side}.{k}": x for k, x in tensors.items() for side in "ab"}
    )
    with pytest.raises(DataError, match=r"2 encoders, under the prefixes 'a\.', 'b\.'"):
        params_of(folder)


@pytest.mark.parametrize("prefix", ["", "bert.", "module."])
def test_heads_of_other_tasks_are_named_and_passed_over(folder, prefix, caplog):
    expected = params_of(folder)
    heads = ["qa_outputs.weight", "cls.predictions.bias", "classifier.weight", "logit_scale"]

    def add_heads(tensors):
        outer = prefix.removesuffix("bert.")
        added = {outer + name: np.zeros(1, np.float32) for name in heads}
        return {prefix + name: tensor for name, tensor in tensors.items()} | added

    change_tensors(folder, add_heads)
    caplog.set_level(logging.INFO, "jaxclf")
    chex.assert_trees_all_equal(params_of(folder), expected)
    (message,) = caplog.messages
    assert message == (
        f"{folder}: not used of the weights: classifier, cls, logit_scale, qa_outputs"
    )


def without(folder, variant, *keys):
    """A copy of a golden folder whose config lacks keys."""
    config = {key: value for key, value in hf_config(variant).items() if key not in keys}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / SINGLE).write_bytes((GOLDEN / variant / SINGLE).read_bytes())
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_without_model_type_is_told_from_the_weights(variant, tmp_path):
    """XLM-R has RoBERTa's names and network."""
    config = read_hf_config(without(tmp_path / "copy", variant, "model_type", "architectures"))
    assert config["model_type"] == hf_config(variant)["model_type"].removeprefix("xlm-")


@pytest.mark.parametrize(("types", "model_type"), [(2, "bert"), (1, None)])
def test_names_without_a_prefix_may_be_of_bert_or_roberta(folder, types, model_type):
    config = {**hf_config("bert"), "type_vocab_size": types}
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    if model_type:
        assert read_hf_config(folder)["model_type"] == model_type
    else:
        with pytest.raises(DataError, match='add "model_type" with one of: bert, roberta'):
            read_hf_config(folder)


def test_weights_of_no_family_tell_no_model_type(folder):
    (folder / "config.json").write_text("{}")
    change_tensors(folder, lambda tensors: {"h.0.attn.c_attn.weight": np.zeros(1, np.float32)})
    with pytest.raises(DataError, match=r'add "model_type" with one of: .*modernbert'):
        read_hf_config(folder)
