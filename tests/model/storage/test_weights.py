"""The loader: every layout and age of files gives the same parameters.

What it refuses is in test_hostile.py, and the way back in test_encoders.py.
"""

import chex
import numpy as np
import pytest
import safetensors.numpy
from encoder_networks import LINEAR, NATIVE, abstract_params
from layouts import SINGLE, as_flax, as_shards
from tiny_encoders import GOLDEN, hf_config

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


def test_half_precision_files_become_float32(folder):
    change_tensors(folder, lambda tensors: {k: x.astype(np.float16) for k, x in tensors.items()})
    params = flatten_params(params_of(folder))
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}
