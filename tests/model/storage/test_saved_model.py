"""The folder model/: what is saved comes back to the bit, and files that do not fit are named."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxclf.errors import DataError
from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import override
from jaxclf.inference.members import param_shapes
from jaxclf.model.classifier import build
from jaxclf.model.storage.saved_model import SavedModel, load_model, pretrained_params, save_model
from jaxclf.model.storage.weights import flatten_params
from jaxclf.text.tokenizer.tokenize import load_tokenizer

LABELS = ("alpha", "beta", "gamma")
THRESHOLDS = {name: {"value": 0.25, "split": "val", "rule": "per_label"} for name in LABELS}

CURVES = {"kind": "temperature", "curves": [{"temperature": 1.5}] * 3}
LEDGER = {"splits": {}, "fitted": [{"what": "the weights", "split": "train"}]}


@pytest.fixture(params=["linear", "native", "residual"])
def saved(request, tiny_experiment, tiny_config, tiny_encoder, tmp_path):
    experiment = override(tiny_experiment, {"head": request.param, "pool": "attention"})
    shapes = param_shapes(experiment, tiny_config, len(LABELS))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    handover = SavedModel(experiment, tiny_config, LABELS, THRESHOLDS, CURVES, LEDGER, params)
    save_model(tmp_path / "model", handover, load_tokenizer(tiny_encoder), "a card")
    return tmp_path / "model", handover


def test_there_and_back_is_bitwise(saved):
    folder, handover = saved
    found = load_model(folder, param_shapes)
    assert found.experiment == handover.experiment
    assert found[2:6] == handover[2:6]
    one, other = flatten_params(found.params), flatten_params(handover.params)
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path])
    assert (folder / "README.md").read_text() == "a card"


def test_the_encoder_lies_there_as_its_family_does(saved, tiny_config):
    """The folder serves as a pretrained encoder again."""
    folder, handover = saved
    again = pretrained_params(folder, {"encoder": handover.params["encoder"]})
    for path, leaf in flatten_params(again).items():
        np.testing.assert_array_equal(leaf, flatten_params(handover.params)[path])


def test_tensors_that_do_not_fit_are_all_named(saved):
    folder, _ = saved
    tensors = safetensors.numpy.load_file(folder / "head.safetensors")
    tensors["head/classifier/bias"] = np.zeros(7, np.float32)
    tensors["head/more"] = np.zeros(1, np.float32)
    del tensors["pool/score/kernel"]
    safetensors.numpy.save_file(tensors, folder / "head.safetensors")
    with pytest.raises(DataError) as caught:
        load_model(folder, param_shapes)
    message = str(caught.value)
    assert "missing pool/score/kernel" in message
    assert "unexpected head/more" in message
    assert "head/classifier/bias has shape (7,), expected (3,)" in message


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"jaxclf\.json: no such file"):
        load_model(tmp_path, param_shapes)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_a_pool_without_parameters_saves_none(tiny_experiment, tiny_config, pool):
    experiment = override(tiny_experiment, {"pool": pool})
    assert experiment.pool == Spec(pool)
    assert "pool" not in param_shapes(experiment, tiny_config, 3)
    build(experiment, tiny_config, 3)
