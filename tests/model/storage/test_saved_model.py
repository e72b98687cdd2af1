"""Model folders: saved parameters are loaded to the bit. test_hostile.py has what is refused."""

import chex
import jax
import numpy as np
import pytest

from jaxclf.decisions.provenance import Provenance
from jaxclf.experiment.config import Spec
from jaxclf.experiment.overrides import override
from jaxclf.model.classifier import build, param_shapes
from jaxclf.model.storage.saved_model import SavedModel, load_model, pretrained_params, save_model
from jaxclf.text.tokenizer.tokenize import load_tokenizer

LABELS = ("alpha", "beta", "gamma")
THRESHOLDS = {name: {"value": 0.25, "split": "val", "rule": "per_label"} for name in LABELS}

CURVES = {"kind": "temperature", "curves": [{"temperature": 1.5}] * 3}
FITTED = [{"what": "the weights", "split": "train"}]
PROVENANCE = Provenance({"splits": {}, "fitted": FITTED}, {})


@pytest.fixture(params=["linear", "native", "residual"])
def saved(request, tiny_experiment, tiny_config, tiny_encoder, tmp_path):
    experiment = override(tiny_experiment, {"head": request.param, "pool": "attention"})
    shapes = param_shapes(experiment, tiny_config, len(LABELS))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    saved_model = SavedModel(
        experiment, tiny_config, LABELS, THRESHOLDS, CURVES, PROVENANCE, params
    )
    save_model(tmp_path / "model", saved_model, load_tokenizer(tiny_encoder), "a card")
    return tmp_path / "model", saved_model


def test_there_and_back_is_bitwise(saved):
    folder, saved_model = saved
    loaded = load_model(folder)
    assert loaded.experiment == saved_model.experiment
    assert loaded[2:6] == saved_model[2:6]
    chex.assert_trees_all_equal(loaded.params, saved_model.params)
    assert (folder / "README.md").read_text().startswith("a card\n")


def test_the_folder_serves_as_a_pretrained_encoder(saved, tiny_config):
    folder, saved_model = saved
    encoder = {"encoder": saved_model.params["encoder"]}
    chex.assert_trees_all_equal(pretrained_params(folder, encoder), encoder)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_a_pool_without_parameters_saves_none(tiny_experiment, tiny_config, pool):
    experiment = override(tiny_experiment, {"pool": pool})
    assert experiment.pool == Spec(pool)
    assert "pool" not in param_shapes(experiment, tiny_config, 3)
    build(experiment, tiny_config, 3)
